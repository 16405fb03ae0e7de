"""What the stand-ins of online services share: a small HTTP server on loopback that can break a download on purpose.

A stand-in answers in the shape of a real service, so that the service's own client can be used, seen and tested on a machine
without a network. Nothing of it is the real service; whoever shows its answers says so.

>>> with StandIn({"/hello.txt": b"hello"}) as service:
...     service.url
'http://127.0.0.1:…'
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

Content = bytes | Path


@dataclass
class Reply:
    """A whole answer. `content` may be a file, which is then sent in blocks and by range."""

    status: int = 200
    content: Content = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, value: Any, status: int = 200, **headers: str) -> Reply:
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


@dataclass
class Asked:
    """A request: method, path without its query, query, headers (lower case) and body."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


class StandIn:
    """A server in a thread of this process, on 127.0.0.1 and a free port.

    cuts: path ending -> byte positions; at each the connection is closed once, in turn, in the middle of the body.
    damaged: path endings whose content is sent with one byte flipped.
    asked: every request so far, as "METHOD path range".
    """

    def __init__(self, files: dict[str, Content] | None = None) -> None:
        self.files: dict[str, Content] = dict(files or {})
        self.cuts: dict[str, list[int]] = {}
        self.damaged: set[str] = set()
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stand_in": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def start(self) -> StandIn:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> Any:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answer(self, asked: Asked) -> Reply:
        """Here: the files by path. A stand-in of a service overrides it."""
        if asked.path not in self.files:
            return Reply(404, b"not found")
        return Reply(200, self.files[asked.path], {"ETag": f'"{sha256(self.files[asked.path])}"'})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer on a kept connection waits 40 ms for the client's acknowledgement
    stand_in: StandIn

    def do_GET(self) -> None:
        asked = self._asked()
        self.stand_in.asked.append(" ".join(filter(None, (asked.method, asked.path, asked.headers.get("range", "")))))
        reply = self.stand_in.answer(asked)
        try:
            self._send(asked, reply)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has gone

    do_POST = do_HEAD = do_DELETE = do_GET

    def _asked(self) -> Asked:
        parts = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        headers.setdefault("range", headers.get("x-ms-range", ""))  # as Azure's clients call it
        body = self.rfile.read(int(headers.get("content-length", 0)))
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return Asked(self.command, unquote(parts.path), query, headers, body)

    def _send(self, asked: Asked, reply: Reply) -> None:
        size = _size(reply.content)
        start, stop = _range(asked, reply, size)
        ranged = reply.status == 200 and (start, stop) != (0, size)
        self.send_response(206 if ranged else reply.status)
        headers = {"Content-Length": str(stop - start), "Accept-Ranges": "bytes", **reply.headers}
        if reply.status == 200 and asked.headers["range"]:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if asked.method != "HEAD":
            self._send_body(asked.path, reply.content, start, stop)

    def _send_body(self, path: str, content: Content, start: int, stop: int) -> None:
        data = _read(content, start, stop)
        if any(path.endswith(one) for one in self.stand_in.damaged) and data:
            at = len(data) // 2
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        planned = next((cuts for one, cuts in self.stand_in.cuts.items() if path.endswith(one) and cuts), None)
        if planned and start <= planned[0] < stop:
            self.wfile.write(data[: planned.pop(0) - start])
            self.wfile.flush()
            self.close_connection = True  # fewer bytes than announced: the client sees a broken connection
            return
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


def sha256(content: Content) -> str:
    """Hex sha256 of bytes or of a file."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _read(content: Content, start: int, stop: int) -> bytes:
    if isinstance(content, bytes):
        return content[start:stop]
    with content.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _range(asked: Asked, reply: Reply, size: int) -> tuple[int, int]:
    """First and past-the-last byte; the whole where no range is asked for, or where If-Range names another version."""
    wanted = asked.headers["range"].removeprefix("bytes=")
    if reply.status != 200 or not wanted or asked.headers.get("if-range", reply.headers.get("ETag")) != reply.headers.get("ETag"):
        return 0, size
    first, _, last = wanted.partition("-")
    return min(int(first or 0), size), min(int(last) + 1, size) if last else size
