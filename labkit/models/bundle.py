"""Carry models, wheels and container images over an air gap: one tar file with a manifest of checksums.

The first member, MANIFEST.json, names every other one with its size and sha256; behind the end of the tar, where tar reads no more,
stands the sha256 of all of it, manifest and padding included. Unpacking reads the whole file into a folder
beside the target, checks every byte, and only then moves anything into place. A checksum finds damage, not forgery:
compare the bundle's own sha256, which `pack` returns, by another way (a phone call, a signed mail).

>>> pack(["smollm2-135m"], Path("course.tar"))  # doctest: +SKIP
>>> unpack(Path("course.tar"))  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import Field, ValidationError

from labkit import models
from labkit.core import paths
from labkit.core.errors import BadInput
from labkit.core.records import Record, now
from labkit.models import pulled, safety
from labkit.models.pulled import Manifest, PulledFile
from labkit.models.streams import Watched, bar_of, check_room, hash_of

MANIFEST = "MANIFEST.json"
_BLOCK = 1 << 20
_MANIFEST_LIMIT = 32 << 20
_SEAL = b"labkit sha256:"  # then 64 hex digits, the last bytes of the file
_IMAGES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".oci")


class Member(Record):
    """One file of a bundle."""

    path: str
    kind: Literal["model", "wheel", "image"]
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Contents(Record):
    """What MANIFEST.json says. `models`: each folder under models/, with its licence and the name it is kept under."""

    bundle: Literal[1] = 1
    made: str
    labkit: str
    models: dict[str, Manifest]
    members: tuple[Member, ...]


def pack(names: Sequence[str], out: Path, wheels: Path | None = None, images: Sequence[Path] = ()) -> dict[str, Any]:
    """Write a bundle; its path, sha256, bytes and the licences of its models.

    names: catalogue names, names of pulled models, or paths of GGUF files. wheels: a folder of .whl (and .tar.gz) files.
    images: container image archives, as `podman save` or `docker save` write them.
    Raises BadInput for an unknown name, an empty folder of wheels, a file that is there already, or too little room.
    """
    if out.exists():
        raise BadInput(f"{out} is there already", "choose another --out, or delete it first")
    files, described = _collect(names, wheels, images)
    if not files:
        raise BadInput("there is nothing to bundle", "labkit models bundle NAME… --out FILE.tar")
    out.parent.mkdir(parents=True, exist_ok=True)
    size = sum(path.stat().st_size for path, _ in files.values())
    check_room(out.parent, size)
    members = []
    with bar_of(3 * size, "bundle") as bar:
        for inside, (path, kind) in sorted(files.items()):
            members.append(Member(path=inside, kind=kind, bytes=path.stat().st_size, sha256=hash_of(path.open("rb"), bar).hexdigest()))
        contents = Contents(made=now(), labkit=importlib.metadata.version("labkit"), models=described, members=tuple(members))
        with paths.atomic_path(out) as temporary:
            with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
                _add(archive, MANIFEST, io.BytesIO(contents.model_dump_json(indent=1).encode()), bar)
                for member in members:
                    with files[member.path][0].open("rb") as file:
                        _add(archive, member.path, file, bar, member)
            whole = hash_of(temporary.open("rb"), bar)
            seal = _SEAL + whole.hexdigest().encode()
            with temporary.open("ab") as file:
                file.write(seal)
            whole.update(seal)
    licences = sorted({manifest.licence or "none stated" for manifest in described.values()})
    return {"path": str(out), "sha256": whole.hexdigest(), "bytes": out.stat().st_size, "licence": ", ".join(licences) or None}


def unpack(bundle: Path, into: Path | None = None) -> list[dict[str, Any]]:
    """Check a bundle whole, then put it into place; a row for each model, wheel and image: path, sha256, bytes, licence.

    into: a folder for everything (models/, wheels/, images/). Without it models go into the cache, where their names work at once,
    and the rest into the cache's folder bundles/.
    Raises BadInput, naming the member, where anything in it is not as its manifest says; nothing is then left behind.
    """
    contents = read(bundle)
    target = into or paths.cache("models")
    target.mkdir(parents=True, exist_ok=True)
    check_room(target, sum(member.bytes for member in contents.members))
    with tempfile.TemporaryDirectory(dir=target, prefix=".unbundle-") as folder:
        _extract_checked(bundle, contents, Path(folder))
        for member in contents.members:
            if member.kind == "model":
                _named(lambda at=Path(folder) / member.path: safety.check_content(at), member.path)
        return _place(contents, Path(folder), into)


def read(bundle: Path) -> Contents:
    """The manifest of a bundle, checked for names that would leave their folder. Raises BadInput."""
    if not bundle.is_file():
        raise BadInput(f"no file {bundle}", "labkit models unbundle FILE.tar")
    try:
        with tarfile.open(bundle, "r:") as archive:
            first = archive.next()
            file = archive.extractfile(first) if first and first.name == MANIFEST and first.isreg() else None
            if file is None or first is None or first.size > _MANIFEST_LIMIT:
                raise BadInput(f"{bundle.name} is no bundle: its first member is not {MANIFEST}", "make it with: labkit models bundle")
            contents = Contents.model_validate_json(file.read())
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(f"{bundle.name} is no tar file, or is cut off ({error})", "copy it again") from None
    except (ValidationError, ValueError) as error:
        raise BadInput(f"{MANIFEST} in {bundle.name} cannot be read ({type(error).__name__})", "copy the bundle again") from None
    for member in contents.members:
        _named(lambda path=member.path: safety.check_name(path), member.path)
        top = member.path.split("/")[0]
        if top != {"model": "models", "wheel": "wheels", "image": "images"}[member.kind]:
            raise BadInput(f"{member.path} in {bundle.name} is in no folder of a bundle", "make the bundle again")
    for slug, manifest in contents.models.items():
        if slug != pulled.folder_of(manifest.name, "bundle").parent.name:
            raise BadInput(f"{slug!r} in {bundle.name} is no model's folder", "make the bundle again")
    if len({member.path.lower() for member in contents.members}) != len(contents.members):
        raise BadInput(f"{bundle.name} names a member twice", "make the bundle again")
    return contents


# -- packing


def _collect(names: Sequence[str], wheels: Path | None, images: Sequence[Path]) -> tuple[dict[str, tuple[Path, Any]], dict[str, Manifest]]:
    """Path in the bundle -> (file, kind); and what is known of each model."""
    files: dict[str, tuple[Path, Any]] = {}
    described: dict[str, Manifest] = {}
    for name in names:
        folder, manifest = _model(name)
        slug = pulled.folder_of(manifest.name, "bundle").parent.name
        described[slug] = manifest
        files |= {f"models/{slug}/{one.path}": (folder / one.path, "model") for one in manifest.files}
    if wheels is not None:
        found = [path for path in sorted(wheels.glob("*")) if path.name.endswith((".whl", ".tar.gz"))]
        if not found:
            cause = f"{wheels} holds no wheels"
            raise BadInput(cause, f"fill it: pip download -r requirements.txt -d {wheels}")
        files |= {f"wheels/{path.name}": (path, "wheel") for path in found}
    for image in images:
        if not image.is_file() or not image.name.endswith(_IMAGES):
            raise BadInput(f"{image} is no image archive", f"podman save -o {image.stem}.tar IMAGE")
        files[f"images/{image.name}"] = (image, "image")
    return files, described


def _model(name: str) -> tuple[Path, Manifest]:
    """A model's folder and its manifest: the one it was pulled with, or one made of what is here."""
    ref = models.resolve(name)
    found = pulled.find(name)
    if found and ref.path.is_relative_to(found[0]):
        return found[0], found[1].model_copy(update={"source": "bundle"})
    root = ref.path if ref.path.is_dir() else ref.path.parent
    inside = (
        [ref.path]
        if ref.path.is_file()
        else [p for p in sorted(root.rglob("*")) if p.is_file() and safety.judge(p.name) in ("weights", "text")]
    )
    files = []
    for path in inside:
        safety.check_content(path)
        about = {"path": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": models.sha256_of(path)}
        files.append(PulledFile(**about, verified_by="nothing"))
    return root, Manifest(
        name=ref.name,
        source="bundle",
        origin=name if name == ref.name else root.name,
        revision="",
        licence=ref.licence,
        licence_url="",
        files=tuple(files),
    )


def _add(archive: tarfile.TarFile, name: str, file: IO[bytes], bar: Any, member: Member | None = None) -> None:
    """A plain member: no owner, no time, so that the same contents give the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = member.bytes if member else len(file.getbuffer()) if isinstance(file, io.BytesIO) else 0
    info.mode = 0o644
    archive.addfile(info, Watched(file, bar))


# -- unpacking


def _extract_checked(bundle: Path, contents: Contents, folder: Path) -> None:
    """Every member into the folder, its bytes hashed on the way; refused at the first that is not as the manifest says."""
    wanted = {member.path: member for member in contents.members}
    try:
        with tarfile.open(bundle, "r:") as archive, bar_of(sum(m.bytes for m in contents.members), "unbundle") as bar:
            for info in _after_first(archive):
                member = wanted.pop(info.name, None)
                if member is None or not info.isreg():
                    raise BadInput(f"{bundle.name} holds {info.name!r}, which its manifest does not name", "copy the bundle again")
                safe = tarfile.data_filter(info, str(folder))  # raises for anything that would leave the folder
                target = folder / safe.name
                target.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(info)
                if source is None or info.size != member.bytes:
                    raise BadInput(f"{info.name} in {bundle.name} has {info.size} bytes, not {member.bytes}", "copy the bundle again")
                with target.open("wb") as file:
                    found = hash_of(source, bar, file).hexdigest()
                if found != member.sha256:
                    raise BadInput(f"{info.name} in {bundle.name} is damaged: its sha256 is not the manifest's", "copy the bundle again")
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(f"{bundle.name} is damaged or cut off ({error})", "copy the bundle again") from None
    if wanted:
        raise BadInput(f"{next(iter(wanted))} is missing from {bundle.name}", "copy the bundle again")
    _check_seal(bundle)


def _check_seal(bundle: Path) -> None:
    """Every byte of the file, also those that belong to no member's content."""
    length = len(_SEAL) + 64
    found, left = hashlib.sha256(), bundle.stat().st_size - length
    with bundle.open("rb") as file:
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            found.update(block)
            left -= len(block)
        if file.read() != _SEAL + found.hexdigest().encode():
            raise BadInput(f"{bundle.name} was changed in {MANIFEST} or between its members, or is cut off", "copy the bundle again")


def _place(contents: Contents, folder: Path, into: Path | None) -> list[dict[str, Any]]:
    """Move what was checked to where it belongs; a folder that is there already is replaced in one step each."""
    rows = []
    for slug, manifest in sorted(contents.models.items()):
        stated = {f"models/{slug}/{one.path}": one.sha256 for one in manifest.files}
        if stated != {m.path: m.sha256 for m in contents.members if m.path.startswith(f"models/{slug}/")}:
            raise BadInput(f"the manifest's two lists of {slug} differ", "make the bundle again")
    for slug, manifest in sorted(contents.models.items()):
        target = into / "models" / slug if into else pulled.folder_of(manifest.name, "bundle")
        pulled.write(folder / "models" / slug, manifest)
        _replace(folder / "models" / slug, target)
        path = pulled.main_file(target, manifest)
        rows.append({"path": str(path), "sha256": pulled.sha256_of(manifest), "bytes": manifest.bytes, "licence": manifest.licence})
    rest = into or paths.cache("bundles")
    for member in contents.members:
        if member.kind != "model":
            target = rest / member.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / member.path, target)
            rows.append({"path": str(target), "sha256": member.sha256, "bytes": member.bytes, "licence": None})
    return rows


def _replace(fresh: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    old = fresh.with_name(fresh.name + ".old")  # on the same disk, gone with the temporary folder
    if target.exists():
        target.replace(old)
    fresh.replace(target)


def _after_first(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    archive.next()
    while (info := archive.next()) is not None:
        yield info


def _named(check: Any, path: str) -> None:
    try:
        check()
    except BadInput as error:
        raise BadInput(f"{path}: {error.cause}", "take another bundle") from None
