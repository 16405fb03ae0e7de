"""Volumes, networks and folders of this run: removed with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labkit.servers.images import runs


@dataclass(frozen=True)
class Volume:
    """A named volume: it outlives the containers that use it, and goes when its block or this process ends."""

    name: str

    def remove(self) -> None:
        runs.current().tool.run(["volume", "rm", "--force", self.name], check=False)

    def __enter__(self) -> Volume:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@dataclass(frozen=True)
class Network:
    """A network whose containers find each other by name; an internal one reaches nothing else."""

    name: str

    def remove(self) -> None:
        runs.current().tool.run(["network", "rm", self.name], check=False)

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def volume(name: str = "") -> Volume:
    """A new, empty volume of this run. Raises RunFailed."""
    run = runs.current()
    run.kept()
    title = run.name(name)
    run.tool.run(["volume", "create", "--label", run.label, title])
    return Volume(title)


def network(name: str = "", *, internal: bool = False) -> Network:
    """A new network of this run. Raises RunFailed."""
    run = runs.current()
    run.kept()
    title = run.name(name)
    run.tool.run(["network", "create", *(["--internal"] if internal else []), "--label", run.label, title])
    return Network(title)


def folder(name: str = "") -> Path:
    """A new folder on this machine, private to this user, for what a container mounts or is built from."""
    return runs.current().folder(name)
