"""1,000 requests that are wrong, from a seed, at the ONNX service: no 5xx, no leak, and the next good request is answered."""

import json
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from service_requests import KINDS, drawn, good, post

from labkit import models, servers

MODEL = "stdlib-10m"
SECONDS = {"HEADER": 2, "BODY": 2, "WRITE": 2}
COUNT = 1000


@pytest.fixture(scope="module")
def running():
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in SECONDS.items():
            patch.setenv(f"SERVICE_{name}_SECONDS", str(seconds))
        with servers.open("onnx").start(models.resolve(MODEL), context=256, queue_length=64, threads=1) as found:
            yield found


def connect(running):
    line = socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])), timeout=60)
    line.settimeout(60)
    return line


def answer(running, request, read=True):
    """The status and the body of what came back; None where the connection was closed without a word, or left."""
    with connect(running) as line:
        try:
            line.sendall(request)
            if not read:
                return None
            said = b""
            while piece := line.recv(65_536):
                said += piece
        except (ConnectionResetError, BrokenPipeError):
            return None  # closed while there was still something of ours on the way
    head, _, body = said.partition(b"\r\n\r\n")
    return (int(head.split()[1]), body) if head.startswith(b"HTTP/1.1 ") else None


def family(running):
    front = psutil.Process(running.pid)
    return [front, *front.children(recursive=True)]


def size(running):
    """Bytes of the service's own memory: its processes' proportional set size."""
    return sum(one.memory_full_info().pss for one in family(running))


def open_things(running):
    return sum(one.num_fds() for one in family(running)), sum(one.num_threads() for one in family(running))


def metric(running, name):
    lines = httpx.get(running.url + "/metrics", trust_env=False).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def calm(running):
    """Until no request is there and no connection is open any more."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        open_now = [c for c in psutil.Process(running.pid).net_connections() if c.status == psutil.CONN_ESTABLISHED]
        if not open_now and metric(running, "onnx_service_in_flight") + metric(running, "onnx_service_queue_length") == 0:
            return
        time.sleep(0.2)
    raise AssertionError("requests or connections stay behind")


def test_a_thousand_malformed_requests_give_no_5xx_and_leak_nothing(running):
    requests = drawn(seed=20261126, count=COUNT, model=MODEL)
    assert {name for name, _, _ in requests} == set(KINDS)
    sizes, seen, wrong = [], Counter(), []

    def send(one):
        name, request, statuses = one
        found = answer(running, request, read=bool(statuses))
        status = found and found[0]
        seen[name, status] += 1
        if statuses and status is not None and status not in statuses:
            wrong.append((name, status, request[:300], found[1][:200]))
        if status is not None and status >= 400 and b"HTTP/1.1" in request[:9000]:
            told = json.loads(found[1])["error"]
            assert set(told) == {"message", "type", "param", "code"} and told["message"], told

    with ThreadPoolExecutor(8) as pool:
        for half in (requests[: COUNT // 2], requests[COUNT // 2 :]):
            list(pool.map(send, half))
            calm(running)
            sizes.append((size(running), *open_things(running)))
    assert wrong == []
    assert not [key for key in seen if key[1] and key[1] >= 500]
    silent = sum(count for (name, status), count in seen.items() if status is None and KINDS[name].statuses)
    assert silent <= 5, f"{silent} connections were closed without a word: {seen}"
    assert {status for _, status in seen} >= {400, 404, 405, 413, 422, 200}, "the kinds are what they are meant to be"
    (before, fds, threads), (after, fds_after, threads_after) = sizes
    assert after - before < 8e6, f"the memory grew by {(after - before) / 1e6:.1f} MB in {COUNT // 2} requests"
    assert fds_after <= fds + 2
    assert threads_after <= threads
    reply = httpx.post(running.base_url + "/chat/completions", json=good(MODEL, max_tokens=3), timeout=60, trust_env=False)
    assert reply.status_code == 200
    assert reply.json()["usage"]["completion_tokens"] == 3


def closes_within(line, seconds):
    """What is read from it until it is closed."""
    started, said = time.monotonic(), b""
    line.settimeout(seconds + 20)
    try:
        while piece := line.recv(65_536):
            said += piece
    except ConnectionResetError:
        pass  # that is closed, too
    assert time.monotonic() - started < seconds
    return said


def drip(line, data, until):
    """A byte every tenth of a second."""
    for n in range(len(data)):
        try:
            line.sendall(data[n : n + 1])
        except (BrokenPipeError, ConnectionResetError):
            return
        time.sleep(0.1)
        if time.monotonic() > until:
            return


@pytest.mark.parametrize(
    "begun", [b"", b"POST /v1/chat/comp", b"POST /v1/models HTTP/1.1\r\nHost: x\r\nX-A: "], ids=["silent", "half a line", "half a head"]
)
def test_a_head_that_does_not_come_is_not_waited_for(running, begun):
    with connect(running) as line:
        line.sendall(begun)
        assert closes_within(line, SECONDS["HEADER"] + 8).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_drips_is_not_waited_for(running):
    with connect(running) as line:
        started = time.monotonic()
        drip(line, post(b"x" * 1000), started + SECONDS["HEADER"] + 5)
        assert closes_within(line, 8).startswith((b"HTTP/1.1 408 ", b""))
        assert time.monotonic() - started < SECONDS["HEADER"] + 10


def test_a_body_that_drips_is_answered_408(running):
    whole = post(json.dumps(good(MODEL)).encode())
    head, body = whole[: whole.index(b"\r\n\r\n") + 4], whole[whole.index(b"\r\n\r\n") + 4 :]
    with connect(running) as line:
        line.sendall(head + body[:10])
        assert closes_within(line, SECONDS["BODY"] + 8).startswith(b"HTTP/1.1 408 ")


def test_a_kept_connection_gets_the_same_limit_for_its_next_request(running):
    with connect(running) as line:
        line.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert line.recv(65_536).startswith(b"HTTP/1.1 200 ")  # the body may come after it
        line.sendall(b"GET /health/live HTT")
        assert b"HTTP/1.1 408 " in closes_within(line, SECONDS["HEADER"] + 8)


def test_answers_that_nobody_reads_are_cut_off(running):
    with connect(running) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(30)
        asked = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            end = time.monotonic() + 60
            while time.monotonic() < end:
                line.sendall(asked * 50)  # the answers pile up, and nothing of them is read


def test_slow_clients_keep_nobody_waiting(running):
    lines = [connect(running) for _ in range(100)]
    try:
        for line in lines:
            line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
        reply = httpx.post(running.base_url + "/chat/completions", json=good(MODEL), timeout=60, trust_env=False)
        assert reply.status_code == 200
    finally:
        for line in lines:
            line.close()
    calm(running)
