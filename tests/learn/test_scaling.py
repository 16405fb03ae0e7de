"""Lab 20 over real servers and stand-ins: ways to scale, loads against the model, policies, a kill, replicas that follow the load."""

import pytest

from labkit import models
from labkit.facts import scaling
from labkit.learn import scaling_plots as draw
from labkit.learn import scaling_rows as ask
from labkit.scale import capacity
from labkit.scale.jobs import Speed

pytestmark = pytest.mark.alone
SPEED = Speed(base_s=0.004, per_request_s=0.002, per_prompt_token_s=0.001, slots=2)


@pytest.fixture(autouse=True)
def installed(needs):
    for program in ("prometheus", "haproxy"):
        needs(program)


@pytest.fixture(scope="module")
def model():
    return models.resolve("smollm2-135m")


def test_three_ways_are_asked_for_the_same(model):
    rows = ask.sides_rows(model, rounds=1, requests=4, output=8)
    assert [row["side"] for row in rows] == list(ask.SIDES)
    assert all(row["ok"] == row["n"] == 4 and row["tokens_per_s"] > 0 for row in rows)
    assert scaling.twice_as_many(rows)["shown"] in {"confirmed", "refuted"}
    assert len(draw.draw_sides(rows, 2, "caption").axes) == 3


def test_a_real_server_is_calibrated_and_held_against_other_loads(model):
    rows = ask.calibrate_rows(model, [0.4], seconds=8, repeats=2)
    speed = ask.speed_of(rows)
    assert speed.slots == 2 and speed.per_prompt_token_s > 0
    assert ask.most(speed, draw.kinds(rows, "speed")[0]["prompt_tokens"], 24) == pytest.approx(draw.kinds(rows, "speed")[0]["most_per_s"])
    assert len(draw.kinds(rows, "level")) == 4
    assert len(draw.draw_fit(rows, "caption").axes) == len(draw.draw_levels(rows, 1, "caption").axes) == 2


def test_policies_get_the_same_arrivals():
    rate = 0.5 * 3 * ask.most(SPEED, 24, 25)
    rows = ask.policy_rows(SPEED, 3, rate, seconds=4, rounds=1, seed=1)
    assert [row["policy"] for row in rows[::2]] == list(ask.POLICIES)
    assert len({row["n"] for row in rows}) == 1 and rows[0]["n"] > 30
    assert all(row["standins_s"] > 0 and row["simulated_s"] > 0 for row in rows)
    assert len(draw.draw_policies(rows, "caption").axes) == 2


def test_after_a_kill_the_naive_way_loses_requests_and_the_good_one_none(model):
    rows = ask.kill_rows(model, rate=1.5, seconds=10, seed=1)
    assert ask.failed(rows, "naive") > 0.15
    assert ask.failed(rows, "good") == 0
    good = [row for row in draw.kinds(rows, "request") if row["side"] == "good"]
    assert {row["status"] for row in good} <= {"ok", ask.AGAIN}
    again = {row["number"] for row in good if row["status"] == ask.AGAIN}
    assert again <= {row["number"] for row in good if row["status"] == "ok"}, "each was answered in the end"
    assert scaling.no_request_lost(rows)["shown"] == ("confirmed" if again else "not-run")
    assert len(draw.draw_kill(rows, "caption").axes) == 2


def test_replicas_follow_the_load():
    calm = 0.5 * ask.most(SPEED, 24, 20)
    rows = ask.autoscale_rows(SPEED, [(4, calm), (8, 4 * calm), (6, calm)], most=5, each=2, prompt=24, output=20, seed=1)
    looks = draw.kinds(rows, "look")
    assert max(row["wanted"] for row in looks) >= 3
    assert looks[-1]["wanted"] < max(row["wanted"] for row in looks)
    assert max(row["ready"] for row in draw.kinds(rows, "count")) >= 3
    assert {row["status"] for row in draw.kinds(rows, "request")} == {"ok"}
    assert len(draw.draw_autoscale(rows, 3, "caption").axes) == 3


def test_sums_and_pictures_of_what_is_computed():
    assert ask.faster(SPEED, 2).step_s(1, 10) == pytest.approx(SPEED.step_s(1, 10) / 2)
    assert ask.alone_s(SPEED, 10) == pytest.approx(0.016)
    plans = [capacity.replicas_for(rate, SPEED, 0.5, seconds=60) for rate in (5, 50)]
    assert plans[0].replicas <= plans[1].replicas
    assert len(draw.draw_capacity(plans, "caption").axes) == 2
    assert draw.draw_queue(1.0, 2, 1.0, "caption").axes
    killed = [{"kind": "killed", "side": "good", "at_s": 1.0}]
    ends = [{"kind": "request", "side": "good", "at_s": at, "status": end} for at, end in ((0, "error"), (2, "ok"), (3, "refused"))]
    assert ask.failed([*killed, *ends], "good") == 0.5
    assert scaling.no_request_lost(killed)["shown"] == "not-run"
    assert scaling.twice_as_many([{"side": ask.SIDES[0], "tokens_per_s": 1}])["shown"] == "not-run"
