"""Capacity plans by simulation, and what tokens cost."""

import numpy as np
import pytest

from labkit.core.errors import BadInput
from labkit.scale import capacity
from labkit.scale.jobs import Speed, poisson
from labkit.scale.simulator import Balancer as Rules
from labkit.scale.simulator import Simulation, simulate

SPEED = Speed(base_s=0.01, per_request_s=0.005, per_prompt_token_s=0.001, slots=4)


@pytest.mark.parametrize("rate", [5, 40, 300])
def test_a_plan_is_the_fewest_that_keep_the_target(rate):
    plan = capacity.replicas_for(rate, SPEED, 0.5, seconds=60, seed=3)
    jobs = poisson(rate, 60, seed=3)

    def p95(replicas):
        rows = [row for row, job in zip(simulate(jobs, SPEED, replicas), jobs, strict=True) if job.at_s >= 15]
        return np.quantile([row.first_s - row.at_s for row in rows], 0.95)

    assert p95(plan.replicas) == pytest.approx(plan.figure_s)
    assert plan.figure_s <= 0.5
    fewer = plan.replicas - max(1, plan.replicas // 100)
    assert fewer == 0 or p95(fewer) > 0.5
    assert plan.replicas >= rate / capacity.most_per_replica(SPEED, 40, 20)
    assert plan.tokens_per_s == pytest.approx(rate * 20, rel=0.2)


def test_twice_the_load_needs_less_than_twice_the_replicas_where_they_are_few():
    few, many = (capacity.replicas_for(rate, SPEED, 0.3, seconds=120).replicas for rate in (4, 64))
    assert many < 16 * few


def test_thousands_of_replicas():
    plan = capacity.replicas_for(8000, SPEED, 0.5, seconds=6, seed=1)
    assert 1000 < plan.replicas < 4000


def test_a_target_that_cannot_be_kept_gets_the_reason():
    with pytest.raises(BadInput, match="a request that is alone takes"):
        capacity.replicas_for(5, SPEED, 0.01, most=50)
    with pytest.raises(BadInput, match="too few for a quantile"):
        capacity.replicas_for(0.1, SPEED, 0.5)


def test_costs():
    assert capacity.cost_per_million(3.6, 1000) == pytest.approx(1.0)
    assert capacity.cost_per_million(3.6, 500) == pytest.approx(2.0)
    assert capacity.break_even(3.6, 2.0) == pytest.approx(1.8)
    # at the break-even's own rate both cost the same
    tokens_per_s = capacity.break_even(3.6, 2.0) * 1e6 / 3600
    assert capacity.cost_per_million(3.6, tokens_per_s) == pytest.approx(2.0)
    with pytest.raises(BadInput):
        capacity.break_even(1.0, 0.0)


@pytest.mark.parametrize("policy", ["least", "round_robin", "random", "two_choices"])
def test_replicas_that_start_get_nothing_until_they_are_ready(policy):
    run = Simulation(poisson(5, 10, seed=1), SPEED, 1, Rules(policy=policy, retries=0))
    run.resize(9, start_s=5)
    run.until(5)
    assert {row.replica for row in run.rows()} == {0}
    run.until()
    assert {row.status for row in run.rows()} == {"ok"}
    assert len({row.replica for row in run.rows()}) > 1
