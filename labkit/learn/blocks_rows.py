"""What lab 05 reads and measures: weights of a model's file, and what each block format makes of them.

Everything is computed from the weights themselves, so the rows are the same on every machine. Functions take plain values and
return rows (dicts), so that they are tested without a notebook.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from labkit.core.errors import BadInput, nearest
from labkit.core.records import ModelRef
from labkit.models import inspect
from labkit.models.inspect import Gguf, Tensor
from labkit.quant import blocks, tensors

MOST = 1 << 18  # weights read of a tensor: enough for three digits, and quick
SIXTEEN = ("F32", "F16", "BF16")  # a tensor of these types was not quantized


class Weights(NamedTuple):
    """The first weights of a tensor; `values` is float32 [rows, row length]."""

    name: str
    type: str
    values: np.ndarray


def header_of(model: ModelRef) -> Gguf:
    if model.format != "gguf":
        raise BadInput(
            f"{model.name} is a {model.format} folder, this lab reads GGUF files", "-p model stdlib-10m, or the path of a GGUF file"
        )
    return inspect.read(model.path)


def matrices(header: Gguf) -> list[Tensor]:
    """The tensors that are quantized in practice: two dimensions, rows of whole blocks of 32."""
    found = [t for t in header.tensors if len(t.shape) == 2 and t.shape[0] % 32 == 0]
    if not found:
        raise BadInput(f"{header.path} has no matrix with rows of a multiple of 32", "-p model stdlib-10m")
    return found


def layer(header: Gguf) -> list[Tensor]:
    """The matrices of the middle layer, and the embedding."""
    found = matrices(header)
    numbers = sorted({int(t.name.split(".")[1]) for t in found if t.name.startswith("blk.")})
    if not numbers:
        return found[:8]
    prefix = f"blk.{numbers[len(numbers) // 2]}."
    return [t for t in found if t.name.startswith(prefix) or t.name == "token_embd.weight"]


def pick(header: Gguf, name: str = "") -> Tensor:
    """The named tensor; without a name the middle layer's last matrix (`ffn_down`), or the nearest to it."""
    found = {t.name: t for t in matrices(header)}
    if name:
        if name not in found:
            raise BadInput(f"no matrix {name} in this file ({nearest(name, found)})", f"labkit inspect {header.path}")
        return found[name]
    middle = layer(header)
    wide = [t for t in middle if t.shape[0] % 256 == 0] or middle
    return next((t for t in wide if "ffn_down" in t.name), wide[-1])


def read(header: Gguf, tensor: Tensor, most: int = MOST) -> Weights:
    """Decode whole rows of a tensor, at most about `most` weights. Raises BadInput for a type that cannot be decoded."""
    count = max(1, min(tensor.shape[1], most // tensor.shape[0]))
    return Weights(tensor.name, tensor.type, tensors.rows(header.path, tensor, count))


def weights_rows(model: ModelRef, name: str, seed: int) -> list[dict[str, Any]]:
    """One row: what the tensor is, and 256 of its weights that follow one another (which ones depends on the seed)."""
    header = header_of(model)
    tensor = pick(header, name)
    values = read(header, tensor).values
    flat = values.reshape(-1)[: values.size // 256 * 256].reshape(-1, 256)
    chosen = flat[np.random.default_rng(seed).integers(len(flat))]
    return [
        {
            "model": model.name,
            "tensor": tensor.name,
            "type": tensor.type,
            "shape": list(tensor.shape),
            "types": header.types,
            "quantized": tensor.type not in SIXTEEN,
            "rms": float(np.sqrt(np.mean(values.astype(float) ** 2))),
            "largest": float(np.abs(values).max()),
            "weights": [float(v) for v in chosen],
        }
    ]


# -- errors


def round_trip(kind: str, weights: np.ndarray) -> np.ndarray:
    """Encode and decode; the shape of the input."""
    return blocks.decode(kind, blocks.encode(kind, weights)).reshape(weights.shape)


def relative_error(weights: np.ndarray, back: np.ndarray) -> float:
    """RMS of the error over RMS of the weights: 0.1 says that a weight is off by a tenth of a typical weight."""
    size = float(np.mean(np.asarray(weights, float) ** 2))
    return float(np.sqrt(np.mean((np.asarray(weights, float) - back) ** 2) / size)) if size else 0.0


def error_rows(model: ModelRef, only: Sequence[str] = (), most: int = MOST) -> list[dict[str, Any]]:
    """The error of every format that fits, for each matrix of the middle layer whose name contains one of `only` (all, if empty)."""
    header = header_of(model)
    rows = []
    for tensor in layer(header):
        if only and not any(part in tensor.name for part in only):
            continue
        values = read(header, tensor, most).values
        for kind, size in blocks.KINDS.items():
            if tensor.shape[0] % size.block == 0:
                rows.append(
                    {
                        "model": model.name,
                        "tensor": tensor.name,
                        "source": tensor.type,
                        "kind": kind,
                        "bits_per_weight": blocks.bits_per_weight(kind),
                        "relative_error": relative_error(values, round_trip(kind, values)),
                    }
                )
    return rows


def medians(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Median error over the tensors, by format."""
    found: dict[str, list[float]] = {}
    for r in rows:
        found.setdefault(r["kind"], []).append(r["relative_error"])
    return {kind: float(np.median(values)) for kind, values in found.items()}


def ratios(rows: Sequence[dict[str, Any]], above: str = "Q4_0", below: str = "Q8_0") -> dict[str, float]:
    """Error of one format over that of another, by tensor; tensors without loss in the latter are left out."""
    found = {(r["tensor"], r["kind"]): r["relative_error"] for r in rows}
    names = dict.fromkeys(r["tensor"] for r in rows)
    return {name: found[name, above] / found[name, below] for name in names if found.get((name, below), 0) > 0}


def spread_rows(model: ModelRef, name: str, kind: str = "Q4_0", count: int = 600) -> list[dict[str, Any]]:
    """For blocks of 32 (every n-th, `count` of them): the largest magnitude, the RMS error, and the squared error."""
    header = header_of(model)
    values = read(header, pick(header, name)).values.reshape(-1, 32)
    values = values[:: max(1, len(values) // count)][:count]
    error = (values - round_trip(kind, values)).astype(float) ** 2
    return [{"largest": float(np.abs(w).max()), "rms_error": float(np.sqrt(e.mean()))} for w, e in zip(values, error, strict=True)]


def share_of_top(rows: Sequence[dict[str, Any]], part: float = 0.1) -> float:
    """The share of the squared error that sits in the `part` of the blocks with the largest weights."""
    ordered = sorted(rows, key=lambda r: -r["largest"])
    squared = [r["rms_error"] ** 2 for r in ordered]
    return sum(squared[: max(1, round(part * len(squared)))]) / sum(squared)


def size_rows(model: ModelRef, name: str, sizes: Sequence[int] = (8, 16, 32, 64, 128, 256)) -> list[dict[str, Any]]:
    """Q4_0's rule with other block sizes, and with one scale for all: bits per weight and error. No real format but that of 32."""
    header = header_of(model)
    values = read(header, pick(header, name)).values.reshape(-1)
    values = values[: values.size // max(sizes) * max(sizes)]
    rows = []
    for size in (*sizes, values.size):
        x = values.reshape(-1, size)
        largest = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)
        d = (largest / -8).astype(np.float16).astype(np.float32)
        q = np.clip(np.floor(np.divide(x, d, out=np.zeros_like(x), where=d != 0) + 8.5), 0, 15)
        rows.append({"block": size, "bits_per_weight": 4 + 16 / size, "relative_error": relative_error(x, d * (q - 8))})
    return rows


def twice_rows(model: ModelRef, name: str, to: str = "Q4_0", via: Sequence[str] = ("F16", "Q8_0", "Q5_1", "Q4_1")) -> list[dict[str, Any]]:
    """The error of a format that was made from another format's file, against the weights that both came from."""
    header = header_of(model)
    tensor = pick(header, name)
    values = read(header, tensor).values
    errors = {kind: relative_error(values, round_trip(to, round_trip(kind, values))) for kind in via}
    return [{"source": tensor.type, "via": kind, "to": to, "relative_error": error} for kind, error in errors.items()]


# -- llama.cpp's own code


def referee_rows(weights: np.ndarray, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """How many bytes of labkit's codecs differ from what the installed llama.cpp library makes of the same weights."""
    from gguf.constants import GGMLQuantizationType
    from llama_cpp import _ggml

    weights = np.ascontiguousarray(weights, np.float32)
    quantize = _ggml.libggml.ggml_quantize_chunk
    floats = ctypes.POINTER(ctypes.c_float)
    quantize.restype, quantize.argtypes = ctypes.c_size_t, [ctypes.c_int, floats, ctypes.c_void_p, *[ctypes.c_int64] * 3, floats]
    rows = []
    for kind in kinds:
        ours = blocks.encode(kind, weights.reshape(-1))
        theirs = np.zeros_like(ours)
        quantize(GGMLQuantizationType[kind], weights.ctypes.data_as(floats), theirs.ctypes.data, 0, 1, weights.size, None)
        rows.append({"kind": kind, "bytes": int(ours.size), "differing": int((ours != theirs).sum())})
    return rows
