"""What the tests of stacks share: each image is built once in a session, and one container of each stack is asked many things."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stack_table import ONLY, STACKS, Stack

from labkit.servers import images


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stack" in metafunc.fixturenames:
        rows = [pytest.param(row, id=row.name, marks=pytest.mark.timeout(row.timeout_s)) for row in STACKS if row.name in ONLY or not ONLY]
        metafunc.parametrize("stack", rows, scope="session")


@pytest.fixture(autouse=True)
def podman(needs: Callable[[str], str]) -> str:
    return needs("podman")


class Life:
    """A stack's images, and one hardened container whose model lies outside, at /models. Nothing is made before it is asked for."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._images: dict[str, images.Image] = {}
        self._container: images.Container | None = None
        self._volume: images.Volume | None = None
        self.folder = Path()
        self._source: Path | None = None

    @property
    def source(self) -> Path:
        """A copy of the stack's folder with what its image needs."""
        if self._source is None:
            self._source = images.folder(self.stack.name)
            shutil.copytree(
                self.stack.folder, self._source, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.gguf", "secrets", ".*_cache")
            )
            self.stack.bring(self._source)
        return self._source

    def image(self, way: str) -> images.Image:
        """ "with_model", or "without"."""
        if way not in self._images:
            self._images[way] = images.build(self.source, f"{self.stack.name}:{way}", args=getattr(self.stack, way))
        return self._images[way]

    def empty(self) -> images.Container:
        """A container that has no model yet."""
        self.stop()
        self.folder = images.folder("models")
        self.folder.chmod(0o755)  # the container's user is another one
        self._volume = images.volume("models") if self.stack.volume else None
        place = (self._volume, "/models", "rw") if self._volume else (self.folder, "/models", "ro")
        row = self.stack
        self._container = images.run(
            self.image("without"), port=row.port, memory_mb=row.memory_mb, cpus=2, pids=row.pids, env=row.env, volumes=[place]
        )
        return self._container

    def serving(self) -> images.Container:
        """A container that answers."""
        if self._container is None or not self._container.alive():
            self.stack.put(self.empty(), self.folder)
        assert self._container is not None
        return self._container.wait(seconds=self.stack.start_s)

    def stop(self) -> None:
        if self._container:
            self._container.stop()
        if self._volume:
            self._volume.remove()
        if self.folder.name:
            shutil.rmtree(self.folder)
        self._container = self._volume = None
        self.folder = Path()

    def close(self) -> None:
        self.stop()
        for image in self._images.values():
            image.remove()
        if self._source:
            shutil.rmtree(self._source)


@pytest.fixture(scope="session")
def life(stack: Stack) -> Iterator[Life]:
    found = Life(stack)
    yield found
    found.close()
