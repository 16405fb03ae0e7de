"""The loop closed: load, HAProxy's metrics, a real Prometheus, the formula, and a pool of stand-ins that grows and shrinks."""

import time

import pytest

from labkit.core.errors import BadInput, RunFailed
from labkit.measure import load
from labkit.measure.load import Plan
from labkit.scale import autoscale, controller, observe, pool, standin
from labkit.scale.jobs import Speed
from labkit.servers import prometheus
from labkit.servers.base import NO_MODEL

# quick rules, so that a test sees both directions; a service keeps Kubernetes' five minutes
DOWN = autoscale.Rules(stabilization_s=3, policies=(autoscale.Policy(kind="percent", value=100, period_s=1),))
UP = autoscale.Rules(policies=(autoscale.Policy(kind="pods", value=4, period_s=1),))
SPEED = Speed(base_s=0.03, per_request_s=0.001, per_prompt_token_s=0.0001, slots=2)


class Fixed:
    """A formula that wants what it is told."""

    def __init__(self, wanted):
        self.wanted, self.seen = wanted, []

    def step(self, now, current, value):
        self.seen.append((current, value))
        return self.wanted


class Places:
    def __init__(self):
        self.sizes = []

    def resize(self, wanted):
        if wanted > 9:
            raise BadInput("too many", "fewer")
        self.sizes.append(wanted)


def until(ask, seconds=40):
    end = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_nothing_is_changed_where_there_is_no_value():
    places, values, formula = Places(), iter([None, 5.0]), Fixed(3)
    with controller.run(places, lambda: next(values, 5.0), formula, 0.01, start=2) as rows:
        until(lambda: len(rows) >= 3)
    assert [(row.value, row.current, row.wanted) for row in rows[:3]] == [(None, 2, 2), (5.0, 2, 3), (5.0, 3, 3)]
    assert formula.seen[:2] == [(2, 5.0), (3, 5.0)]
    assert places.sizes[:4] == [2, 2, 3, 3]


def test_what_goes_wrong_is_raised_at_the_end():
    with pytest.raises(BadInput, match="too many"), controller.run(Places(), lambda: 1.0, Fixed(10), 0.01):
        time.sleep(0.2)
    with pytest.raises(RunFailed), controller.run(Places(), controller.asks("http://127.0.0.1:9", "up"), Fixed(1), 0.01):
        time.sleep(0.2)


def test_replicas_follow_the_requests_in_flight(needs):
    needs("prometheus")
    needs("haproxy")
    with pool.open(lambda: standin.SERVER.launch(NO_MODEL, speed=SPEED.model_dump()), most=4) as replicas:
        replicas.resize(1)
        replicas.wait(1)
        target = prometheus.Target(urls=[replicas.url], path="/haproxy/metrics")
        with prometheus.start(targets={"haproxy": target}, every_s=0.5) as watching:
            ask = controller.asks(watching.url, observe.query("in_flight"))
            until(lambda: ask() == 0)
            trigger = autoscale.Trigger(minimum=1, maximum=4, threshold=2, polling_s=0.5, up=UP, down=DOWN)
            with controller.run(replicas, ask, autoscale.Keda(trigger, sync_s=0.5), 0.5) as rows:
                found = load.run(
                    replicas.base_url, standin.NAME, Plan(concurrency=6, seconds=8, output_tokens=20, prompt_tokens=8, warmup=0)
                )
                until(lambda: rows[-1].wanted == 1)
                replicas.wait(1, 30)
    assert {one.status for one in found} == {"ok"}, "growing and shrinking cut no answer"
    most = max(rows, key=lambda row: row.value or 0)
    assert most.value == 6
    assert max(row.wanted for row in rows) == 3, "6 requests in flight at 2 a replica"
