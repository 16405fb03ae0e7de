"""The client of the load generator: one streamed request on one connection, with a mark at every arrival.

Written on asyncio's protocols and httptools (the parser of Node's, in C) because a general client is too slow here: marks are taken
where the bytes arrive, before any parsing, and a piece of an answer wakes no task. `python -m benchmarks load_overhead` holds it
against httpx.
"""

from __future__ import annotations

import asyncio
import errno
import json
import ssl
import time
from typing import Any, NamedTuple

import httptools

from labkit.measure.load_plans import Outcome, Status

_MOST_BYTES = 1 << 16  # of an answer that is no stream: enough to find its message


class Target(NamedTuple):
    """Where to: host and port, path in front of the route, TLS or None, headers of every request."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None
    headers: tuple[tuple[str, str], ...]

    def head(self, route: str) -> bytes:
        """Of a request, all but the number behind Content-Length."""
        lines = [f"POST {self.path}{route} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers), "Content-Length: "]
        return "\r\n".join(lines).encode("ascii")


class Answer:
    """What has arrived of one answer. `feed` gets bytes of the body with their mark."""

    def __init__(self, ended: asyncio.Future[str]) -> None:
        self.ended = ended  # result: "" for a proper end, else what went wrong
        self.ended_ns = 0
        self.http_status: int | None = None
        self.retry_after: str | None = None
        self.marks: list[int] = []
        self.usage: dict[str, Any] = {}
        self.reason: str | None = None
        self.problem: str | None = None
        self.done = self.events = False
        self._rest = b""

    def feed(self, data: bytes, now: int) -> None:
        if self.http_status != 200:
            self._rest = (self._rest + data)[:_MOST_BYTES]
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MOST_BYTES:
            self.problem, self._rest = self.problem or "a line without end", b""
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now)
            elif line.startswith(b"error:"):
                self.problem = self.problem or line[6:].decode(errors="replace").strip()[:300]

    def _event(self, data: bytes, now: int) -> None:
        self.events = True
        if data == b"[DONE]":
            self.done, self.ended_ns = True, now
            return
        try:
            event = json.loads(data)
            if error := event.get("error"):
                self.problem = self.problem or message_of(error)
            for choice in event.get("choices") or ():
                piece = choice.get("delta") or choice
                if piece.get("content") or piece.get("text") or piece.get("reasoning_content") or piece.get("tool_calls"):
                    self.marks.append(now)
                self.reason = choice.get("finish_reason") or self.reason
            self.usage = event.get("usage") or self.usage
        except (ValueError, AttributeError) as error:
            self.problem = self.problem or f"an event that is none of the API's ({type(error).__name__}): {data[:80]!r}"

    def end(self, how: str) -> None:
        if not self.ended.done():
            self.ended_ns = self.ended_ns or time.perf_counter_ns()
            self.ended.set_result(how)

    def message(self) -> str:
        """Of an answer that is no stream."""
        try:
            return message_of(json.loads(self._rest))
        except ValueError:
            return self._rest[:200].decode(errors="replace").strip()


def message_of(error: Any) -> str:
    """The sentence in an error object, whichever of the usual shapes it has."""
    while isinstance(error, dict):
        error = error.get("error") or error.get("message") or error.get("detail") or json.dumps(error)
    return str(error)[:300]


class Connection(asyncio.Protocol):
    """One connection, for one request at a time. `free` after an answer that leaves it usable. The on_… are the parser's calls."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._now = 0  # when the bytes that are being parsed arrived
        self._stays = self._until_eof = False
        self._retry_after: str | None = None
        self.free = False
        self.used = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, head: bytes, body: bytes, answer: Answer) -> None:
        """head: what stands in front of the length of the body; see Target.head."""
        self._answer, self.free, self.used = answer, False, self.used + 1
        self._stays = self._until_eof = False
        self._transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter_ns()
        if self._answer is None:  # nobody asked
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._answer.end(f"the answer broke off ({error})")
            self.close()
        else:
            if self._answer is None and not self.free:
                self.close()

    def eof_received(self) -> None:
        if self._answer and self._until_eof:
            self._now = time.perf_counter_ns()
            self.on_message_complete()

    def connection_lost(self, error: Exception | None) -> None:
        self.free = False
        if self._answer:
            self._answer.end(f"the connection was closed{f' ({error})' if error else ''}")

    def close(self) -> None:
        self.free = False
        if self._transport:
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._until_eof, self._retry_after = True, None

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._until_eof = False
        elif name == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._answer and (status := self._parser.get_status_code()) >= 200:
            self._answer.http_status, self._answer.retry_after = status, self._retry_after
            self._stays = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if self._answer:
            self._answer.feed(data, self._now)

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer and answer.http_status is not None:  # not after a 100 Continue
            self._answer, self.free = None, self._stays
            answer.end("")


class Client:
    """Sends requests; keeps and reuses connections, as a browser or an SDK does. `ask` is all of it."""

    def __init__(self, target: Target, timeout_s: float, tries: int = 1, cut: list[Outcome] | None = None) -> None:
        self.target, self.timeout_s, self.tries = target, timeout_s, tries
        self.cut: list[Outcome] = [] if cut is None else cut
        self._heads: dict[str, bytes] = {}
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    async def ask(self, number: int, route: str, body: bytes, scheduled_ns: int | None = None) -> Outcome:
        """Send one request and wait for its end; again, where its stream is cut and tries are left. scheduled_ns None: it is due now."""
        found = await self._ask(number, route, body, scheduled_ns)
        for _ in range(self.tries - 1):
            if found.status != "cut":
                break
            self.cut.append(found)
            found = await self._ask(number, route, body, found.scheduled_ns)
        return found

    async def _ask(self, number: int, route: str, body: bytes, scheduled_ns: int | None) -> Outcome:
        sent_ns = time.perf_counter_ns()
        loop = asyncio.get_running_loop()
        head = self._heads.get(route) or self._heads.setdefault(route, self.target.head(route))
        answer = Answer(loop.create_future())
        timer = loop.call_later(self.timeout_s, answer.end, "timeout")
        connection: Connection | None = None
        failed: OSError | None = None
        how = ""
        try:
            while True:
                connection = self._kept()
                if connection is None:
                    connection = await asyncio.wait_for(self._connect(), self.timeout_s)
                connection.send(head, body, answer)
                how = await answer.ended
                # a kept connection may have been closed by the server while the request was on its way: any client sends again
                if how in ("", "timeout") or answer.http_status is not None or connection.used == 1:
                    break
                self._all.discard(connection)
                answer = Answer(loop.create_future())
                timer.cancel()
                timer = loop.call_later(self.timeout_s - (time.perf_counter_ns() - sent_ns) / 1e9, answer.end, "timeout")
        except TimeoutError:
            how = "timeout"
        except OSError as error:
            failed = error
        finally:
            timer.cancel()
            if connection and connection.free:
                self._idle.append(connection)
            elif connection:
                connection.close()
                self._all.discard(connection)
        status, why = _no_connection(failed) if failed else _verdict(answer, how, self.timeout_s)
        usage = answer.usage
        return Outcome(
            number=number,
            status=status,
            scheduled_ns=sent_ns if scheduled_ns is None else scheduled_ns,
            sent_ns=sent_ns,
            chunk_ns=tuple(answer.marks),
            ended_ns=answer.ended_ns or time.perf_counter_ns(),
            http_status=answer.http_status,
            prompt_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            finish_reason=answer.reason,
            retry_after_s=float(answer.retry_after) if (answer.retry_after or "").isdigit() else None,  # type: ignore[arg-type]
            error=why,
        )

    def close(self) -> None:
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()

    def _kept(self) -> Connection | None:
        while self._idle:
            if (connection := self._idle.pop()).free:
                return connection
            self._all.discard(connection)
        return None

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, self.target.host, self.target.port, ssl=self.target.tls
        )
        self._all.add(connection)
        return connection


def _no_connection(error: OSError) -> tuple[Status, str]:
    """Nobody listens there: refused. What is wrong on this side, or with the server's certificate, is no refusal."""
    ours = isinstance(error, ssl.SSLError) or error.errno in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
    return "error" if ours else "refused", f"no connection: {error.strerror or error}"


def _verdict(answer: Answer, how: str, timeout_s: float) -> tuple[Status, str | None]:
    """Exactly one status, and why it is not ok."""
    code = answer.http_status
    if how == "timeout" and not answer.done:
        return "timeout", f"no {'end' if answer.events else 'answer'} within {timeout_s:g} s"
    if code is None:
        return "error", how
    if code in (429, 503):
        return "refused", f"status {code}: {answer.message()}"
    if code != 200:
        return "error", f"status {code}: {answer.message()}"
    if answer.problem:
        return "error", answer.problem
    if how not in ("", "timeout") and not answer.done:  # what comes after [DONE], nobody reads
        return "cut", how
    if not answer.events:
        return "error", f"status 200, and no event in it: {answer.message()}"
    if answer.reason is None:
        return "cut", "the stream ended without a finish_reason"
    return "ok", None
