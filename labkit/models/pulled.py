"""Models that were fetched to this machine: where they lie, and what is known of each.

<cache>/models/<name>/<source>/labkit.json is written last: without it a folder is a half-finished download.

>>> find("Qwen/Qwen3-0.6B-GGUF")  # doctest: +SKIP
Pulled(name='Qwen/Qwen3-0.6B-GGUF', source='hub', …)
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from labkit.core import paths, results
from labkit.core.errors import BadInput
from labkit.core.records import ModelRef, Record
from labkit.models import formats, safety

MANIFEST = "labkit.json"
SOURCES = ("hub", "foundry", "azure", "bundle")  # in this order, where a model came from several


class PulledFile(Record):
    """One file: `verified_by` is sha256, md5, git-sha1, size or nothing: what its source stated and it was compared with."""

    path: str
    bytes: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    verified_by: str


class Manifest(Record):
    """What labkit.json says."""

    name: str
    source: str
    origin: str  # as the source calls it
    revision: str
    licence: str | None
    licence_url: str
    files: tuple[PulledFile, ...]

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.files)


def folder_of(name: str, source: str) -> Path:
    """Where a model of that name from that source belongs. Raises BadInput for a name that cannot be a folder's."""
    slug = name.replace("/", "--").replace(":", "-")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", slug) or ".." in slug:
        raise BadInput(f"{name!r} is no model's name", "labkit models")
    return paths.cache("models") / slug.lower() / source


def lock_of(name: str, source: str) -> Path:
    """The file that keeps two processes from fetching the same model at once."""
    return paths.cache("models", ".locks") / f"{folder_of(name, source).parent.name}.{source}.lock"


def find(name: str) -> tuple[Path, Manifest] | None:
    """The folder and manifest of a finished model, or None."""
    try:
        folders = [folder_of(name, source) for source in SOURCES]
    except BadInput:
        return None
    return next(((folder, manifest) for folder in folders if (manifest := read(folder))), None)


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder whose files are all there in their sizes, or None."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
    here = all((folder / one.path).is_file() and (folder / one.path).stat().st_size == one.bytes for one in manifest.files)
    return manifest if here else None


def write(folder: Path, manifest: Manifest) -> None:
    with paths.atomic(folder / MANIFEST, "w") as file:
        file.write(manifest.model_dump_json(indent=1) + "\n")


def main_file(folder: Path, manifest: Manifest) -> Path:
    """What an engine loads: the only GGUF file, else the folder (of the marker file, for ONNX in a subfolder)."""
    ggufs = [one.path for one in manifest.files if one.path.endswith(".gguf")]
    if ggufs:
        return folder / sorted(ggufs)[0]  # of a model split into parts the first one
    for marker in formats.MARKERS:
        at = next((one.path for one in manifest.files if Path(one.path).name == marker), None)
        if at:
            return (folder / at).parent
    return folder


def sha256_of(manifest: Manifest) -> str:
    """The file's sha256; of several files the sha256 of the lines "sha256  path", sorted by path, as sha256sum writes them."""
    if len(manifest.files) == 1:
        return manifest.files[0].sha256
    weights = [one for one in manifest.files if safety.judge(one.path) == "weights"]
    if len(weights) == 1 and weights[0].path.endswith(".gguf"):
        return weights[0].sha256
    lines = "".join(f"{one.sha256}  {one.path}\n" for one in sorted(manifest.files, key=lambda one: one.path))
    return hashlib.sha256(lines.encode()).hexdigest()


def ref(name: str) -> ModelRef | None:
    """A finished model as engines load it, or None."""
    found = find(name)
    if found is None:
        return None
    folder, manifest = found
    path = main_file(folder, manifest)
    kind = "gguf" if path.is_file() else formats.of_folder(path) or "onnx"
    return ModelRef(name=name, path=path, format=kind, sha256=sha256_of(manifest), licence=manifest.licence)


def remove(name: str) -> list[dict[str, Any]]:
    """Delete what was fetched under a name, half-finished files too; what went."""
    gone = []
    for source in SOURCES:
        folder = folder_of(name, source)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        gone += [{"path": str(path), "bytes": path.stat().st_size} for path in files]
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.is_dir() and not any(folder.parent.iterdir()):
            folder.parent.rmdir()
    return gone


# -- licences: accepted once, remembered


def accepted(key: str) -> bool:
    """Whether a licence of a model was accepted on this machine."""
    return key in _licences()


def note_accepted(key: str, licence: str) -> None:
    with paths.atomic(_licences_file(), "w") as file:
        file.write(results.dumps({**_licences(), key: licence}))


def _licences_file() -> Path:
    return paths.cache("models") / "licences.json"


def _licences() -> dict[str, str]:
    try:
        found = json.loads(_licences_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing was accepted yet, or the file is broken: ask again
    return found if isinstance(found, dict) else {}
