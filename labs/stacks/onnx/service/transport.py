"""Below HTTP: time limits for connections that say too little, and the end of the process in good order.

uvicorn has a time limit for idle kept connections only. A client that opens a connection and sends its head byte by byte (a
"slowloris"), or takes an answer and does not read it, would hold its place for ever.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import sys
import time
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from service import errors
from service.queue import Queue
from service.settings import Settings

_LINGER_S = 1.0


def timed(settings: Settings) -> type[H11Protocol]:
    """uvicorn's HTTP protocol with a limit for the head, for unread answers, and for the number of connections."""

    class Timed(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _write: asyncio.TimerHandle | None = None
        _linger: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > settings.connections:
                transport.abort()
                return
            self._head = self.loop.call_later(settings.header_seconds, self._no_head)

        def data_received(self, data: bytes) -> None:
            if self._linger is not None:
                return  # refused: the rest is read and thrown away
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:
                self._stop("_head")  # a request began; its body has a limit of its own (limits.py)
            elif self._head is None and (before is None or before.response_complete) and not self.transport.is_closing():
                self._head = self.loop.call_later(settings.header_seconds, self._no_head)

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._write is None:
                self._write = self.loop.call_later(settings.write_seconds, self._cut)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop("_write")

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop("_head")
            self._stop("_write")
            self._stop("_linger")
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, msg)

        def _no_head(self) -> None:
            self._head = None
            if self.cycle is None or self.cycle.response_complete:
                self._refuse(408, f"the request's head did not come within {settings.header_seconds:g} s")

        def _refuse(self, status: int, message: str) -> None:
            if self._linger is not None or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self.transport.is_closing():
                self.transport.abort()  # an answer is on its way, and the line is out of step
                return
            body = json.dumps(errors.body(status, message)).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            # closed at once, with something of the client's still unread, the connection would be reset, and the answer lost
            self.transport.write_eof()
            self._linger = self.loop.call_later(_LINGER_S, self.transport.abort)

        def _cut(self) -> None:
            """The connection is reset. Merely closed, the system would go on offering what nobody reads, megabytes of it, for minutes."""
            line = self.transport.get_extra_info("socket")
            if line is not None:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0))
            self.transport.abort()

        def _stop(self, name: str) -> None:
            timer = getattr(self, name)
            if timer is not None:
                timer.cancel()
                setattr(self, name, None)

    return Timed


class Server(uvicorn.Server):
    """uvicorn's server that, told to stop, first finishes what it has begun.

    uvicorn closes its door at once. This one stays open meanwhile, so that a client reads "503, try again later", and a load
    balancer reads "not ready", instead of meeting a closed port.
    """

    def __init__(self, config: uvicorn.Config, queue: Queue, settings: Settings) -> None:
        super().__init__(config)
        self._queue, self._settings = queue, settings
        self._deadline: float | None = None
        self.failure = ""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._deadline is not None and sig == signal.SIGINT:
            self._deadline = 0.0  # Ctrl-C a second time: now
            return
        self._queue.draining = True
        self._deadline = time.monotonic() + self._settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        if self._queue.dead and not self._queue.warm:
            self.failure = f"the model in {self._settings.model} could not be loaded; the lines above say why"
            return True
        if self._deadline is not None:
            busy = any(not one.done() for one in self.server_state.tasks)
            if busy and time.monotonic() < self._deadline:
                return await super().on_tick(counter)
            self._queue.fail_all("the service is shutting down")
            return True
        return await super().on_tick(counter)


def serve(app: Any, settings: Settings) -> None:
    """Serve until told to stop. Ends the process with 1 where the model cannot be loaded."""
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, http=timed(settings), ws="none", log_level="warning", access_log=False,
        server_header=False, timeout_keep_alive=5, timeout_graceful_shutdown=1, h11_max_incomplete_event_size=32_768,
    )  # fmt: skip
    server = Server(config, app.state.queue, settings)
    server.run()
    if server.failure or not server.started:
        sys.exit(server.failure or 1)
