"""What files are fetched, read and written with: blocks that are hashed and shown on the way, and room on the disk."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import IO, Any

from tqdm.auto import tqdm

from labkit.core.errors import BadInput

_BLOCK = 1 << 20


class Watched:
    """A file whose reading moves a progress bar."""

    def __init__(self, file: IO[bytes], bar: Any) -> None:
        self.file, self.bar = file, bar

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.bar.update(len(block))
        return block


def hash_of(source: IO[bytes], bar: Any, copy: IO[bytes] | None = None) -> Any:
    """The sha256 of all that a source holds, as a hash object: more may be added to it. The source is closed."""
    found = hashlib.sha256()
    with source:
        while block := source.read(_BLOCK):
            found.update(block)
            bar.update(len(block))
            if copy is not None:
                copy.write(block)
    return found


def bar_of(size: int, told: str) -> Any:
    return tqdm(total=size, unit="B", unit_scale=True, desc=told, leave=False, disable=size < 256 << 20)


def check_room(folder: Path, wanted: int, remedy: str = "choose a folder on another disk") -> None:
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise BadInput(f"{folder} has {free / 1e9:.2f} GB free, {wanted / 1e9:.2f} GB are needed", remedy)
