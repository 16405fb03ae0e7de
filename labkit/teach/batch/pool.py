"""The parent's side of the worker processes: start, hand over a task, watch time and memory, stop.

A pool belongs to one batch. `Pool.worker()` lends an idle worker or starts one, so that with a thread pool each
thread keeps using one process, and with any other executor each of its processes has workers of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from labkit.core.errors import RunFailed
from labkit.teach.batch.task import Limits, Task
from labkit.teach.batch.tree import MARK, Tree
from labkit.teach.batch.worker import SOCKETS, environment

_SAMPLE_S = 0.2
_START_S = 120.0


class Stopped(Exception):
    """The batch is being stopped: this run leaves no record."""


class Outcome(NamedTuple):
    """How one run ended: ok, failed, timeout or disk (no space for the run's own files)."""

    status: str
    error: str | None
    seconds: float
    peak_memory_bytes: int | None


class Worker:
    """One worker process."""

    def __init__(self) -> None:
        mark = uuid.uuid4().hex
        self._sockets = tempfile.mkdtemp(prefix="lk-")
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "labkit.teach.batch.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment({MARK: mark, SOCKETS: self._sockets}),
            start_new_session=True,  # Ctrl-C in the terminal is for the parent to handle
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._input = cast("IO[bytes]", self._process.stdin)
        self._output = cast("IO[bytes]", self._process.stdout)
        self.pid = self._process.pid
        self.tree = Tree(self.pid, mark)
        threading.Thread(target=self._listen, daemon=True).start()

    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, stop: threading.Event) -> None:
        """Until papermill is imported. Raises RunFailed when that does not happen."""
        end = time.monotonic() + _START_S
        while not stop.is_set() and time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                if self._answers.get(timeout=_SAMPLE_S) is not None:
                    return
                if not stop.is_set():
                    raise RunFailed("a worker process ended while it started", "python -c 'import papermill'")
        if stop.is_set():
            raise Stopped
        raise RunFailed(f"a worker process did not start within {_START_S:.0f} s", "python -c 'import papermill'")

    def execute(self, task: Task, folder: Path, stop: threading.Event) -> Outcome:
        """Run one task to its end, a limit, the worker's death or a stop. Afterwards nothing of the run is left running."""
        start = time.perf_counter()
        self._send({"task": task.model_dump(mode="json"), "folder": str(folder)})
        peak, pause = 0, _SAMPLE_S
        while True:
            answer, dead = self._next(pause)
            seconds = time.perf_counter() - start
            if answer is not None:
                peak = peak or self.tree.memory_bytes()
                self.tree.kill_leftovers()
                return Outcome(answer["status"], answer["error"], seconds, peak)
            if stop.is_set():
                self.kill()
                raise Stopped
            before = time.perf_counter()
            now = self.tree.memory_bytes()
            # reading the page tables of large models takes time: spend at most a twentieth on it
            pause = max(_SAMPLE_S, 20 * (time.perf_counter() - before))
            peak = max(peak, now)
            ended = self._over(dead, seconds, now, task.limits)
            if ended:
                self.kill()
                return Outcome(*ended, seconds, peak or None)

    def _over(self, dead: bool, seconds: float, memory_bytes: int, limits: Limits) -> tuple[str, str] | None:
        """Status and sentence of a run that has to end now."""
        if dead:
            code = self._process.wait()
            how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return "failed", f"the worker process was {how} in the middle of this run (out of memory, or stopped from outside)"
        if limits.seconds is not None and seconds > limits.seconds:
            return "timeout", f"stopped after {limits.seconds:g} s, the limit of this grid (limits.seconds)"
        if limits.memory_gb is not None and memory_bytes > limits.memory_gb * 1e9:
            used = f"{memory_bytes / 1e9:.2f} GB of memory"
            return "failed", f"stopped: it held {used}, the limit of this grid is {limits.memory_gb:g} GB (limits.memory_gb)"
        return None

    def kill(self) -> None:
        """End this worker and all it started."""
        self.tree.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # what a dead worker did not read any more
            self._input.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a dead worker is noticed when its answer is awaited
            self._input.write((json.dumps(message) + "\n").encode())
            self._input.flush()

    def _next(self, timeout: float) -> tuple[dict[str, Any] | None, bool]:
        """The next answer, if it comes in time; and whether the worker is dead."""
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            return None, False
        return answer, answer is None

    def _listen(self) -> None:
        with self._output:
            for line in self._output:
                self._answers.put(json.loads(line))
        self._answers.put(None)


class Pool:
    """The workers of one batch in this process."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._all: list[Worker] = []

    @contextlib.contextmanager
    def worker(self) -> Iterator[Worker]:
        """A ready worker; taken back afterwards if it is alive. Raises Stopped when the batch is being stopped."""
        with self._lock:
            if self.stop.is_set():
                raise Stopped
            worker = self._idle.pop() if self._idle else None
        if worker is None or not worker.alive():
            worker = self._started()
        try:
            yield worker
        finally:
            with self._lock:
                if worker.alive():
                    self._idle.append(worker)
                else:
                    self._all.remove(worker)

    def _started(self) -> Worker:
        worker = Worker()
        with self._lock:
            self._all.append(worker)
        try:
            worker.wait_ready(self.stop)
        except BaseException:
            worker.kill()
            raise
        return worker

    def close(self) -> None:
        """Stop every worker; runs in progress raise Stopped in their threads."""
        self.stop.set()
        with self._lock:
            workers = list(self._all)
        for worker in workers:
            worker.kill()
