"""Logs of a balancer and its replicas, shipped to a real Loki and found again."""

# ruff: noqa: E501 - the lines of llama-server are as long as it writes them

import json
import time
import uuid

import httpx
import psutil
import pytest

from labkit import models
from labkit.core.errors import BadInput, RunFailed
from labkit.measure import load
from labkit.measure.load import Plan
from labkit.scale import logs
from labkit.servers import loki, replicas

LLAMA = """\
0.01.360.202 I slot get_availabl: id  1 | task -1 | selected slot by LRU, t_last = -1
0.01.360.316 I slot launch_slot_: id  1 | task 0 | processing task, is_child = 0
0.01.572.081 I slot print_timing: id  1 | task 0 | prompt eval time =     155.46 ms /    34 tokens (    4.57 ms per token,   218.71 tokens per second)
0.01.572.090 I slot print_timing: id  0 | task 3 | prompt eval time =      15.00 ms /     4 tokens (    4.57 ms per token,   218.71 tokens per second)
0.01.572.095 I slot print_timing: id  1 | task 0 |        eval time =      56.26 ms /     8 tokens (    8.04 ms per token,   124.42 tokens per second)
0.01.572.096 I slot print_timing: id  1 | task 0 |       total time =     211.72 ms /    42 tokens
0.01.572.137 I slot      release: id  1 | task 0 | stop processing: n_tokens = 41, truncated = 0
0.01.672.137 I slot      release: id  0 | task 5 | stop processing: n_tokens = 12, truncated = 0
"""


@pytest.fixture(scope="module")
def keeping():
    with loki.start() as running:
        yield running


def until(ask, seconds=30):
    end = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def test_the_lines_of_a_request_become_one_record():
    read = logs.LlamaLines()
    found = [record for line in LLAMA.splitlines() if (record := read(line))]
    assert [json.loads(record.line) for record in found] == [
        {"task": 0, "slot": 1, "prompt_tokens": 34, "prompt_ms": 155.46, "output_tokens": 8, "output_ms": 56.26, "held_tokens": 41},
        {"task": 5, "slot": 0, "held_tokens": 12},
    ]


def test_it_listens_on_loopback_alone(keeping):
    connections = psutil.Process(keeping.pid).net_connections("inet")
    assert {c.laddr.ip for c in connections if c.status in (psutil.CONN_LISTEN, "NONE")} == {"127.0.0.1"}


def test_a_line_is_found_by_what_stands_in_it_and_counted(keeping):
    now, wanted = time.time_ns(), uuid.uuid4().hex
    lines = [(now + n, json.dumps({"request_id": wanted if n == 6 else uuid.uuid4().hex, "total_ms": n})) for n in range(10)]
    loki.push(keeping.url, {"job": "one"}, lines)
    (row,) = loki.search(keeping.url, f'{{job="one"}} | json | request_id="{wanted}"')
    assert (row["line"], row["time_ns"], row["job"]) == (lines[6][1], now + 6, "one")
    assert [json.loads(r["line"])["total_ms"] for r in loki.search(keeping.url, '{job="one"} | json | total_ms > 6')] == [7, 8, 9]
    assert [r["value"] for r in loki.count(keeping.url, 'sum(count_over_time({job="one"}[1m]))')] == [10]


def test_what_is_no_query_gets_a_sentence(keeping):
    with pytest.raises(BadInput, match="does not take this"):
        loki.search(keeping.url, "{job=")
    with pytest.raises(BadInput, match="counts lines"):
        loki.search(keeping.url, 'sum(count_over_time({job="one"}[1m]))')
    with pytest.raises(BadInput, match="not supported as an instant query"):
        loki.count(keeping.url, '{job="one"}')
    with pytest.raises(RunFailed, match="does not answer"):
        loki.search("http://127.0.0.1:9", '{job="one"}')


def test_a_line_that_is_half_written_waits_for_its_end(keeping, tmp_path):
    file = tmp_path / "log"
    file.write_bytes(b"first\nsec")
    shipper = logs.Shipper(keeping.url, [logs.Source(file, {"job": "half"}, lambda text: logs.Record(None, text))])
    shipper.look()
    with file.open("ab") as more:
        more.write("ond ä".encode()[:-1])
    shipper.look()
    assert shipper.shipped == 1
    with file.open("ab") as more:
        more.write("ä".encode()[1:] + b"\n")
    shipper.look()
    assert [row["line"] for row in loki.search(keeping.url, '{job="half"}')] == ["first", "second ä"]


def test_what_goes_wrong_in_the_background_is_raised(tmp_path):
    file = tmp_path / "log"
    file.write_bytes(b"x\n")
    with pytest.raises(RunFailed), logs.ship("http://127.0.0.1:9", [logs.Source(file, {}, lambda text: logs.Record(None, text))], 0.05):
        time.sleep(1)


def test_every_request_is_found_at_the_balancer_and_at_its_replica_and_no_text_of_it(keeping, needs):
    needs("haproxy")
    word = f"word{uuid.uuid4().hex}"
    with (
        replicas.start("llama_server", models.resolve("smollm2-135m"), 2, context=256, parallel=1, threads=1) as several,
        logs.ship(keeping.url, [logs.haproxy(several.balancer), *logs.llama(several.replicas)], 0.1) as shipper,
    ):
        found = load.run(several.base_url, "smollm2-135m", Plan(concurrency=2, requests=6, output_tokens=4, warmup=0))
        asked = {"model": "smollm2-135m", "max_tokens": 5, "messages": [{"role": "user", "content": word}]}
        answer = httpx.post(f"{several.base_url}/chat/completions", json=asked, timeout=60)
        identity = answer.headers.get("x-request-id", "")
        until(lambda: shipper.shipped == 14)  # a server may write its line after the client has its answer
    assert [outcome.status for outcome in found] == ["ok"] * 6
    front = [json.loads(row["line"]) for row in loki.search(keeping.url, '{job="haproxy"}')]
    behind = loki.search(keeping.url, '{job="llama_server"}')
    assert len(front) == len(behind) == 7
    per_server = {name: sum(row["server"] == name for row in front) for name in ("r0", "r1")}
    assert per_server == {name: sum(row["server"] == name for row in behind) for name in ("r0", "r1")}
    assert sorted(json.loads(row["line"])["output_tokens"] for row in behind) == [4] * 6 + [5]
    (row,) = loki.search(keeping.url, f'{{job="haproxy"}} | json | request_id="{identity}"')
    assert json.loads(row["line"])["status"] == 200
    assert loki.search(keeping.url, f'{{job=~".+"}} |= "{word}"') == []
