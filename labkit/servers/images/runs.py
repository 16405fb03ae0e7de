"""What this process makes in podman or Docker carries one label, and is removed when the process ends, however it ends.

A program of its own (sweep.py) waits for that, since nothing of ours runs after a SIGKILL.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labkit.servers.images import sweep
from labkit.servers.images.tool import Tool, environment, tool

LABEL = "labkit.run"


class Run:
    """One process's containers, run-tagged images, volumes and networks."""

    def __init__(self, used: Tool) -> None:
        self.tool, self.pid = used, os.getpid()
        self.id = f"{self.pid}-{secrets.token_hex(4)}"
        self.labels = {LABEL: self.id}
        self.label = f"{LABEL}={self.id}"
        self.projects: list[str] = []
        self.folders: list[Path] = []
        self.count = 0
        self.store = _store(used)
        self._keeper: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def name(self, what: str) -> str:
        """A name that no other run has: labkit-12-ab-1-what."""
        self.count += 1
        return f"labkit-{self.id}-{self.count}{f'-{what}' if what else ''}"

    def kept(self) -> None:
        """From here on something may have to be removed: the keeper is there before it is made."""
        if os.name != "posix" or (self._keeper and self._keeper.poll() is None):
            return
        words = [sys.executable, "-I", sweep.__file__, str(self.pid), self.tool.path, self.label, self.store]
        self._keeper = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True, env=environment())
        for project in self.projects:
            self.tell(f"+project {project}")
        for folder in self.folders:
            self.tell(f"+folder {folder}")

    def tell(self, line: str) -> None:
        if self._keeper and self._keeper.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._keeper.stdin.write(f"{line}\n".encode())
                self._keeper.stdin.flush()

    def project(self, name: str) -> None:
        """A Compose project, whose containers are known by their project's name."""
        self.projects.append(name)
        self.kept()
        self.tell(f"+project {name}")

    def folder(self, what: str = "") -> Path:
        """A temporary folder, private to this user, that goes with the run: files for a container, or to build from."""
        self.kept()
        path = Path(tempfile.mkdtemp(prefix=f"{self.name(what)}-"))
        self.folders.append(path)
        self.tell(f"+folder {path}")
        return path

    @contextlib.contextmanager
    def watched(self, process: subprocess.Popen[Any]) -> Iterator[None]:
        """A long command that must not outlive this process. It leads a process group of its own."""
        self.kept()
        self.tell(f"+pid {process.pid}")
        try:
            yield
        finally:
            self.tell(f"-pid {process.pid}")

    def leftovers(self) -> list[str]:
        """What is there of it now, as "container 12ab"."""
        with _surroundings():
            rows = sweep.found(self.tool.path, self.label, self.projects)
        return [f"{kind} {name}" for kind, names in rows.items() for name in names]

    def unfinished(self) -> None:
        """Remove what interrupted builds left."""
        with _surroundings():
            sweep.unfinished(self.tool.path, self.label, self.store)

    def close(self) -> None:
        """Remove all of it now; what comes later starts anew."""
        if os.getpid() != self.pid:
            return  # a fork of it: nothing is its own
        with _surroundings():
            sweep.sweep(self.tool.path, self.label, self.store, self.projects)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        self.folders.clear()
        if self._keeper:
            self._keeper.kill()
            self._keeper.wait()
            if self._keeper.stdin:
                self._keeper.stdin.close()
            self._keeper = None


_runs: dict[int, Run] = {}


def current() -> Run:
    """This process's run, begun at the first call. Raises MissingPart where there is no tool."""
    if os.getpid() not in _runs:
        _runs[os.getpid()] = Run(tool())
    return _runs[os.getpid()]


def leftovers(run: str | None = None, projects: Sequence[str] = ()) -> list[str]:
    """What is there of a run, by its id ("12-ab" as in the label) and its Compose projects; None: of this process's.

    Rows such as "container 12ab"; none is what it should be.
    """
    if run is None:
        return current().leftovers() if os.getpid() in _runs else []
    with _surroundings():
        rows = sweep.found(tool().path, f"{LABEL}={run}", list(projects))
    return [f"{kind} {name}" for kind, names in rows.items() for name in names]


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """sweep.py takes its environment from its process: the same containers.conf as for every other command."""
    added = {key: value for key, value in environment().items() if os.environ.get(key) != value}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def _store(used: Tool) -> str:
    """Podman's folder on this machine; "" where it is elsewhere (its own virtual machine) or Docker's."""
    if used.name != "podman" or sys.platform != "linux":
        return ""
    return used.run(["info", "--format", "{{.Store.GraphRoot}}"]).stdout.strip()
