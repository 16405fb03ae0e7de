"""HAProxy for real: who gets a request, and what clients see when a server behind it dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from labkit import models
from labkit.core.errors import BadInput
from labkit.measure import load
from labkit.measure.load import Plan
from labkit.servers import echo, haproxy, replicas

LABKIT = Path(sys.executable).with_name("labkit")


@pytest.fixture(autouse=True)
def installed(needs):
    needs("haproxy")


@contextlib.contextmanager
def pair(**options):
    with (
        echo.start(ttft_s=0.02, tpot_s=0.02) as one,
        echo.start(ttft_s=0.02, tpot_s=0.02) as other,
        haproxy.start(backends=[one.url, other.url], **options) as front,
    ):
        yield front, [one, other]


def rows(front, wanted=1):
    """What it wrote of each request; it writes when a request has ended, a moment later."""
    end = time.monotonic() + 10
    while True:
        found = [json.loads(line) for line in front.log.read_text().splitlines() if line.startswith("{")]
        if len(found) >= wanted or time.monotonic() > end:
            return found
        time.sleep(0.1)


def test_requests_are_spread_and_each_is_written_down_without_its_text():
    with pair(policy="roundrobin") as (front, _):
        plan = Plan(rate=40, requests=20, output_tokens=2, prompts=("a secret of mine",), warmup=0)
        found = load.run(front.base_url, "echo", plan)
        wrote = rows(front, 20)
    assert [outcome.status for outcome in found] == ["ok"] * 20
    assert Counter(row["server"] for row in wrote) == {"r0": 10, "r1": 10}
    assert {row["status"] for row in wrote} == {200}
    assert len({row["request_id"] for row in wrote}) == 20
    assert all(row["total_ms"] >= row["first_byte_ms"] >= 0 for row in wrote)
    assert "secret" not in front.log.read_text()


def test_it_counts_for_prometheus_and_says_that_it_is_well():
    with pair() as (front, both):
        assert httpx.get(f"{front.url}/haproxy/health").status_code == 200
        assert "haproxy_backend_http_responses_total" in httpx.get(f"{front.url}/haproxy/metrics").text
        for one in both:
            one.stop()
        end = time.monotonic() + 20
        while (status := httpx.get(f"{front.url}/haproxy/health").status_code) == 200:
            assert time.monotonic() < end
            time.sleep(0.1)
    assert status == 503


def killed_under_load(tries=1, cut=None, **options):
    """Statuses of 120 requests, in the middle of which one of two servers is killed."""
    with pair(**options) as (front, both):
        plan = Plan(rate=40, arrivals="constant", requests=120, output_tokens=10, warmup=0, timeout_s=20)
        seen = iter(range(1000))
        found = load.run(
            front.base_url, "echo", plan, on_outcome=lambda _: both[0].process.kill() if next(seen) == 30 else None, tries=tries, cut=cut
        )
    return Counter(outcome.status for outcome in found), found


def test_a_server_killed_under_load_refuses_nobody_and_the_naive_one_does():
    good, found = killed_under_load()
    # an answer that had begun is cut, and nothing can mend that but the client
    assert set(good) <= {"ok", "cut"}, [outcome.error for outcome in found if outcome.status not in ("ok", "cut")]
    assert 1 <= good["cut"] <= 20
    naive, found = killed_under_load(naive=True, policy="roundrobin")
    assert naive["refused"] > 20, "about every second request after the kill"
    assert {outcome.http_status for outcome in found if outcome.status == "refused"} == {503}


def test_a_client_that_asks_again_after_a_cut_gets_every_answer():
    cut = []
    good, found = killed_under_load(tries=3, cut=cut)
    assert good == {"ok": 120}, [outcome.error for outcome in found if outcome.status != "ok"]
    assert 1 <= len(cut) <= 20 and {outcome.status for outcome in cut} == {"cut"}
    again = {outcome.number: outcome for outcome in found}
    for one in cut:
        assert again[one.number].scheduled_ns == one.scheduled_ns, "the user waits since the first try"
        assert again[one.number].sent_ns >= one.ended_ns


def test_a_limit_for_each_server_lets_the_others_wait():
    with pair(max_each=1) as (front, _):
        found = load.run(front.base_url, "echo", Plan(times_s=(0.0,) * 6, output_tokens=5, warmup=0))
        wrote = rows(front, 6)
    assert [outcome.status for outcome in found] == ["ok"] * 6
    assert sum(row["wait_ms"] > 50 for row in wrote) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backends": []}, "backends"),
        ({"backends": ["http://10.0.0.1:80"]}, "no address on this machine"),
        ({"backends": ["http://127.0.0.1:80 check\nbind *:1"]}, "no address on this machine"),
        ({"backends": ["http://127.0.0.1:80"], "polcy": "first"}, "did you mean policy"),
        ({"backends": ["http://127.0.0.1:80"], "policy": "best"}, "policy"),
        ({"backends": ["http://127.0.0.1:80"], "health": "/a\n b"}, "health"),
    ],
)
def test_options_are_checked(options, said):
    with pytest.raises(BadInput, match=said), haproxy.start(**options):
        pass


def test_it_listens_on_loopback_alone_and_goes_with_its_folder():
    with pair() as (front, _):
        process = psutil.Process(front.pid)
        assert {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        assert front.folder.is_dir()
    assert not front.folder.exists()
    assert not psutil.pid_exists(front.pid)


_KILLED = """
import os, signal
from labkit.servers import echo, haproxy
with echo.start() as one, haproxy.start(backends=[one.url]) as front:
    print(front.pid, front.folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_does_not_outlive_a_killed_parent():
    done = subprocess.run([sys.executable, "-c", _KILLED], capture_output=True, text=True, check=False)
    pid, folder = done.stdout.split()
    end = time.monotonic() + 30
    while (psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE) or Path(folder).exists():
        assert time.monotonic() < end, "still there"
        time.sleep(0.2)


def test_replicas_of_a_real_model():
    ref = models.resolve("smollm2-135m")
    with replicas.start("llama_server", ref, 2, balancer={"policy": "roundrobin"}, context=256, parallel=1, threads=1) as several:
        found = load.run(several.base_url, ref.name, Plan(concurrency=2, requests=4, output_tokens=4, warmup=0))
        wrote = rows(several.balancer, 4)
        pids = [one.pid for one in several.replicas]
    assert [outcome.status for outcome in found] == ["ok"] * 4
    assert {row["server"] for row in wrote} == {"r0", "r1"}
    assert not any(map(psutil.pid_exists, pids))


def test_serve_says_its_replicas_and_goes_on_with_those_that_live():
    words = [LABKIT, "serve", "smollm2-135m", "--replicas", "2", "--threads", "1", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        row = json.loads(process.stdout.readline())
        assert len({one["url"] for one in row["replicas"]}) == 2
        assert row["base_url"].endswith("/v1")
        os.kill(row["replicas"][0]["pid"], signal.SIGKILL)
        end = time.monotonic() + 30
        asked = {"model": "smollm2-135m", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}
        while httpx.post(f"{row['base_url']}/chat/completions", json=asked, timeout=30).status_code != 200:
            assert time.monotonic() < end
        said = [process.stderr.readline(), process.stderr.readline()]  # HAProxy may answer before labkit has looked at its replicas
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert "Ctrl-C stops it." in said[0]
    assert "1 of 2 go on" in said[1]
    assert not any(psutil.pid_exists(one["pid"]) for one in row["replicas"])
