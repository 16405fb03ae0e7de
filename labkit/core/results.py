"""Result files: versioned JSON, one record a line, appended whole or not at all.

A line is written by one `write` under a lock and synced, so that a process killed at any moment leaves every
finished line readable. A torn last line (a full disk, a power cut) is passed over by `read` and cut by `append`.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel

from labkit.core.errors import BadInput


def dumps(record: BaseModel | dict[str, Any]) -> str:
    """One line of JSON."""
    if isinstance(record, BaseModel):
        return record.model_dump_json()
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def append(path: str | Path, records: Iterable[BaseModel | dict[str, Any]]) -> None:
    """Append records; the file then holds all of them or, when the disk is full, none.

    Raises:
        BadInput: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    lines = "".join(dumps(record) + "\n" for record in records).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"), path.open("ab+") as file:
            end = _end_of_last_line(file)
            file.truncate(end)
            try:
                if os.write(file.fileno(), lines) < len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}", "free some space or choose another folder") from error


def read(path: str | Path) -> Iterator[dict[str, Any]]:
    """The finished records of a file; a torn last line is passed over. A missing file has none."""
    path = Path(path)
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise BadInput(f"{path} line {number} is not JSON", f"look at line {number}, or move the file away") from error


def _end_of_last_line(file: Any) -> int:
    """Offset behind the last newline."""
    end = position = file.seek(0, os.SEEK_END)
    while position > 0:
        step = min(4096, position)
        position -= step
        file.seek(position)
        cut = file.read(step).rfind(b"\n")
        if cut >= 0:
            return position + cut + 1
    return 0 if end else end
