"""Folders: the course's data and labs, and the user's cache. Nothing here is read at import time.

LABKIT_CACHE moves the cache; LABKIT_HOME names the checkout when labkit is installed apart from it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import platformdirs

from labkit.core.errors import BadInput


def home() -> Path:
    """The checkout that holds labs/ and data/."""
    given = os.environ.get("LABKIT_HOME")
    root = Path(given) if given else Path(__file__).resolve().parents[2]
    if not (root / "data" / "models.toml").is_file():
        raise BadInput(f"no course checkout at {root}", "set LABKIT_HOME to the folder that holds labs/ and data/")
    return root


def data(*parts: str) -> Path:
    return home().joinpath("data", *parts)


def labs(*parts: str) -> Path:
    return home().joinpath("labs", *parts)


def cache(*parts: str) -> Path:
    """A folder in the user's cache, made if it is not there."""
    given = os.environ.get("LABKIT_CACHE")
    root = Path(given) if given else Path(platformdirs.user_cache_dir("labkit", appauthor=False))
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_room(folder: Path, needed_bytes: int, what: str, remedy: str = "labkit cache --clean") -> None:
    """Raises BadInput where the folder's disk has less free space than that."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise BadInput(f"{what} needs {needed_bytes / 1e6:,.0f} MB, {folder} has {free / 1e6:,.0f} MB free", remedy)


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Write a file whole or not at all: a temporary file in the same folder, renamed at the end."""
    with atomic_path(path) as temporary, temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """The same for a writer that wants a path: it writes to the temporary one, which is renamed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # the temporary file is private, the finished one need not be
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
