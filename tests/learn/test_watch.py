"""Lab 19 over its real servers: what is asked is seen, a killed replica is noticed and comes back, a slow request is found."""

from pathlib import Path

import pytest

from labkit import models
from labkit.core.errors import MissingPart
from labkit.facts import observing
from labkit.learn import watch_plots
from labkit.learn import watch_rows as ask
from labkit.learn import watch_sums as sums
from labkit.learn.watch_desk import PARTS, REPLICAS, Desk
from labkit.scale.observe import CATALOGUE


@pytest.fixture(scope="module")
def desk():
    with Desk(models.resolve("smollm2-135m"), window_s=5, hold_s=1) as opened:
        yield opened


@pytest.fixture(autouse=True)
def installed(needs):
    for program in ("prometheus", "prometheus-alertmanager", "haproxy"):
        needs(program)


def test_one_request_is_counted_by_the_replica_that_was_asked(desk):
    rows = desk.rows(lambda: ask.raw_rows(desk))
    grown = {row["metric"]: row["after"] - row["before"] for row in rows if row["kind"] == "counter"}
    assert grown["llamacpp:tokens_predicted_total"] == 16
    assert grown["llamacpp:prompt_tokens_total"] > 24
    assert observing.no_percentile(rows)["shown"] == "confirmed"
    assert observing.no_percentile([{"kind": "histogram"}])["shown"] == "refuted"


def test_a_busy_time_is_seen_in_every_panel_and_first_in_the_gauges(desk):
    phases = [("quiet", 6, {"rate": 1}), ("busy", 8, {"concurrency": 10}), ("quiet again", 6, {"rate": 1})]
    rows = desk.rows(lambda: ask.phase_rows(desk, phases))
    assert {row["query"] for row in rows if row["kind"] == "series"} == set(ask.SHOWN)
    quiet, busy, _ = watch_plots.kinds(rows, "phase")
    assert busy["ok"] == busy["requests"] > quiet["requests"]
    moved = [title for title, _ in watch_plots.first_to_move(rows)]
    assert {CATALOGUE[name].title for name in ("in_flight", "deferred")} & set(moved[:2])
    (counter,) = watch_plots.kinds(rows, "counter")
    assert counter["values"][-1] - counter["values"][0] >= 16 * 0.9 * sum(row["ok"] for row in watch_plots.kinds(rows, "phase"))
    assert len(watch_plots.draw_dashboard(rows, "caption").axes) == len(ask.SHOWN)
    assert len(watch_plots.draw_rates(rows, 5, "caption").axes) == 2


def test_a_killed_replica_is_told_of_and_comes_back(desk):
    rows = desk.rows(lambda: ask.alert_rows(desk, quiet_s=1))
    events = {row["what"]: row["at_s"] for row in rows if row["kind"] == "event"}
    assert list(events) == ["killed", "pending", "firing", "somebody is told", "started again", "inactive", "told that it is over"]
    assert list(events.values()) == sorted(events.values())
    assert events["somebody is told"] - events["killed"] > desk.limits.hold_s, "before it had held"
    assert {row["up"] for row in watch_plots.kinds(rows, "look")} >= {1.0, 2.0}
    low, high = ask.shortest_s(desk.limits)
    assert low < high
    assert len(watch_plots.draw_alert(rows, 3, (low, high), "caption").axes) == 2


def test_a_slow_request_is_found_with_its_tokens_and_without_its_words(desk):
    rows = desk.rows(lambda: ask.slow_rows(desk, 4, 2, "zanzibar"))
    (needle,) = watch_plots.kinds(rows, "needle")
    lines = [row["line"] for row in watch_plots.kinds(rows, "line")]
    assert sums.slow(lines, 0)[0] == needle["request_id"]
    told = watch_plots.line_of(rows, needle["request_id"])
    record = max(watch_plots.kinds(rows, "replica"), key=lambda row: row["output_tokens"] or 0)
    assert (record["output_tokens"], record["server"]) == (ask.SLOW_TOKENS, told["server"])
    assert {row["server"] for row in watch_plots.kinds(rows, "replica")} == {"r0", "r1"}, "the one that was started again is followed"
    assert watch_plots.kinds(rows, "secret") == [{"kind": "secret", "lines": 0}]
    for row in watch_plots.kinds(rows, "quantile"):
        assert row["logs_s"] == pytest.approx(row["clients_s"], rel=0.25, abs=0.15)
    assert watch_plots.draw_lines(rows, 500, "caption").axes and watch_plots.draw_quantiles(rows, 1, "caption").axes


def test_an_error_leaves_nothing_and_the_next_question_starts_it_again(desk):
    desk.rows(lambda: [])
    pids = [one.pid for one in desk.service.replicas]
    with pytest.raises(ZeroDivisionError):
        desk.rows(lambda: 1 / 0)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert desk.rows(lambda: [{"up": desk.value("replicas_up")}]) == [{"up": REPLICAS}]


def test_without_a_model_it_says_so():
    with pytest.raises(MissingPart, match="recording"):
        Desk(None).rows(lambda: [])
    assert len(PARTS) == 5


def test_a_restart_and_an_alert_by_hand():
    assert sums.rates([(0, 0), (1, 10), (2, 20), (3, 5)], window_s=1) == [(1, 10), (2, 10), (3, 5)]
    assert sums.states([(0, 1), (1, 3), (2, 3), (3, 2), (4, 3)], 2, 1) == ["inactive", "pending", "firing", "inactive", "pending"]
    assert sums.budget_used(980, 1000, 0.99) == pytest.approx(2.0)
    assert observing.mean_hides(1.0, 10.0, 40)["shown"] == "confirmed"
    assert observing.mean_hides(1.0, 2.0, 40)["shown"] == "refuted"
    assert observing.mean_hides(1.0, 10.0, 4)["shown"] == "not-run"
