"""Lab 17: its table of probes, what it draws, and both services for real; the image is tested in tests/stacks and in the lab itself."""

import psutil
import pytest

from labkit import models
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.learn import service_looks, service_plots, service_probes
from labkit.learn import service_rows as ask
from labkit.learn import service_view as view
from labkit.servers import naive_onnx

MODEL = "smollm2-135m"
QUICK = ("several-tokens", "max-tokens", "stop", "usage", "streaming", "unknown-model", "not-json", "wrong-types", "huge-body", "metrics")


@pytest.fixture(scope="module")
def desk():
    with view.Desk(models.resolve(MODEL), threads=1, context=512) as opened:
        yield opened


def probes(*ids):
    return [service_probes.get(id) for id in ids]


# -- the table


def test_the_table_asks_what_the_lab_promises():
    ids = [probe.id for probe in service_probes.PROBES]
    assert len(set(ids)) == len(ids) >= 17
    assert len({probe.question for probe in service_probes.PROBES}) == len(ids), "the plot has a line a question"
    for probe in service_probes.PROBES:
        assert probe.asks and probe.holds and len(probe.why) > 20
    with pytest.raises(BadInput, match="did you mean stop"):
        service_probes.get("stopp")


def test_a_broken_connection_is_what_the_probe_saw(desk):
    gone = desk.open("naive")
    gone.running.stop()
    rows = service_probes.run(gone, probes("max-tokens"))
    assert not rows[0]["holds"]
    assert "ConnectError" in rows[0]["saw"]


# -- both services


def test_the_naive_service_runs_and_fails(desk):
    rows = {row["probe"]: row for row in service_probes.run(desk.site("naive"), probes(*QUICK))}
    assert not [id for id, row in rows.items() if row["holds"]]
    assert "status 200" in rows["not-json"]["saw"]


def test_the_correct_service_does_what_must_hold(desk):
    rows = service_probes.run(desk.site("correct"), probes(*QUICK, "too-long", "no-model", "while-loading", "model-gone", "four-at-once"))
    assert {row["probe"]: row["saw"] for row in rows if not row["holds"]} == {}


def test_the_correct_service_under_load_and_at_its_end(desk):
    rows = service_probes.run(desk.site("correct"), probes("queue", "client-leaves", "alive", "stop-gracefully"))
    assert {row["probe"]: row["saw"] for row in rows if not row["holds"]} == {}


def test_what_the_naive_service_owes_to_its_web_server(desk):
    rows = service_probes.run(desk.site("naive"), probes("no-model", "while-loading"))
    assert [row["holds"] for row in rows] == [False, True]


def test_the_naive_service_is_silent_while_it_computes(desk):
    naive, correct = (ask.health_rows(desk, [kind], max_tokens=8) for kind in view.KINDS)
    share = [max(row["latency_s"] for row in rows) / rows[0]["answer_s"] for rows in (naive, correct)]
    assert share[0] > 0.5 > share[1]
    assert len(service_plots.draw_health([*naive, *correct], "caption").axes[0].lines) == 2


def test_long_prompts_come_near_their_length(desk):
    site = desk.site("correct")
    for tokens in (100, 300, site.context + 200):
        assert tokens - 15 < site.prompt_tokens(service_looks.long_prompt(site, tokens)) <= tokens


def test_a_killed_service_is_one_sentence_and_the_cell_works_again(desk):
    def kill_in_the_middle():
        process = desk.site("naive").running.process
        process.kill()
        process.wait()
        raise service_probes.httpx.ReadError("gone")

    with pytest.raises(RunFailed, match="run the cell again"):
        desk.rows(kill_in_the_middle)
    assert ask.first_rows(desk, "Hi")[0]["status"] == 200


def test_an_error_leaves_no_service(desk):
    def interrupted():
        desk.site("naive")
        desk.site("correct")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        desk.rows(interrupted)
    assert not [p for p in psutil.Process().children(recursive=True) if {"service", str(naive_onnx.source())} & set(p.cmdline())]


def test_without_a_model_the_desk_says_what_is_missing():
    with pytest.raises(MissingPart, match="plays its recording"):
        view.Desk(None).site("naive")
    with pytest.raises(BadInput, match="did you mean naive"):
        view.Desk(models.resolve(MODEL)).launch("naiv")


# -- the other questions


def test_the_cost_of_a_token_grows_only_without_the_cache(desk):
    rows = ask.loop_rows(desk.model, 1, [32, 256], repeats=2, tokens=4)
    anew, cached = ({n: min(r[key] for r in rows if r["tokens_before"] == n) for n in (32, 256)} for key in ("anew_s", "cached_s"))
    assert anew[256] > 3 * anew[32]
    assert cached[256] < anew[256] / 3
    whole = service_plots.whole_answer_s(rows, 32, 100)
    assert whole[0] > 2 * whole[1]
    assert len(service_plots.draw_loop(rows, 0.1, "caption").axes[0].lines) == 5


def test_tokens_alone_show_half_characters_and_a_stream_does_not(desk):
    written = "Größe 日本 🙂"
    rows = ask.piece_rows(desk.text, written)
    assert any("�" in row["alone"] for row in rows)
    assert "".join(row["in_a_stream"] for row in rows) == written


def test_a_bound_refuses_and_the_others_wait_less(desk):
    rows = ask.bound_rows(desk, [1, 500], over=3, requests=16, tokens=8, prompt_tokens=24)
    outcomes = {bound: {row["outcome"] for row in rows if row["queue"] == bound} for bound in (1, 500)}
    assert outcomes == {1: {"ok", "refused"}, 500: {"ok"}}
    assert ask.worst_wait_s(rows, 1) < ask.worst_wait_s(rows, 500)
    assert all(row["retry_after_s"] >= 1 for row in rows if row["outcome"] == "refused")
    assert len(service_plots.draw_bound(rows, "caption").axes) == 2


# -- computed


@pytest.mark.parametrize(("rate", "service", "slots", "bound"), [(1.0, 0.5, 1, 4), (2.0, 1.0, 2, 4), (3.0, 1.0, 2, 4), (4.0, 2.0, 1, 0)])
def test_waits_of_a_queue(rate, service, slots, bound):
    told = service_plots.waits(rate, service, slots, bound)
    served = [wait for _, wait in told if wait is not None]
    assert len(told) == int(60 * rate)
    assert max(served) <= (bound + slots) * service / slots + 1e-9
    overload = rate * service / slots > 1
    assert (len(served) < len(told)) == overload
    free = [wait for _, wait in service_plots.waits(rate, service, slots, 10**6)]
    assert (free[-1] > 5 * service) == overload
    assert len(service_plots.draw_waits(rate, service, slots, bound, "caption").axes[0].lines) == 2


def test_the_matrix_shows_every_row_and_counts():
    rows = [
        {"service": service, "probe": str(n), "question": f"question {n}", "holds": n < holds, "saw": "words " * 20}
        for service, holds in (("naive", 2), ("correct", 5))
        for n in range(5)
    ]
    axes = service_plots.draw_matrix(rows, 3, "caption").axes[0]
    assert len(axes.lines) == 10
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["naive: 2 of 5 hold", "correct: 5 of 5 hold"]
    assert {line.get_marker() for line in axes.lines} == {"o", "X"}


def test_memory_is_drawn_with_its_limit():
    rows = [{"moment": f"moment {n}", "predicted_bytes": 2e8, "measured_bytes": 2.1e8, "limit_bytes": 6.4e8} for n in range(3)]
    axes = service_plots.draw_memory(rows, 200, "caption").axes[0]
    assert len(axes.patches) == 6
    assert len(axes.lines) == 2


def test_the_shown_lines_are_those_of_the_file():
    shown = ask.lines_of(view.source("naive.py"), '@app.get("/health")', 'return {"error"')
    assert shown.count("MISTAKE") >= 6
    assert shown in view.source("naive.py").read_text(encoding="utf-8")


def test_the_naive_service_is_offered_nowhere():
    from labkit import servers

    assert "naive" not in servers.names()
