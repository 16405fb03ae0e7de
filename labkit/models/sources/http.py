"""One file over HTTP: kept when the connection breaks, resumed where it stopped, and verified before it gets its name.

The bytes go to `<file>.part`; `<file>.part.tag` keeps the server's ETag, so that the rest of another version is never
appended. With the last byte the checksum is computed, and only then does the file get its name.
(huggingface_hub 2 throws a partial file away when its process ends, and azure-ai-ml keeps none: hence our own.)

>>> fetch("http://127.0.0.1:8000/model.gguf", Path("model.gguf"), size=1000, digest="sha256:9f86…")
'sha256'
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
from tqdm.auto import tqdm

from labkit.core.errors import BadInput, RunFailed
from labkit.models import streams

ATTEMPTS = 3  # in a row that bring no byte
_PAUSE_S = 0.5
_QUIET_BYTES = 4 << 20  # below this a progress bar would only flicker
_AGAIN = "type the same command again: it goes on where it stopped"


def fetch(
    url: str,
    target: Path,
    size: int | None = None,
    digest: str | None = None,
    headers: Mapping[str, str] | None = None,
    attempts: int = ATTEMPTS,
) -> str:
    """Get a file; "sha256", "md5" or "git-sha1" where the source stated one and it agrees, else "size" or "nothing".

    digest: "kind:hex". A file that is here already and agrees is not fetched again.
    Raises:
        BadInput: no room on the disk, or the server refuses (it says why).
        RunFailed: the connection broke `attempts` times in a row without a byte (the part is kept), or the checksum is
            another one (the file is deleted).
    """
    part = target.with_name(target.name + ".part")
    if target.is_file() and _agrees(target, size, digest):
        return _verified(size, digest)
    target.parent.mkdir(parents=True, exist_ok=True)
    done, failures = _size(part), 0
    with tqdm(
        total=size, initial=done, unit="B", unit_scale=True, desc=target.name[-40:], leave=False, disable=(size or 0) < _QUIET_BYTES
    ) as bar:
        while True:
            try:
                size = _get(url, part, size, dict(headers or {}), bar)
                break
            except (httpx.TransportError, httpx.StreamError) as error:
                failures = 0 if _size(part) > done else failures + 1
                done = _size(part)
                if failures >= attempts:
                    cause = f"the connection to {httpx.URL(url).host} broke at byte {done} of {size or '?'} ({type(error).__name__})"
                    raise RunFailed(cause, _AGAIN) from None
                time.sleep(_PAUSE_S * failures)
    if not _agrees(part, size, digest):
        _forget(part)
        what = f"{digest.partition(':')[0]} is not the one that the source states" if digest else f"it should have {size} bytes"
        raise RunFailed(f"{target.name} arrived damaged: its {what}; it was deleted", "type the same command again")
    part.replace(target)
    _forget(part)
    return _verified(size, digest)


def digest_of(path: Path, kind: str) -> str:
    """Hex digest of a file: sha256, md5, or git-sha1 (the id git gives a file: its size in front of the content)."""
    found = hashlib.new({"git-sha1": "sha1"}.get(kind, kind), usedforsecurity=False)
    if kind == "git-sha1":
        found.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: found).hexdigest()


def check_room(folder: Path, files: Mapping[str, int | None]) -> None:
    """Raises BadInput where the folder's disk has no room for what is still missing of some files (path -> bytes)."""
    here = {path: max(_size(folder / path), _size(folder / f"{path}.part")) for path in files}
    wanted = sum(max(0, (size or 0) - here[path]) for path, size in files.items())
    streams.check_room(folder, wanted, "labkit cache --clean")


def _get(url: str, part: Path, size: int | None, headers: dict[str, str], bar: tqdm) -> int | None:
    """One request for the rest; returns the whole file's size as far as it is known."""
    done, tag = _size(part), part.with_name(part.name + ".tag")
    if size is not None and done >= size:
        return size
    if done and tag.is_file():
        headers |= {"Range": f"bytes={done}-", "If-Range": tag.read_text(encoding="utf-8")}
    elif done:
        part.unlink()  # without an ETag nobody knows what it was a part of
    headers["Accept-Encoding"] = "identity"
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as reply:
        if reply.status_code >= 400:
            raise BadInput(f"{httpx.URL(url).host} answers {reply.status_code} for {part.name.removesuffix('.part')}", _AGAIN)
        if reply.status_code != 206:
            part.unlink(missing_ok=True)  # the server sends it all, or another version
            bar.reset(total=size)
        _remember(tag, reply)
        length = reply.headers.get("content-length")
        total = size if length is None else _size(part) + int(length)
        with part.open("ab", buffering=0) as file:  # a process that is killed loses nothing that has arrived
            for block in reply.iter_raw():
                file.write(block)
                bar.update(len(block))
    if total is not None and _size(part) < total:
        raise httpx.RemoteProtocolError("the reply ended early")
    return total


def _remember(tag: Path, reply: httpx.Response) -> None:
    etag = reply.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        tag.write_text(etag, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)


def _agrees(path: Path, size: int | None, digest: str | None) -> bool:
    if size is not None and path.stat().st_size != size:
        return False
    if digest is None:
        return True
    kind, _, wanted = digest.partition(":")
    return digest_of(path, kind) == wanted.lower()


def _verified(size: int | None, digest: str | None) -> str:
    return digest.partition(":")[0] if digest else "size" if size is not None else "nothing"


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".tag").unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
