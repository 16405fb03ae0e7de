"""What labkit keeps on this machine: weights checked by their checksum, shape-true files, and the cache's size."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from labkit import models
from labkit.core import paths
from labkit.core.errors import BadInput, nearest
from labkit.models import catalog, inspect, pulled


def listing() -> list[dict[str, Any]]:
    """The catalogue, with where the weights are on this machine (None: not here)."""
    rows = []
    for model in catalog.load().values():
        where = models.known_path(model.name)
        rows.append(
            {
                "name": model.name,
                "family": model.family,
                "kind": model.kind,
                "size_class": model.size_class,
                "parameters": model.parameters,
                "active_parameters": model.active_parameters,
                "context": model.context,
                "licence": model.licence,
                "source": model.source,
                "checked": model.checked.isoformat(),
                "path": str(where) if where else None,
            }
        )
    return rows


def verify(name_or_path: str) -> dict[str, Any]:
    """Is the file whole, and the one that was published? `ok` and `why` in one sentence."""
    ref = models.resolve(name_or_path) if not Path(name_or_path).is_file() else None
    path = ref.path if ref else Path(name_or_path).resolve()
    try:
        inspect.read(path)
    except BadInput as error:
        return {"path": str(path), "sha256": models.sha256_of(path), "ok": False, "why": error.cause}
    digest, (expected, origin) = models.sha256_of(path), _expected(path)
    if expected is None:
        return {"path": str(path), "sha256": digest, "ok": True, "why": "whole; nobody published a checksum for it here"}
    same = digest == expected
    why = f"sha256 is the one in {origin}" if same else f"sha256 {digest[:12]}… does not match {expected[:12]}… in {origin}"
    return {"path": str(path), "sha256": digest, "ok": same, "why": why}


def _expected(path: Path) -> tuple[str | None, str]:
    """The published checksum: a `.sha256` file beside it, or the catalogue's for a file of this name."""
    beside = path.with_name(path.name + ".sha256")
    if beside.is_file():
        return beside.read_text(encoding="utf-8").split()[0].lower(), beside.name
    for model in catalog.load().values():
        shipped = model.shipped
        if shipped and path.name == Path(shipped.file).name:
            return shipped.sha256, "data/models.toml"
    return None, ""


def remove(name: str) -> list[dict[str, Any]]:
    """Delete what the cache holds of a model: its shape-true files, and what was fetched under its name; what went.

    Raises BadInput where there is nothing; the nearest name is suggested.
    """
    gone = pulled.remove(name)
    for path in sorted(paths.cache("shapes").glob(f"{name.lower().replace('/', '--')}-shape-*.gguf")):
        gone.append({"path": str(path), "bytes": path.stat().st_size})
        path.unlink()
    if not gone:
        held = [p.name for p in paths.cache("shapes").glob("*.gguf")]
        held += [p.name for p in paths.cache("models").iterdir() if p.is_dir() and not p.name.startswith(".")]
        known = nearest(name, held) if held else "it is empty"
        raise BadInput(f"no file of {name} in the cache ({known})", "labkit cache")
    return gone


def cache(clean: bool = False) -> list[dict[str, Any]]:
    """Sizes of the cache by kind; with `clean`, everything in it is deleted first."""
    rows = []
    root = paths.cache()
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        files = [p for p in folder.rglob("*") if p.is_file()]
        size = sum(p.stat().st_size for p in files)
        if clean:
            shutil.rmtree(folder)
        rows.append({"kind": folder.name, "files": len(files), "bytes": size, "path": str(folder), "deleted": clean})
    return rows
