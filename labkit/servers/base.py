"""A server is a process that labkit starts, watches and stops: on loopback, on a free port, stopped by its own pid."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import httpx

from labkit.core import paths
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import ModelRef
from labkit.servers import keeper

HOST = "127.0.0.1"
NO_MODEL = ModelRef(name="none", path=Path(HOST), format="none")  # of a companion, which serves none
FOLDER = "{own folder}"  # in a command's words and in `files`: the server's own temporary folder


def free_port() -> int:
    """A port that is free now on loopback."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> int:
    """The port itself. Raises BadInput where it is taken or not a port."""
    if not 1 <= port <= 65535:
        raise BadInput(f"{port} is not a port", "--port 8080, or leave it out for a free one")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BadInput(f"port {port} is in use ({error.strerror})", "leave out --port to take a free one") from error
    return port


class Running:
    """A started server. Stop it, or use it as a context manager; it is also stopped when this process ends."""

    def __init__(self, server: Server, process: subprocess.Popen[bytes], url: str, log: Path, folder: Path | None) -> None:
        self.name, self.process, self.url, self.log, self.folder = server.name, process, url, log, folder
        self.base_url, self._health = f"{url}{server.api}", server.health
        atexit.register(self.stop)
        self._keeper: subprocess.Popen[bytes] | None = None
        if server.kept and os.name == "posix":
            words = [sys.executable, "-I", keeper.__file__, str(os.getpid()), str(process.pid), *([str(folder)] if folder else [])]
            self._keeper = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def healthy(self) -> bool:
        """Does it say that it is ready?"""
        try:
            return httpx.get(self.url + self._health, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def wait(self, seconds: float) -> None:
        """Until it is ready. Raises RunFailed, with the end of its log, where it died or took too long; it is stopped then."""
        end = time.monotonic() + seconds
        while not self.healthy():
            if not self.alive() or time.monotonic() > end:
                why = "took too long to get ready" if self.alive() else f"ended with code {self.process.returncode}"
                said = self.last_line()
                self.stop()
                raise RunFailed(f"{self.name} {why}: {said}", f"its log is {self.log}")
            time.sleep(0.05)

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1][:300] if lines else "it wrote nothing"

    def stop(self, seconds: float = 10) -> None:
        """SIGTERM to this pid, SIGKILL after `seconds`, and to what it started; returns when it is gone, and its own folder with it."""
        atexit.unregister(self.stop)
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        if self.alive():
            self.process.kill()
        self.process.wait()
        if self._keeper:
            keeper.clear_group(self.pid)  # a killed server leaves its children
            self._keeper.kill()
            self._keeper.wait()
            self._keeper = None
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Server(ABC):
    """One kind of server. A new one says its command and what it needs."""

    name: str
    health = "/health"
    api = "/v1"  # where its OpenAI API begins
    own_folder = False  # does it get a temporary folder, deleted when it stops?
    kept = False  # does it outlive a killed parent, or its children a killed server? Then a keeper ends them
    start_seconds = 120.0

    @abstractmethod
    def missing(self) -> str | None:
        """None, or one sentence that ends with the install command."""

    @abstractmethod
    def version(self) -> str | None: ...

    @abstractmethod
    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        """The process to start: a list, no shell."""

    def environment(self, port: int, folder: Path) -> dict[str, str]:
        """What its process has in its environment beyond this one's. `folder` is there for a server with `own_folder`."""
        return {}

    def files(self, port: int, options: dict[str, Any]) -> dict[str, str]:
        """Name -> text of what is put into its own folder before it starts: its configuration."""
        return {}

    def settings(self, options: dict[str, Any]) -> dict[str, str]:
        """The same for its options, where they are given in the environment."""
        return {}

    def ready(self, running: Running, model: ModelRef, options: dict[str, Any]) -> None:  # noqa: B027 - most have nothing to do
        """Called when it is healthy: what is done over its own API before it is given out."""

    def start(self, model: ModelRef, port: int | None = None, **options: Any) -> Running:
        """Start it on `port` (None: a free one) and wait until it is healthy.

        Raises: MissingPart, BadInput (port in use, unknown option), RunFailed.
        """
        running = self.launch(model, port, **options)
        try:
            running.wait(self.start_seconds)
            self.ready(running, model, options)
        except BaseException:
            running.stop()
            raise
        return running

    def launch(self, model: ModelRef, port: int | None = None, **options: Any) -> Running:
        """The same without waiting, to watch how it starts: it may not listen yet, and may never become healthy.

        Raises: MissingPart, BadInput.
        """
        if why := self.missing():
            raise MissingPart(why)
        chosen = check_port(port) if port is not None else free_port()
        command = self.command(model, chosen, options)
        surroundings = os.environ | self.settings(options)
        handle, log = tempfile.mkstemp(prefix=f"{self.name}-", suffix=".log", dir=paths.cache("logs"))
        folder = Path(tempfile.mkdtemp(prefix=f"labkit-{self.name}-")) if self.own_folder else None
        try:
            surroundings |= self.environment(chosen, folder or Path(log).parent)
            if folder:
                command = [word.replace(FOLDER, str(folder)) for word in command]
                for name, text in self.files(chosen, options).items():
                    (folder / name).write_text(text.replace(FOLDER, str(folder)), encoding="utf-8")
            with os.fdopen(handle, "wb") as out:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=surroundings
                )
            return Running(self, process, f"http://{HOST}:{chosen}", Path(log), folder)
        except BaseException:
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
            raise
