"""A model that is a folder: written whole or not at all, with a note of where it came from.

The folder is made under a temporary name beside its place and renamed at the end, under a lock, so that a full disk, a
crash or a second process leaves either nothing or the finished folder.

>>> with made(target, needed_bytes=10**9, note={"source_sha256": "…"}) as folder:
...     if folder:                      # None: another run has made it already
...         (folder / "config.json").write_text("{}")
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from labkit import models
from labkit.core import paths, results
from labkit.core.errors import BadInput
from labkit.core.records import now

NOTE = "labkit.json"  # where it came from; written last, so its presence says that the folder is whole


@contextlib.contextmanager
def made(target: Path, needed_bytes: int, note: dict[str, Any], replace: bool = False) -> Iterator[Path | None]:
    """A temporary folder to fill, renamed to `target` at the end; None where `target` is there with the same note.

    replace: a `target` that is no longer whole, or made from something else, gives way to the new one (for the cache).
    Raises:
        BadInput: there is no space, before or in the middle of writing; or `target` holds something else.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if same(target, note):
            yield None
            return
        if not replace and target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise BadInput(f"{target} is there already, and holds something else", "choose another folder, or delete it")
        paths.check_room(target.parent, needed_bytes, target.name, "free some space: labkit cache")
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            with _disk_errors(target):
                yield temporary
                _finish(temporary, note)
                temporary.chmod(0o755)  # the temporary folder is private, the finished one need not be
                if target.is_dir():
                    shutil.rmtree(target)  # empty, or to be replaced
                temporary.replace(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def note_of(folder: Path) -> dict[str, Any]:
    """What is noted of a folder's making; empty where nothing is."""
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def same(folder: Path, note: dict[str, Any]) -> bool:
    """Is the folder whole, and made from the same things?"""
    found = note_of(folder)
    whole = all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in found.get("bytes", {}).items())
    return bool(found) and whole and all(found.get(key) == value for key, value in note.items())


def digest(folder: Path) -> str:
    """SHA-256 over the names and checksums of a folder's files, labkit's own note excluded."""
    lines = [f"{models.sha256_of(path)}  {path.name}" for path in _files(folder)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def key_of(note: dict[str, Any]) -> str:
    """Eight characters that stand for a note: part of a cached folder's name."""
    return hashlib.sha256(json.dumps(note, sort_keys=True).encode()).hexdigest()[:8]


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """What a library prints on its way goes nowhere: stdout is for data, and its errors come as exceptions."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """No library of the Hugging Face family reaches for the network in here, nor does a process started in here.

    huggingface_hub reads the environment once, when it is imported: so it is imported first and its own switch is set too.
    Imported in here, it would stay offline for the rest of the process.
    """
    from huggingface_hub import constants

    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    before, switch = {name: os.environ.get(name) for name in names}, constants.HF_HUB_OFFLINE
    os.environ.update(dict.fromkeys(names, "1"))
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = switch
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != NOTE and not path.name.startswith("."))


def _finish(folder: Path, note: dict[str, Any]) -> None:
    for path in _files(folder):
        path.chmod(0o644)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    whole = note | {"made": now(), "bytes": {path.name: path.stat().st_size for path in _files(folder)}}
    (folder / NOTE).write_text(results.dumps(whole) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """A full disk becomes one sentence, whichever library noticed it and however it says so."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        said = " ".join(str(error).split())
        if full or any(
            words in said for words in ("No space left", "File too large", "Disk quota", "Unable to write", "os error 27", "os error 28")
        ):
            raise BadInput(f"the disk is full: {target} was not written", "free some space, or choose another folder") from error
        raise
