"""A model for Apple silicon: GGUF -> Hugging Face folder -> MLX folder, and what is in such a folder.

`convert` needs the extra `mlx` (macOS and Linux). `inspect` and `tensor` read the files with NumPy alone, on any machine.
Limits: mlx-lm must know the architecture; a matrix whose rows do not divide into groups stays unquantized.

>>> ref = convert(models.resolve("stdlib-10m"), bits=4, group_size=64)
>>> inspect(ref.path).bits_per_weight
4.506…
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from labkit.core import extras, paths
from labkit.core.errors import BadInput, LabkitError, MissingPart
from labkit.core.records import ModelRef, Record
from labkit.models import safety
from labkit.models.inspect import Sizes
from labkit.quant import affine, folders, hf

_VERSION = 1  # of what this module writes: a change makes cached folders anew
# safetensors' names of types -> NumPy's; BF16 is read as 16-bit words and widened
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U32": "<u4", "U16": "<u2", "U8": "u1", "I32": "<i4", "F64": "<f8", "I64": "<i8"}
# part of a tensor's name -> what the course calls it
_KINDS = {"embed_tokens": "embedding", "lm_head": "output", "self_attn": "attention", "mlp": "feed-forward", "norm": "norm"}


def missing() -> str | None:
    """None, or one sentence that ends with what to do."""
    if sys.platform == "win32":
        return "MLX is not made for Windows; use WSL, a Linux or a Mac, and there: uv sync --inexact --extra mlx"
    return extras.missing("mlx")


def require() -> None:
    """Raises MissingPart where MLX cannot be used."""
    if said := missing():
        cause, _, command = said.rpartition(": ")
        raise MissingPart(cause, command)


def convert(ref: ModelRef, bits: int | None = 4, group_size: int = 64, out: Path | None = None, dtype: str = "float16") -> ModelRef:
    """Convert a GGUF model or a Hugging Face folder to an MLX folder, once.

    bits: 2, 3, 4, 5, 6 or 8; None leaves the weights unquantized. dtype: of what stays unquantized and of the scales
    and biases: float16, bfloat16 or float32. mlx-lm's own default is the type of the weights that it reads, float32 here,
    which would make each scale and bias twice as large (5.0 instead of 4.5 bits per weight at 4 bits in groups of 64).
    Raises:
        MissingPart: MLX is not installed, or not made for this system.
        BadInput: mlx-lm does not know the model, the numbers are not MLX's, or the disk is full.
    """
    require()
    if bits is not None:
        affine.check(bits, group_size)
    if dtype not in ("float16", "bfloat16", "float32"):
        raise BadInput(f"MLX converts to float16, bfloat16 or float32, not {dtype!r}", 'dtype="float16"')
    source = hf.to_hf(ref)
    note = _note(source, bits, group_size, dtype)
    kind = f"{bits}bit-g{group_size}" if bits else dtype
    target = out or paths.cache("mlx") / f"{ref.name}-{kind}-{folders.key_of(note)}"
    size = sum(path.stat().st_size for path in source.path.glob("*.safetensors"))
    with folders.made(target, needed_bytes=int(size * (bits or 16) / 16) + 20_000_000, note=note, replace=out is None) as folder:
        if folder:
            _run(source, folder, bits, group_size, dtype)
    name = f"{ref.name}-mlx-{kind}"
    return ModelRef(name=name, path=target.resolve(), format="mlx", sha256=folders.digest(target), licence=ref.licence)


def _note(source: ModelRef, bits: int | None, group_size: int, dtype: str) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("mlx", "mlx-lm")}
    how = {"bits": bits, "group_size": group_size if bits else None, "dtype": dtype}
    before = folders.note_of(source.path)
    came = {"source": source.name, "source_sha256": before.get("source_sha256"), "hf_sha256": source.sha256 or folders.digest(source.path)}
    return {"kind": "mlx", "version": _VERSION, **how, **came, "versions": versions}


def _run(source: ModelRef, folder: Path, bits: int | None, group_size: int, dtype: str) -> None:
    with folders.offline(), folders.quiet_stdout(), library() as mlx_lm:
        how: dict[str, Any] = {"quantize": True, "q_bits": bits, "q_group_size": group_size} if bits else {}
        folder.rmdir()  # mlx-lm wants to make it itself
        try:
            mlx_lm.convert(str(source.path), str(folder), dtype=dtype, **how)
        except (LabkitError, OSError):
            raise
        except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
            said = " ".join(str(error).split())[:200]
            raise BadInput(
                f"mlx-lm {importlib.metadata.version('mlx-lm')} cannot convert {source.name}: {said}", "labkit models"
            ) from error


@contextlib.contextmanager
def library() -> Iterator[Any]:
    """The module mlx_lm. Importing it lowers how many files this process may have open, for good: not here."""
    import resource

    keep = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        import mlx_lm
    finally:
        resource.setrlimit = keep
    yield mlx_lm


# -- what is in a folder


class Tensor(Record):
    """One tensor of the model, with the scales and biases that belong to it. `shape` as the model uses it."""

    name: str
    kind: str = Field(description="embedding, output, attention, feed-forward, norm or other")
    type: str = Field(description="such as 'affine 4 bit, groups of 64', or float16")
    shape: tuple[int, ...]
    weight_bytes: int
    scales_bytes: int = 0
    biases_bytes: int = 0

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.scales_bytes + self.biases_bytes

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.elements


class Folder(Sizes):
    """An MLX folder's tensors."""

    path: Path
    quantization: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @cached_property
    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of the codes, the scales, the biases, and of what stayed unquantized."""
        packed = [t for t in self.tensors if t.scales_bytes]
        return {
            "codes": sum(t.weight_bytes for t in packed),
            "scales": sum(t.scales_bytes for t in packed),
            "biases": sum(t.biases_bytes for t in packed),
            "unquantized": sum(t.weight_bytes for t in self.tensors if not t.scales_bytes),
        }

    @cached_property
    def bytes_by_kind(self) -> dict[str, int]:
        """Bytes by what a tensor does, largest first."""
        count: Counter[str] = Counter()
        for tensor in self.tensors:
            count[tensor.kind] += tensor.bytes
        return dict(count.most_common())


def inspect(folder: Path) -> Folder:
    """What is in an MLX folder, from the headers of its files. Raises BadInput for a folder or file that is no such thing."""
    entries = _entries(folder)
    try:
        quantization = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization") or {}
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder} has no readable config.json", "convert the model again") from error
    tensors = []
    for name, entry in entries.items():
        stem, _, last = name.rpartition(".")
        if last in ("scales", "biases") and f"{stem}.weight" in entries:
            continue
        parts = {part: entries.get(f"{stem}.{part}") for part in ("scales", "biases")}
        tensors.append(_tensor(name, entry, parts if last == "weight" else {}, quantization.get(stem) or quantization))
    return Folder(path=folder, quantization=quantization, tensors=tuple(tensors))


def tensor(folder: Path, name: str) -> NDArray[Any]:
    """One tensor as it is stored, such as `model.embed_tokens.scales`; BF16 is widened to float32."""
    entries = _entries(folder)
    if name not in entries:
        raise BadInput(f"{folder} has no tensor {name!r}", f"it has: {', '.join(list(entries)[:3])}, …")
    entry = entries[name]
    count = math.prod(entry["shape"])
    found = np.fromfile(entry["file"], _TYPES[entry["dtype"]], count, offset=entry["start"]).reshape(entry["shape"])
    return (found.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else found


def _tensor(name: str, entry: dict[str, Any], parts: dict[str, Any], how: dict[str, Any]) -> Tensor:
    shape, scales = tuple(entry["shape"]), parts.get("scales")
    kind = next((word for part, word in _KINDS.items() if part in name), "other")
    if not scales:
        type_ = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}.get(entry["dtype"], entry["dtype"].lower())
        return Tensor(name=name, kind=kind, type=type_, shape=shape, weight_bytes=entry["bytes"])
    mode, bits = how.get("mode", "affine"), int(how["bits"])
    return Tensor(
        name=name,
        kind=kind,
        type=f"{mode} {bits} bit, groups of {how['group_size']}",
        shape=(*shape[:-1], shape[-1] * 32 // bits),
        weight_bytes=entry["bytes"],
        scales_bytes=scales["bytes"],
        biases_bytes=parts["biases"]["bytes"] if parts.get("biases") else 0,
    )


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> dtype, shape, bytes, file and offset of every tensor: the JSON header of each safetensors file."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise BadInput(f"{folder} holds no model*.safetensors", "give a folder that mlx-lm made")
    found: dict[str, dict[str, Any]] = {}
    for path in files:
        size = path.stat().st_size
        header, start = safety.read_safetensors(path)
        for name, entry in header.items():
            if name != "__metadata__":
                found[name] = _entry(path, name, entry, start, size)
    return found


def _entry(path: Path, name: str, entry: dict[str, Any], start: int, size: int) -> dict[str, Any]:
    try:
        kind, shape, (first, last) = entry["dtype"], [int(n) for n in entry["shape"]], entry["data_offsets"]
        whole = 0 <= first <= last <= size - start
        whole &= kind not in _TYPES or last - first == np.dtype(_TYPES[kind]).itemsize * math.prod(shape)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise BadInput(f"{path} is cut off or broken: tensor {name[:60]!r} does not lie inside it", "convert the model again")
    return {"dtype": kind, "shape": shape, "bytes": last - first, "file": path, "start": start + first}
