"""The load generator against a server whose times and faults are known."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from labkit.core.errors import BadInput
from labkit.measure import load
from labkit.measure.load import Plan, Slo
from labkit.servers import base, echo

pytestmark = pytest.mark.alone
STATUS_OF = {
    "": "ok", "nousage": "ok", "mute": "ok",
    "429": "refused", "503": "refused",
    "400": "error", "500": "error", "drop": "error", "event": "error", "junk": "error", "page": "error",
    "cut": "cut", "short": "cut",
    "hang": "timeout", "stall": "timeout",
}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with echo.start(ttft_s=0.02, tpot_s=0.005) as running:
        yield running


def plan(**changes):
    return Plan(**{"rate": 50, "requests": 2, "output_tokens": 6, "timeout_s": 20, "warmup": 0} | changes)


@pytest.mark.parametrize("fault", STATUS_OF, ids=lambda fault: fault or "none")
def test_a_request_ends_as_exactly_one_status(server, fault):
    found = load.run(server.base_url, f"echo:{fault}", plan(timeout_s=1.5 if STATUS_OF[fault] == "timeout" else 20))
    assert [outcome.status for outcome in found] == [STATUS_OF[fault]] * 2
    assert all((outcome.error is None) == (outcome.status == "ok") for outcome in found)
    begun = {"": 6, "nousage": 6, "event": 2, "junk": 2, "cut": 2, "short": 2, "stall": 2}.get(fault, 0)
    assert [len(outcome.chunk_ns) for outcome in found] == [begun] * 2


def test_every_fault_of_the_server_is_in_the_table():
    assert set(STATUS_OF) - {""} == set(echo.FAULTS)


def test_what_a_refusal_says_is_kept(server):
    found = load.run(server.base_url, "echo:429", plan())
    assert {(o.http_status, o.retry_after_s, o.error) for o in found} == {(429, 2.0, "status 429: planted 429")}


def test_nobody_listening_is_a_refusal():
    found = load.run(f"http://{base.HOST}:{base.free_port()}/v1", "echo", plan())
    assert [o.status for o in found] == ["refused"] * 2
    assert all(o.http_status is None and o.sent_ns for o in found)


def test_a_server_killed_in_the_middle_cuts_streams_and_refuses_the_rest():
    with echo.start(tpot_s=0.1) as running:
        p = plan(rate=10, requests=40, arrivals="constant", output_tokens=20)
        found = load.run(running.base_url, "echo", p, on_outcome=lambda _: running.process.kill())  # at the first answer
    statuses = {o.status for o in found}
    assert {"ok", "cut", "refused"} <= statuses <= {"ok", "cut", "refused", "error"}
    # an error is one that was waiting for the first byte when the server died
    assert all(o.http_status is None and o.sent_ns for o in found if o.status == "error")
    assert len(found) == 40


def test_tokens_are_the_servers_and_unknown_without_a_usage(server):
    counted, silent = (load.run(server.base_url, name, plan(prompt_tokens=11)) for name in ("echo", "echo:nousage"))
    assert {(o.prompt_tokens, o.output_tokens, o.finish_reason) for o in counted} == {(11, 6, "length")}
    assert {(o.prompt_tokens, o.output_tokens, o.tpot_s) for o in silent} == {(None, None, None)}
    assert load.summarize(silent, plan()).tokens_per_s is None


@pytest.mark.parametrize("chat", [True, False])
def test_the_servers_times_are_found(chat):
    with echo.start(ttft_s=0.2, tpot_s=0.05) as running:
        p = plan(rate=10, requests=10, chat=chat, warmup=1)
        found = load.summarize(load.run(running.base_url, "echo", p), p)
    # the server sleeps at least so long; what a busy machine adds is on top
    assert 0.2 <= found.ttft_s.p50 < 0.3
    assert found.tpot_s.p50 == pytest.approx(0.05, rel=0.25)
    assert found.itl_s.n == 50
    assert found.e2e_s.p50 >= 0.45


def test_the_schedule_does_not_wait_for_answers():
    """200 requests a second at a server that answers one at a time: the queue grows, the schedule stays."""
    with echo.start(ttft_s=0.02, slots=1) as running:
        p = plan(rate=200, requests=200, arrivals="constant", output_tokens=1, prompt_tokens=4)
        found = load.run(running.base_url, "echo", p)
    sent = (found[-1].sent_ns - found[0].sent_ns) / 1e9
    assert sent == pytest.approx(199 / 200, rel=0.1)
    assert [o.status for o in found] == ["ok"] * 200
    # the last one waits for the 199 before it, less the second that their arrival took
    assert found[-1].ttft_s > 199 * 0.02 - 1.0


def test_coordinated_omission_is_there_in_a_closed_loop_and_not_in_an_open_one():
    """The server stands still for a second once. Those who would have come in that second suffer; a closed loop does not ask for them."""
    p99 = {}
    for name, how in {"open": {"rate": 40, "arrivals": "constant"}, "closed": {"concurrency": 1}}.items():
        with echo.start(ttft_s=0.02, pause_after_s=1, pause_s=1.0) as running:
            p = plan(**({"rate": None} | how), requests=None, seconds=4, output_tokens=1)
            found = load.summarize(load.run(running.base_url, "echo", p), p)
        assert found.latency_from == ("sent" if name == "closed" else "scheduled")
        p99[name] = found.e2e_s.p95
    assert p99["open"] > 0.5
    assert p99["closed"] < 0.25


def test_open_loop_latency_counts_from_the_schedule():
    late = load.Outcome(number=0, status="ok", scheduled_ns=0, sent_ns=10**9, chunk_ns=(2 * 10**9,), ended_ns=3 * 10**9, output_tokens=1)
    assert (late.lateness_s, late.ttft_s, late.e2e_s) == (1.0, 2.0, 3.0)


def test_closed_loop_keeps_so_many_in_flight_and_no_more(server):
    p = plan(rate=None, concurrency=3, requests=None, seconds=1.0)
    found = load.run(server.base_url, "echo", p)
    marks = sorted([(o.sent_ns, 1) for o in found] + [(o.ended_ns, -1) for o in found])
    assert max(np.cumsum([step for _, step in marks])) == 3
    assert all(o.scheduled_ns == o.sent_ns for o in found)
    assert len(found) > 6
    assert len(load.run(server.base_url, "echo", plan(rate=None, concurrency=3, requests=7))) == 7


def test_a_request_over_the_bound_in_flight_is_an_outcome_and_not_a_delay():
    with echo.start() as running:
        p = plan(rate=100, requests=20, max_in_flight=5, timeout_s=1.5)
        found = load.run(running.base_url, "echo:hang", p)
    summary = load.summarize(found, p)
    assert (summary.timeout, summary.error, summary.not_sent) == (5, 15, 15)
    assert all("max_in_flight" in o.error for o in found if o.sent_ns is None)
    assert max(o.ended_ns for o in found) - min(o.scheduled_ns for o in found) < 10e9


def test_a_trace_is_followed(server):
    times = (0.0, 0.05, 0.4, 0.4)
    found = load.run(server.base_url, "echo", Plan(times_s=times, output_tokens=2, warmup=0))
    assert [(o.scheduled_ns - found[0].scheduled_ns) / 1e9 for o in found] == pytest.approx(times, abs=1e-6)


def test_connections_are_used_again(server):
    process = psutil.Process(server.pid)
    before = len(process.net_connections())
    seen = []
    load.run(server.base_url, "echo", plan(rate=20, requests=20), on_outcome=lambda _: seen.append(len(process.net_connections())))
    # one answer takes 50 ms and one comes each 50 ms: a connection a request would be 20
    assert max(seen) - before < 10


def test_warm_up_is_in_no_figure(server):
    found = load.run(server.base_url, "echo", plan(warmup=3))
    assert [o.number for o in found] == [0, 1]


@pytest.mark.parametrize(
    "url", ["http://example.org/v1", "https://10.0.0.1:8000/v1", "http://127.0.0.1.example.org/v1", "http://0.0.0.0:8/v1"]
)
def test_only_this_machine_is_loaded(url):
    with pytest.raises(BadInput, match="is not this machine"):
        load.run(url, "echo", plan())


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1/v1", "http://", "http://127.0.0.1:99999999/v1"])
def test_no_address(url):
    with pytest.raises(BadInput, match="no address"):
        load.target(url)


def test_it_runs_inside_a_running_event_loop(server):
    async def cell():
        return load.run(server.base_url, "echo", plan())

    assert [o.status for o in asyncio.run(cell())] == ["ok"] * 2


def test_records_come_back_as_they_were_written(server, tmp_path):
    p = plan(slo=Slo(ttft_s=1))
    found = load.run(server.base_url, "echo", p)
    load.write(tmp_path / "runs.jsonl", "echo", p, found)
    load.write(tmp_path / "runs.jsonl", "echo", p, found[:1], interrupted=True)
    first, second = load.read(tmp_path / "runs.jsonl")
    assert (list(first.outcomes), first.plan, first.interrupted) == (found, p, False)
    assert (len(second.outcomes), second.interrupted) == (1, True)
    assert first.machine["cores"] >= 1
    row = json.loads((tmp_path / "runs.jsonl").read_text().splitlines()[0])
    assert row["schema"] == 1
    assert load.table(found)[1]["due_s"] > 0


CTRL_C = """
import sys
from labkit.measure import load
kept = []
def told(outcome):
    if len(kept) == 5:
        print("five", flush=True)
plan = load.Plan(rate=20, seconds=120, output_tokens=4, warmup=0)
try:
    load.run(sys.argv[1], "echo", plan, finished=kept, on_outcome=told)
except KeyboardInterrupt:
    print(len(kept), {o.status for o in kept}, flush=True)
"""


def test_ctrl_c_keeps_what_was_finished(server):
    running = subprocess.Popen([sys.executable, "-c", CTRL_C, server.base_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "five\n"
    os.kill(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert err == ""
    count, statuses = out.split(" ", 1)
    assert int(count) >= 5
    assert statuses.strip() == "{'ok'}"
