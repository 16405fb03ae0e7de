"""The simulator against arithmetic by hand, against queueing theory, and under every policy and fault."""

from __future__ import annotations

import math

import numpy as np
import pytest

from labkit.scale.jobs import Job, Speed, fit, poisson
from labkit.scale.queueing import Queue
from labkit.scale.simulator import Balancer, Fault, Simulation, simulate

SPEED = Speed(base_s=0.01, per_request_s=0.005, per_prompt_token_s=0.001, slots=4)


def responses(rows):
    return np.array([row.last_s - row.at_s for row in rows if row.status == "ok"])


def test_one_request_by_hand():
    (row,) = simulate([Job(1.0, 10, 3)], SPEED)
    assert row.first_s == pytest.approx(1.0 + 0.01 + 0.005 + 10 * 0.001)
    assert row.last_s == pytest.approx(row.first_s + 2 * 0.015)
    assert (row.tokens, row.status, row.tries) == (3, "ok", 1)


def test_a_long_prompt_is_read_in_several_steps():
    (row,) = simulate([Job(0.0, 100, 1)], SPEED.model_copy(update={"batch_tokens": 40}))
    assert row.first_s == pytest.approx(3 * 0.01 + 100 * 0.001 + 0.005), "only the last of the three steps makes a token"


def test_a_second_request_joins_after_the_step_and_slows_the_first():
    alone = simulate([Job(0.0, 10, 10)], SPEED)[0].last_s
    first, second = simulate([Job(0.0, 10, 10), Job(0.04, 10, 2)], SPEED)
    assert first.last_s == pytest.approx(alone + 0.01 + 2 * 0.005), "its prompt, and one more place in two steps"
    assert second.first_s == pytest.approx(0.025 + 0.015 * 1 + 0.015 + 0.03, abs=0.016)


def test_requests_beyond_the_slots_wait_and_beyond_the_queue_are_refused():
    jobs = [Job(0.0, 1, 50)] * 7
    waited = simulate(jobs, SPEED)
    assert sorted(row.first_s > 0.5 for row in waited) == [False] * 4 + [True] * 3
    refused = simulate(jobs, SPEED.model_copy(update={"queue": 1}))
    assert [row.status for row in refused].count("refused") == 2
    assert all(math.isnan(row.first_s) and row.tokens == 0 for row in refused if row.status == "refused")


def test_batching_gives_more_tokens_and_a_slower_stream():
    def speed_of(slots):
        rows = simulate([Job(0.0, 1, 100)] * 4, SPEED.model_copy(update={"slots": slots}))
        return 400 / max(r.last_s for r in rows), np.mean([(r.last_s - r.first_s) / 99 for r in rows])

    (alone, alone_tpot), (batched, batched_tpot) = speed_of(1), speed_of(4)
    assert batched > 1.5 * alone
    assert batched_tpot > 1.5 * alone_tpot


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_one_slot_is_m_d_1(utilisation):
    speed = SPEED.model_copy(update={"slots": 1})
    service = 0.01 + 0.005 + 0.04 + 19 * 0.015
    rows = simulate(poisson(utilisation / service, 6000 * service / utilisation, 40, 20, seed=3), speed)
    expected = Queue(rate=utilisation / service, service_s=service, cv=0)
    assert responses(rows).mean() == pytest.approx(expected.response_s, rel=0.1)


def test_every_token_comes_and_time_never_runs_backwards():
    jobs = poisson(30, 60, [5, 40, 700], [1, 7, 60], seed=5)
    rows = simulate(jobs, SPEED, replicas=3)
    assert [row.tokens for row in rows] == [job.output_tokens for job in sorted(jobs)]
    assert all(row.at_s < row.first_s <= row.last_s for row in rows)


@pytest.mark.parametrize("policy", ["round_robin", "random", "least", "two_choices"])
def test_each_policy_uses_every_replica(policy):
    rows = simulate(poisson(20, 30, seed=1), SPEED, 4, Balancer(policy=policy))
    assert {row.replica for row in rows} == {0, 1, 2, 3}
    assert {row.status for row in rows} == {"ok"}


def test_the_least_loaded_beats_chance_on_uneven_jobs():
    jobs = poisson(9, 300, 40, [5, 5, 5, 200], seed=2)
    p95 = {
        policy: np.quantile(responses(simulate(jobs, SPEED, 4, Balancer(policy=policy))), 0.95)
        for policy in ("random", "least", "two_choices")
    }
    assert p95["least"] < p95["random"]
    assert p95["two_choices"] < p95["random"]


def test_a_killed_replica_cuts_what_had_begun_and_nothing_else():
    jobs = poisson(20, 20, 40, 40, seed=4)
    rows = simulate(jobs, SPEED, 2, faults=[Fault(10.0, 0, 5.0)])
    status = [row.status for row in rows]
    assert 1 <= status.count("cut") <= SPEED.slots
    assert status.count("refused") == 0
    assert len(rows) == len(jobs)
    assert all(row.first_s <= 10.0 and row.tokens < 40 for row in rows if row.status == "cut")
    assert any(row.tries > 1 for row in rows), "what had waited there was sent again"
    assert not [row for row in rows if row.replica == 0 and 10.0 < row.at_s < 15.0]
    assert [row for row in rows if row.replica == 0 and row.at_s > 15.0]


def test_without_retries_an_unnoticed_death_refuses():
    jobs = poisson(10, 20, 40, 10, seed=4)
    naive = Balancer(policy="round_robin", retries=0, noticed_s=3.0)
    refused = [row for row in simulate(jobs, SPEED, 2, naive, [Fault(10.0, 0)]) if row.status == "refused"]
    assert refused
    assert all(9.0 < row.at_s < 13.0 for row in refused), "what waited there, and what came before the death was noticed"
    better = simulate(jobs, SPEED, 2, naive.model_copy(update={"retries": 2}), [Fault(10.0, 0)])
    assert not [row for row in better if row.status == "refused"]


def test_with_no_replica_left_everything_is_refused():
    rows = simulate(poisson(5, 10, seed=1), SPEED, 1, faults=[Fault(5.0, 0)])
    assert {row.status for row in rows if row.at_s > 5.0} == {"refused"}


def test_resizing_takes_time_and_draining_loses_nothing():
    jobs = poisson(40, 30, 40, 20, seed=6)
    run = Simulation(jobs, SPEED, 1, Balancer())
    run.until(5.0)
    assert run.waiting > 0
    run.resize(4, start_s=3.0)
    run.until(7.9)
    assert run.ready == 1
    run.until(8.1)
    assert run.ready == 4
    run.resize(2)
    assert run.ready == 2
    run.until()
    assert len(run.rows()) == len(jobs)
    assert {row.status for row in run.rows()} == {"ok"}
    assert run.in_flight == 0


def test_the_same_seed_is_the_same_run_and_pausing_changes_nothing():
    jobs = poisson(20, 30, 40, [5, 30], seed=7)
    balancer = Balancer(policy="two_choices", seed=3)
    whole = simulate(jobs, SPEED, 3, balancer)
    paused = Simulation(jobs, SPEED, 3, balancer)
    for second in np.arange(0.5, 40, 0.37):
        paused.until(float(second))
    paused.until()
    assert paused.rows() == whole == simulate(jobs, SPEED, 3, balancer)


def test_poisson_arrivals():
    jobs = poisson(50, 200, seed=1)
    gaps = np.diff([job.at_s for job in jobs])
    assert len(jobs) == pytest.approx(10_000, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert jobs == poisson(50, 200, seed=1) != poisson(50, 200, seed=2)


def test_fit_finds_the_speed_again():
    tpots = [(n, SPEED.step_s(n)) for n in (1, 2, 4)]
    ttfts = [(tokens, SPEED.step_s(1, tokens)) for tokens in (16, 64, 256)]
    found = fit(tpots, ttfts, slots=4)
    assert found.model_dump(exclude={"queue"}) == pytest.approx(SPEED.model_dump(exclude={"queue"}), rel=1e-6)
    assert fit([(1, 1.0), (2, 3.0)], ttfts, slots=2).base_s == 0, "no step takes less than nothing"
    assert fit([(1, 0.2), (4, 0.1)], ttfts, slots=2).per_request_s == 0
    with pytest.raises(ValueError, match="two points"):
        fit([(1, 0.1), (1, 0.2)], ttfts, slots=2)


def test_refused_jobs():
    with pytest.raises(ValueError, match="token"):
        simulate([Job(0.0, 0, 5)], SPEED)
