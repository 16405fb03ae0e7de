"""The processes of one worker: how much memory they hold together, and how to end them all.

Every process that a worker starts inherits a mark in its environment, so that those that lost their parent (a
kernel whose worker was killed, a server that a notebook left behind) are found too.

>>> tree = Tree(worker_pid, mark)
>>> tree.memory_bytes()
>>> tree.kill()
"""

from __future__ import annotations

import os

import psutil

from labkit.measure import memory

MARK = "LABKIT_BATCH_WORKER"
_GONE = (psutil.NoSuchProcess, psutil.ZombieProcess)


class Tree:
    """A worker and its descendants."""

    def __init__(self, pid: int, mark: str) -> None:
        self._mark = mark
        self._root: psutil.Process | None
        try:
            self._root = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._root = None
        self._seen: set[psutil.Process] = set()

    def memory_bytes(self) -> int:
        """Sum of the proportional set sizes now; resident set sizes where the system has no proportional ones."""
        total = 0
        for process in self._members():
            try:
                total += memory.of(process)
            except (*_GONE, psutil.AccessDenied):
                continue  # ended meanwhile, or another user's
        return total

    def kill(self) -> None:
        """End the worker and everything that it started, by pid, and wait until they are gone."""
        self._end(self._members() | self._seen | self._marked())

    def kill_leftovers(self) -> None:
        """End what a finished run left running; the worker itself stays."""
        left = self._members() | self._marked()
        if self._root is not None:
            left.discard(self._root)
        self._end(left)

    def _members(self) -> set[psutil.Process]:
        if self._root is None:
            return set()
        try:
            members = {self._root, *self._root.children(recursive=True)}
        except _GONE:
            return set()
        self._seen |= members
        return members

    def _marked(self) -> set[psutil.Process]:
        found = set()
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(MARK) == self._mark:
                    found.add(process)
            except (*_GONE, psutil.AccessDenied, OSError):
                continue  # ended meanwhile, or another user's
        return found

    def _end(self, processes: set[psutil.Process]) -> None:
        for process in processes:
            try:
                process.kill()  # psutil checks that the pid is still the same process
            except (*_GONE, psutil.AccessDenied):
                continue
        psutil.wait_procs(list(processes), timeout=5)
        self._seen -= processes
