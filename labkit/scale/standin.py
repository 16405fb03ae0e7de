"""A stand-in for a model server: it answers at the pace of a server that was measured, and computes nothing. A model of one.

On a machine with two cores a real model server takes them all, and a second one beside it takes half of the first one's: nothing can
be learned there about queues and balancers. Any number of stand-ins fits. One works in steps as `jobs.Speed` says, with a queue in
front of its slots, as the simulator's replicas do; but its clients, its connections and its balancer are real. What it shows is
*modelled*, and a plot of it says so.

>>> with standin.start(speed) as one:  # doctest: +SKIP
...     outcomes = load.run(one.base_url, standin.NAME, Plan(rate=5, seconds=30))
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.scale import observe
from labkit.scale.jobs import Speed
from labkit.servers import echo
from labkit.servers.base import HOST, NO_MODEL, Running, Server

NAME = "standin"


class Options(BaseModel):
    """speed: of its steps. loads_s: how long it takes to be ready after its start, as a model that is loaded."""

    model_config = ConfigDict(extra="forbid")

    speed: Speed
    loads_s: float = Field(0.0, ge=0)


class Standin(Server):
    name = NAME

    def missing(self) -> str | None:
        return None

    def version(self) -> str | None:
        return None

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        task = parse(Options, self.name, options).model_dump() | {"port": port, "parent": os.getpid()}
        return [sys.executable, "-m", "labkit.scale.standin", json.dumps(task)]


SERVER = Standin()


def start(speed: Speed, **options: Any) -> Running:
    """A running stand-in in a process of its own, stopped at the end."""
    return SERVER.start(NO_MODEL, speed=speed.model_dump(), **options)


class _Request:
    def __init__(self, prompt_tokens: int, count: int) -> None:
        self.unread, self.left = prompt_tokens, count
        self.tokens: asyncio.Queue[None] = asyncio.Queue()
        self.gone = False


class Replica:
    """Steps of a server with continuous batching, in real time. In a step each request whose prompt is read gets a token."""

    def __init__(self, speed: Speed) -> None:
        self.speed = speed
        self.running: list[_Request] = []
        self.waiting: deque[_Request] = deque()
        self.something = asyncio.Event()

    def full(self) -> bool:
        """Is there neither a slot nor a place in the queue?"""
        queue = self.speed.queue
        return queue is not None and len(self.running) >= self.speed.slots and len(self.waiting) >= queue

    def add(self, request: _Request) -> None:
        self.waiting.append(request)
        self._admit()
        self.something.set()

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.speed.slots:
            request = self.waiting.popleft()
            if not request.gone:
                self.running.append(request)

    async def work(self) -> None:
        """For ever. A step's end is counted from the end of the one before, so that late wake-ups do not add up."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while True:
            if not self.running:
                self.something.clear()
                await self.something.wait()
                at = loop.time()
            room, reads = self.speed.batch_tokens, 0
            batch = list(self.running)
            for request in batch:
                part = min(request.unread, room - reads)
                request.unread -= part
                reads += part
            making = [one for one in batch if one.unread == 0]
            at += self.speed.step_s(len(making), reads)
            if (wait := at - loop.time()) > 0:
                await asyncio.sleep(wait)
            for request in making:
                request.left -= 1
                request.tokens.put_nowait(None)
            self.running = [one for one in self.running if one.left > 0 and not one.gone]
            self._admit()


class Desk(echo.Desk):
    """The echo server's connections, with a replica's pace."""

    def __init__(self, options: Options) -> None:
        super().__init__(echo.Options())
        self.replica, self.meters = Replica(options.speed), observe.meters(NAME, NAME)
        self.ready_at = asyncio.get_running_loop().time() + options.loads_s

    def page(self, path: str) -> bytes:
        replica = self.replica
        if path.startswith("/metrics"):
            self.meters.in_flight.set(len(replica.running))
            self.meters.queue_length.set(len(replica.waiting))
            return echo.whole(200, self.meters.text().decode())
        if asyncio.get_running_loop().time() < self.ready_at:
            return echo.whole(503, {"status": "loading"})
        return super().page(path)

    def refuses(self) -> bytes | None:
        if not self.replica.full():
            return None
        self.meters.rejected("queue_full")
        return echo.whole(429, {"error": {"message": "its queue is full"}}, "Retry-After: 1\r\n")

    async def pace(self, prompt_tokens: int, count: int) -> AsyncGenerator[int, None]:
        loop = asyncio.get_running_loop()
        begun, first, last, number = loop.time(), None, None, 0
        request = _Request(prompt_tokens, count)
        try:
            await asyncio.sleep(self.replica.speed.outside_s)
            self.replica.add(request)
            for number in range(1, count + 1):
                await request.tokens.get()
                last = loop.time() - begun
                first = first or last
                yield number - 1
        finally:
            request.gone = True  # its client may have gone away: its slot is free with the next step
            error = "" if number == count and last is not None else "cancelled"
            self.meters.finished("chat", loop.time() - begun, first, last, (prompt_tokens, number), error)


async def _main(task: dict[str, Any]) -> None:
    """Serves until it is told to stop, or until its parent is gone."""
    parent, port = task.pop("parent"), task.pop("port")
    desk = Desk(Options(**task))
    work = asyncio.create_task(desk.replica.work())
    async with await asyncio.start_server(desk.serve, HOST, port, backlog=1024):
        while os.getppid() == parent and not work.done():
            await asyncio.sleep(1)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
