"""The arithmetic of HPA and KEDA against the examples of their documentation, and every constant shown to matter."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from labkit.scale.autoscale import DOWN, UP, Hpa, Keda, Policy, Rules, Trigger

FREE = Rules(policies=(Policy(kind="percent", value=10_000, period_s=15),))  # no window, no brake


def hpa(**changes):
    return Hpa(**{"minimum": 1, "maximum": 1000, "target": 100.0, "up": FREE, "down": FREE} | changes)


# -- kubernetes.io, "Algorithm details": value 200m at target 100m doubles the replicas, 50m halves them


@pytest.mark.parametrize(
    ("metric", "replicas"), [(200, 8), (50, 2), (100, 4), (109.9, 4), (110, 4), (110.1, 5), (90, 4), (89.9, 4), (75, 3)]
)
def test_the_ratio_and_its_tolerance(metric, replicas):
    assert hpa().step(0, 4, metric) == replicas


def test_a_tolerance_of_its_own_in_each_direction():
    up = FREE.model_copy(update={"tolerance": 0.0})
    assert hpa(up=up).step(0, 4, 104) == 5
    assert hpa(down=up).step(0, 4, 104) == 4
    assert hpa(down=up).step(0, 100, 98) == 98


def test_an_external_metric_is_divided_among_the_replicas():
    assert hpa(average=False).step(0, 4, 900) == 9
    assert hpa(average=False).step(0, 4, 430) == 4, "430 over 4 replicas is within a tenth of 100"
    assert hpa(average=False).step(0, 4, 441) == 5


def test_binary_fractions_add_no_replica():
    assert hpa(target=0.1).wanted(3, 0.3) == 9
    assert hpa(target=0.07, average=False).wanted(1, 0.7) == 10


def test_bounds_and_a_target_that_stands_at_zero():
    assert hpa(maximum=6).step(0, 4, 900) == 6
    assert hpa(minimum=3).step(0, 4, 1) == 3
    assert hpa(minimum=3).step(0, 1, 100) == 3
    assert hpa(maximum=6).step(0, 9, 100) == 6
    assert hpa().step(0, 0, 900) == 0


@pytest.mark.parametrize("wrong", [{"minimum": 0}, {"minimum": 5, "maximum": 4}, {"target": 0}])
def test_what_the_server_would_refuse(wrong):
    with pytest.raises(ValueError, match="minimum"):
        hpa(**wrong)


# -- "Scaling policies": 80 replicas, 10 percent or 4 pods a minute, the bigger change


def test_the_documented_way_down_from_80():
    rules = Rules(policies=(Policy(kind="pods", value=4, period_s=60), Policy(kind="percent", value=10, period_s=60)))
    one, seen, current = hpa(down=rules), [], 80
    for minute in range(16):
        current = one.step(60.0 * minute, current, 1)
        seen.append(current)
    assert seen[:2] == [72, 64], "10 % of 72 is 7.2, rounded up to 8"
    low = next(n for n, value in enumerate(seen) if value <= 40)
    assert {a - b for a, b in zip(seen[low:], seen[low + 1 :], strict=False) if a > 4} == {4}, "below 40 the 4 pods are the bigger change"


def test_the_smallest_change_and_none_at_all():
    policies = (Policy(kind="pods", value=4, period_s=60), Policy(kind="percent", value=10, period_s=60))
    assert hpa(down=Rules(policies=policies, select="min")).step(0, 80, 1) == 76
    assert hpa(down=Rules(policies=policies, select="disabled")).step(0, 80, 1) == 80
    assert hpa(up=Rules(policies=policies, select="min")).step(0, 80, 900) == 84


def test_a_policy_counts_what_was_changed_in_its_period():
    rules = Rules(policies=(Policy(kind="pods", value=4, period_s=60),))
    one, current, seen = hpa(up=rules), 2, []
    for tick in range(9):
        current = one.step(15.0 * tick, current, 10_000)
        seen.append(current)
    assert seen == [6, 6, 6, 6, 10, 10, 10, 10, 14]


def test_the_defaults_up():
    one, current, seen = Hpa(maximum=1000, target=100), 1, []
    for tick in range(5):
        current = one.step(15.0 * tick, current, 100_000)
        seen.append(current)
    assert seen == [5, 10, 20, 40, 80], "4 pods or twice as many in 15 seconds, whichever is more"


def test_the_default_window_holds_the_replicas_for_five_minutes():
    one = Hpa(maximum=50, target=100)
    assert one.step(0, 10, 100) == 10
    assert [one.step(15.0 * tick, 10, 10) for tick in range(1, 20)] == [10] * 19
    assert one.step(300.0, 10, 10) == 1


def test_a_window_up_waits_for_the_lowest_of_it():
    one = hpa(up=FREE.model_copy(update={"stabilization_s": 60.0}))
    assert one.step(0, 4, 100) == 4
    assert [one.step(15.0 * tick, 4, 300) for tick in (1, 2, 3)] == [4, 4, 4]
    assert one.step(60.0, 4, 300) == 12


# -- KEDA


def keda(**changes):
    return Keda(Trigger(**{"threshold": 5.0, "maximum": 20, "polling_s": 30.0, "cooldown_s": 120.0, "up": FREE, "down": FREE} | changes))


def walk(one, values, current=0, every=15.0):
    seen = []
    for tick, value in enumerate(values):
        current = one.step(every * tick, current, value)
        seen.append(current)
    return seen


def test_from_none_to_one_at_a_poll_and_then_by_the_hpa():
    assert walk(keda(), [0, 12, 12, 12]) == [0, 0, 3, 3], "no poll at 15 s; at 30 s one replica, and the HPA looks in the same step"


def test_the_activation_value_itself_does_not_activate():
    assert walk(keda(activation=4), [4, 4, 4, 4]) == [0] * 4
    assert walk(keda(activation=4), [4.5])[0] == 1


def test_back_to_none_only_after_the_cooldown():
    seen = walk(keda(), [20, 20, *[0] * 10])
    assert seen[0] == 4
    assert seen.index(0) == 8, "active at the poll at 0 s, so none from the poll at 120 s on"
    assert 0 not in walk(keda(cooldown_s=1e6), [20, 20, *[0] * 10])


def test_a_minimum_of_one_never_goes_to_none():
    assert walk(keda(minimum=1), [20, *[0] * 30])[-1] == 1


def test_a_value_between_activation_and_threshold_keeps_one():
    assert set(walk(keda(), [2] * 20)) == {1}


def test_refused_triggers():
    with pytest.raises(ValidationError, match="above maximum"):
        keda(minimum=30)
    with pytest.raises(ValidationError, match="threshold"):
        keda(threshold=0)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"up": UP.model_copy(update={"tolerance": 0.5})}, True),
        ({"down": DOWN.model_copy(update={"stabilization_s": 60.0})}, True),
        ({"target": 50.0}, True),
        ({}, False),
    ],
    ids=["tolerance", "window", "target", "same"],
)
def test_a_perturbed_model_takes_another_path(change, differs):
    """What a comparison with a real cluster rests on: no constant is without effect."""
    load = [100 * (2 + math.sin(tick / 5)) ** 2 for tick in range(60)]

    def path(model):
        current, seen = 2, []
        for tick, value in enumerate(load):
            current = model.step(15.0 * tick, current, value)
            seen.append(current)
        return seen

    plain = path(Hpa(maximum=50, target=100, average=False))
    assert (path(Hpa(**{"maximum": 50, "target": 100, "average": False} | change)) != plain) is differs
