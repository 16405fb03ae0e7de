"""The referee: ggml's own code in the installed llama-cpp-python, through ctypes.

`python tests/quant/ggml.py` writes vectors.npz anew: weights, and what ggml makes of them on this machine (x86-64 only).
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import sys
from pathlib import Path

import numpy as np
from gguf.constants import GGMLQuantizationType

VECTORS = Path(__file__).with_name("vectors.npz")
# compilers for other processors may fuse multiply and add in ggml's code, so bytes there may differ from build to build
LIVE = platform.machine().lower() in {"x86_64", "amd64"}

_floats = ctypes.POINTER(ctypes.c_float)


class _Traits(ctypes.Structure):  # struct ggml_type_traits of ggml.h
    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, _floats, ctypes.c_int64)),
        ("from_float_ref", ctypes.c_void_p),
    ]


def _library() -> ctypes.CDLL:
    folder = Path(importlib.util.find_spec("llama_cpp").origin).parent / "lib"
    (path,) = [p for name in ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll") if (p := folder / name).is_file()]
    library = ctypes.CDLL(str(path))
    library.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
    library.ggml_get_type_traits.argtypes = [ctypes.c_int]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, _floats, ctypes.c_void_p, *[ctypes.c_int64] * 3, _floats]
    return library


_ggml = _library()


def traits(kind: str) -> _Traits:
    return _ggml.ggml_get_type_traits(GGMLQuantizationType[kind]).contents


def encode(kind: str, weights: np.ndarray) -> np.ndarray:
    """ggml_quantize_chunk without an importance matrix: float32 -> uint8, flat."""
    weights = np.ascontiguousarray(weights, np.float32)
    out = np.zeros(weights.size // traits(kind).block * traits(kind).bytes, np.uint8)
    source = weights.ctypes.data_as(_floats)
    written = _ggml.ggml_quantize_chunk(GGMLQuantizationType[kind], source, out.ctypes.data, 0, 1, weights.size, None)
    assert written == out.size
    return out


def decode(kind: str, data: np.ndarray) -> np.ndarray:
    """dequantize_row_*: uint8 -> float32, flat."""
    data = np.ascontiguousarray(data)
    out = np.empty(data.size // traits(kind).bytes * traits(kind).block, np.float32)
    traits(kind).to_float(data.ctypes.data, out.ctypes.data_as(_floats), out.size)
    return out


def write_vectors(rows: int = 3) -> None:
    from weights import families

    from labkit.quant import blocks

    weights = np.concatenate([values for _, values in families(0, rows)])
    found = {"weights": weights}
    for kind in blocks.KINDS:
        found[kind] = encode(kind, weights)
        found[f"{kind} decoded"] = np.frombuffer(decode(kind, found[kind]).tobytes(), np.uint32)[:: 256 // 8]  # every 32nd weight
    np.savez_compressed(VECTORS, **found)


if __name__ == "__main__":
    if not LIVE:
        sys.exit("vectors are written on x86-64")
    write_vectors()
    print(VECTORS, VECTORS.stat().st_size, "bytes")
