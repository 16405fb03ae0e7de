"""Forms of an HTTP answer that servers send and the echo server does not: what the load generator's client makes of each."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labkit.measure import load
from labkit.measure.load import Outcome, Plan

_WORD = b'data: {"choices": [{"delta": {"content": " one"}, "finish_reason": null}]}\n\n'
_LAST = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
_STREAM = _WORD + _WORD + _LAST
_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = b"%x;note=1\r\n%b\r\n%x\r\n%b\r\n0\r\nTrailer: yes\r\n\r\n" % (len(_WORD), _WORD, len(_WORD + _LAST), _WORD + _LAST)


@contextmanager
def server(answer: bytes, piece: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[int]]]:
    """Gives the same bytes to every request, `piece` bytes at a time (0: at once), then closes. With how many connected."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connected: list[int] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return  # the test is over
                connected.append(1)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(ssl.SSLError), tls.wrap_socket(connection, server_side=True) if tls else connection as wire:
                    wire.recv(1 << 16)
                    for start in range(0, len(answer), piece or len(answer)):
                        wire.sendall(answer[start : start + (piece or len(answer))])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{listening.getsockname()[1]}/v1", connected
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def asked(answer: bytes, piece: int = 0) -> Outcome:
    with server(answer, piece) as (url, _):
        return load.run(url, "m", Plan(concurrency=1, requests=1, warmup=0, timeout_s=10))[0]


@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize(
    "answer",
    [
        _OK + b"Content-Length: %d\r\n\r\n" % len(_STREAM) + _STREAM,
        _OK + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKED,
        _OK + b"Connection: close\r\n\r\n" + _STREAM,
        b"HTTP/1.0 200 OK\r\n\r\n" + _STREAM,
        b"HTTP/1.1 100 Continue\r\n\r\n" + _OK + b"content-length: %d\r\n\r\n" % len(_STREAM) + _STREAM,
    ],
    ids=["length", "chunked", "until it closes", "HTTP 1.0", "100 before it"],
)
def test_a_whole_answer_in_each_form(answer: bytes, piece: int) -> None:
    found = asked(answer, piece)
    assert (found.status, found.error, len(found.chunk_ns), found.http_status) == ("ok", None, 2, 200)


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (_OK + b"Content-Length: 9999\r\n\r\n" + _STREAM[:-16], "cut", "the connection was closed"),
        (_OK + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKED[:90], "cut", "the connection was closed"),
        (_OK + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKED.replace(b";note=1", b"z"), "cut", "chunk size"),
        (_OK + b"Content-Length: 9999\r\n\r\n" + _STREAM, "ok", "None"),
        (_OK + b"Connection: close\r\n\r\n" + _WORD, "cut", "without a finish_reason"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "error", "broke off"),
        (b"HTTP/1.1 429 Too Many\r\nretry-after: 7\r\nContent-Length: 4\r\n\r\nbusy", "refused", "status 429: busy"),
        (b"HTTP/1.1 204 None\r\n\r\n", "error", "status 204"),
    ],
    ids=["too short", "half a chunk", "a bad chunk", "broken after [DONE]", "half a stream", "no HTTP", "a refusal", "nothing"],
)
def test_a_broken_answer_is_told_apart(answer: bytes, status: str, said: str) -> None:
    found = asked(answer)
    assert found.status == status
    assert said in str(found.error)
    assert (found.retry_after_s == 7) is (status == "refused")


def test_what_closes_is_not_used_again() -> None:
    with server(_OK + b"Content-Length: %d\r\n\r\n" % len(_STREAM) + _STREAM) as (url, connected):
        found = load.run(url, "m", Plan(concurrency=1, requests=5, warmup=0, timeout_s=10))
    assert [outcome.status for outcome in found] == ["ok"] * 5
    assert len(connected) == 5


def test_https_is_trusted_by_its_certificate_alone(tmp_path: Path, needs: Callable[[str], str]) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=load"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]
    subprocess.run([needs("openssl"), *words, *names], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    plan = Plan(concurrency=1, requests=2, warmup=0, timeout_s=10)
    with server(_OK + b"Content-Length: %d\r\n\r\n" % len(_STREAM) + _STREAM, tls=tls) as (url, _):
        trusted, not_trusted = load.run(url, "m", plan, ca=cert), load.run(url, "m", plan)
    assert [(outcome.status, len(outcome.chunk_ns)) for outcome in trusted] == [("ok", 2)] * 2
    assert {outcome.status for outcome in not_trusted} == {"error"}
    assert all("certificate" in str(outcome.error) for outcome in not_trusted)
