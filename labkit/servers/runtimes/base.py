"""What every runtime can do: be found, be installed whole or not at all, be removed."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from labkit.core import paths
from labkit.core.errors import LabkitError, MissingPart, RunFailed

Say = Callable[[str], None]


class Found(NamedTuple):
    """A program on this machine."""

    path: Path
    version: str
    how: str


class NotThisWay(Exception):
    """A way to install does not work here; the next one is tried. Its text says why, as half a sentence."""


def to_stderr(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


class Runtime(ABC):
    """One program. A new one says its ways to be installed: each a method that fills a folder, or raises NotThisWay."""

    name: str
    program: str  # path of the program inside the installed folder
    elsewhere: str  # how to get it without labkit

    @property
    def data(self) -> dict[str, Any]:
        """Its table in data/runtimes.toml."""
        return tomllib.loads(paths.data("runtimes.toml").read_text(encoding="utf-8"))[self.name]

    @property
    def version(self) -> str:
        """The version that labkit installs; one that is here already may be another."""
        return str(self.data["version"])

    @abstractmethod
    def ways(self) -> list[tuple[str, Callable[[Path, Say], None]]]:
        """(what it is called, what fills a folder), in the order to try."""

    @abstractmethod
    def version_of(self, program: Path) -> str | None:
        """What the program says of its version; None where it does not run."""

    def command(self) -> str:
        return f"labkit runtimes install {self.name}"

    def folder(self) -> Path:
        return paths.cache("runtimes") / f"{self.name}-{self.version}"

    def find(self) -> Found | None:
        """On PATH, then in our cache."""
        for path, how in ((shutil.which(self.name), "on PATH"), (self.folder() / self.program, "in labkit's cache")):
            if path and Path(path).is_file() and (version := self.version_of(Path(path))):
                return Found(Path(path), version, how)
        return None

    def missing(self) -> str | None:
        """None, or one sentence that ends with the install command."""
        return None if self.find() else f"{self.name} is not installed; install it: {self.command()}"

    def require(self) -> Found:
        """Raises MissingPart where it is not here."""
        found = self.find()
        if found is None:
            raise MissingPart(f"{self.name} is not installed", self.command())
        return found

    def install(self, say: Say = to_stderr) -> Found:
        """Into the cache, whole or not at all; what is here already stays. Raises RunFailed where no way works, with all reasons."""
        if found := self.find():
            say(f"{self.name} {found.version} is here, {found.how}: {found.path}")
            return found
        with filelock.FileLock(paths.cache("runtimes") / f".{self.name}.lock"):
            if found := self.find():  # another process was quicker
                return found
            refused = []
            for what, fill in self.ways():
                say(f"{self.name} {self.version}: trying {what}")
                try:
                    with self._staged() as folder:
                        fill(folder, say)
                        if self.version_of(folder / self.program) is None:
                            raise NotThisWay("what it made does not run")
                except (NotThisWay, LabkitError) as error:
                    refused.append(f"{what}: {getattr(error, 'cause', error)}")
                    say(f"  not this way: {getattr(error, 'cause', error)}")
                    continue
                say(f"{self.name} {self.version} is installed: {self.folder()}")
                return self.require()
        raise RunFailed(f"{self.name} could not be installed ({'; '.join(refused)})", self.elsewhere)

    def remove(self) -> Path | None:
        """Delete what labkit installed; returns the folder, None where there was none. A program on PATH is not ours."""
        folder = self.folder()
        if not folder.is_dir():
            return None
        shutil.rmtree(folder)
        return folder

    @contextlib.contextmanager
    def _staged(self) -> Iterator[Path]:
        """A folder that becomes ours when the block ends well."""
        staging = Path(tempfile.mkdtemp(prefix=f".{self.name}-", dir=paths.cache("runtimes")))
        try:
            yield staging
            staging.chmod(0o755)
            if self.folder().exists():
                shutil.rmtree(self.folder())  # it did not run
            staging.replace(self.folder())
        finally:
            shutil.rmtree(staging, ignore_errors=True)
