"""The queue, and the line to the engine: it starts the engine's process, gives it requests up to a bound, and hands events out.

A request beyond the bound is refused at once: a queue without a bound answers everyone too late instead.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from service.errors import ApiError
from service.metrics import Metrics
from service.settings import Settings

Event = dict[str, Any]
_LAST = ("refused", "done", "failed")


class Job:
    """One request at the engine: its events as they come. Close it when no one waits any more."""

    def __init__(self, number: int) -> None:
        self.number, self.born = number, time.perf_counter()
        self.events: asyncio.Queue[Event] = asyncio.Queue()  # holds at most max_tokens events
        self.started_s: float | None = None  # when its turn came, seconds after its birth
        self.prompt_tokens = self.output_tokens = 0
        self.first_s: float | None = None  # when its first text came, seconds after its birth
        self.last_s: float | None = None
        self.reason: str | None = None

    def put(self, event: Event) -> None:
        kind = event["event"]
        if kind == "accepted":
            self.prompt_tokens = event["prompt_tokens"]
        elif kind == "started":
            self.started_s = time.perf_counter() - self.born
        elif kind == "text":
            self.last_s = time.perf_counter() - self.born
            self.first_s = self.last_s if self.first_s is None else self.first_s
            self.events.put_nowait(event)
        else:
            self.output_tokens, self.reason = event.get("output_tokens", 0), event.get("reason")
            self.events.put_nowait(event)

    async def texts(self) -> AsyncIterator[str]:
        """Its text, piece by piece. Raises ApiError where the engine refused it, failed or went away."""
        while True:
            event = await self.events.get()
            if event["event"] == "text":
                yield event["text"]
            elif event["event"] == "done":
                return
            elif event["event"] == "refused":
                raise ApiError(400, event["message"], event["code"])
            else:
                raise ApiError(event.get("status", 500), event["message"], "engine_failed", retry_after=event.get("retry_after"))


class Queue:
    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.context: int | None = None
        self.warm = self.draining = False
        self._jobs: dict[int, Job] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._count = 0
        self._heard = time.monotonic()
        self._mean_s = 1.0  # running mean of an answer's duration without its wait, for Retry-After

    async def run(self) -> None:
        """Wait for the model's folder, start the engine, and hand its events out until it ends."""
        end = time.monotonic() + self.settings.model_wait_seconds
        while not self._there() and time.monotonic() < end:
            await asyncio.sleep(0.2)
        given = {f"SERVICE_{name.upper()}": str(value) for name, value in asdict(self.settings).items()}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service.engine", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env=os.environ | given | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        await self._read(self._process)

    def start(self) -> None:
        self._task = asyncio.create_task(self.run())

    async def close(self) -> None:
        """End the engine: it goes when its stdin is closed."""
        if self._process is None or self._process.stdin is None:
            if self._task is not None:
                self._task.cancel()
            return
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 2)
        except TimeoutError:  # in the middle of a long step
            self._process.kill()
            await self._process.wait()

    def _there(self) -> bool:
        return all((self.settings.model / name).is_file() for name in ("genai_config.json", "tokenizer.json"))

    # -- how it is

    @property
    def engine_pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def dead(self) -> bool:
        """Has the engine ended, or did it stop talking while requests are there?"""
        if self._task is not None and self._task.done():
            return True
        return bool(self._jobs) and time.monotonic() - self._heard > self.settings.stall_seconds

    def why_not_ready(self) -> str | None:
        """None: a request would be answered now. Else what is the matter, in a few words."""
        if self.draining:
            return "it is shutting down"
        if self.dead:
            return "the engine has stopped"
        if not self._there():
            return f"there is no model in {self.settings.model}"
        return None if self.warm else "the model is being loaded"

    @property
    def waiting(self) -> int:
        return sum(job.started_s is None for job in self._jobs.values())

    @property
    def running(self) -> int:
        return len(self._jobs) - self.waiting

    # -- requests

    def submit(self, command: Event) -> Job:
        """Give a request to the engine. Raises ApiError 429 beyond the bound, 503 where the service is not ready."""
        if why := self.why_not_ready():
            self.metrics.rejected("draining" if self.draining else "not_ready")
            raise ApiError(503, f"no requests now: {why}", "not_ready", retry_after=self.settings.drain_seconds)
        if len(self._jobs) >= self.settings.parallel + self.settings.queue_length:
            self.metrics.rejected("queue_full")
            wait = (self.waiting + 1) * self._mean_s / self.settings.parallel  # until those in front, and its own answer, would be done
            raise ApiError(429, f"{len(self._jobs)} requests are here already; try again later", "queue_full", retry_after=wait)
        self._count += 1
        job = self._jobs[self._count] = Job(self._count)
        if len(self._jobs) == 1:
            self._heard = time.monotonic()
        self._send({"op": "submit", "id": job.number, **command})
        return job

    def close_job(self, job: Job) -> None:
        """No one waits for it any more: if it still runs, the engine drops it before its next token."""
        if self._jobs.pop(job.number, None) is not None:
            self._send({"op": "cancel", "id": job.number})

    def fail_all(self, message: str) -> None:
        for job in list(self._jobs.values()):
            job.put({"event": "failed", "status": 503, "message": message, "retry_after": self.settings.drain_seconds})
            self.close_job(job)

    def _send(self, command: Event) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        while process.stdout is not None and (line := await process.stdout.readline()):
            self._heard = time.monotonic()
            event = json.loads(line)
            if "id" not in event:
                self.context = event.get("context", self.context)
                self.warm = self.warm or event["event"] == "ready"
                continue
            job = self._jobs.get(event["id"])
            if job is None:
                continue  # cancelled, and this was still on its way
            job.put(event)
            if event["event"] in _LAST:
                del self._jobs[job.number]
                if event["event"] == "done" and job.started_s is not None:
                    self._mean_s += 0.2 * (time.perf_counter() - job.born - job.started_s - self._mean_s)
        await process.wait()
        self.fail_all("the engine has stopped")
