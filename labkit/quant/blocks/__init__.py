"""Block formats in NumPy alone: encode float32 weights as llama.cpp stores them, and decode them again.

Bit-exact with ggml's reference code (`ggml_quantize_chunk` without an importance matrix) of llama-cpp-python 0.3.36 on x86-64,
whose base library is compiled without fused multiply-add. Compilers for other processors may fuse; stored vectors in the
tests hold there. Layouts, byte by byte, are in the docstrings of `plain` (16-bit, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1),
`kquants` (Q4_K, Q6_K) and `trits` (TQ1_0, TQ2_0).

Limits: little-endian bytes, as in a GGUF file; no importance matrix; NaN and infinity have a code only in F16 and BF16.
Work is done a few hundred kilobytes at a time, so memory beyond input and output stays at some megabytes.

>>> weights = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
>>> data = encode("Q4_0", weights)
>>> data.shape, bits_per_weight("Q4_0")
((4, 36), 4.5)
>>> float(np.abs(decode("Q4_0", data) - weights.ravel()).max()) < 0.3
True
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from labkit.core.errors import BadInput, nearest
from labkit.quant.blocks import kquants, plain, trits

_CHUNK = 1 << 16  # weights at a time: what a step touches stays in the processor's cache


class Kind(NamedTuple):
    """A format: `block` weights are stored together in `bytes` bytes."""

    block: int
    bytes: int


_CODECS: dict[str, tuple[int, int, Any, Any]] = {**plain.CODECS, **kquants.CODECS, **trits.CODECS}
KINDS: dict[str, Kind] = {name: Kind(block, size) for name, (block, size, _, _) in _CODECS.items()}
_16_BIT = ("F16", "BF16")  # these have codes for NaN and infinity


def bits_per_weight(kind: str) -> float:
    """Stored bits for one weight, scales included: 8 * bytes / block. Raises BadInput for an unknown kind."""
    found = _kind(kind)
    return 8 * found.bytes / found.block


def encode(kind: str, weights: np.ndarray) -> np.ndarray:
    """float32 [..., n] -> uint8 [..., n / block * bytes]; n is a multiple of the kind's block.

    Raises:
        BadInput: unknown kind; another dtype than float32; n no multiple of the block; NaN or infinity in a block format
            (ggml does not look: one such weight spoils its whole block, and llama.cpp's quantizer rejects the tensor afterwards).
    """
    block, size = _kind(kind)
    if not isinstance(weights, np.ndarray) or weights.dtype != np.float32:
        given = weights.dtype if isinstance(weights, np.ndarray) else type(weights).__name__
        raise BadInput(f"weights are {given}, encoding takes a float32 array", "np.asarray(weights, np.float32)")
    if weights.ndim == 0 or weights.shape[-1] % block:
        raise BadInput(
            f"rows of {weights.shape[-1] if weights.ndim else 'no'} weights do not divide into {kind}'s blocks of {block}",
            "pad the rows, or take a kind with a smaller block: " + ", ".join(k for k, v in KINDS.items() if v.block < block),
        )
    rows = np.ascontiguousarray(weights).reshape(-1, block)
    out = np.empty((len(rows), size), np.uint8)
    step, encoder = _CHUNK // block, _CODECS[kind][2]
    with np.errstate(all="ignore"):  # infinities and NaN arise in extreme blocks, and ggml goes on with them
        for at in range(0, len(rows), step):
            part = rows[at : at + step]
            if kind not in _16_BIT and not np.isfinite([part.max(), part.min()]).all():
                raise BadInput(f"the weights hold NaN or infinity, which {kind} cannot store", "mend the tensor, or take F16 or BF16")
            out[at : at + step] = encoder(part)
    return out.reshape(*weights.shape[:-1], weights.shape[-1] // block * size)


def decode(kind: str, data: np.ndarray) -> np.ndarray:
    """uint8 bytes of whole blocks, in any shape -> float32 [n], flat.

    Raises:
        BadInput: unknown kind; another dtype than uint8; bytes that are no whole number of blocks.
    """
    block, size = _kind(kind)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        given = data.dtype if isinstance(data, np.ndarray) else type(data).__name__
        raise BadInput(f"data is {given}, decoding takes a uint8 array", "np.frombuffer(data, np.uint8)")
    if data.size % size:
        raise BadInput(f"{data.size} bytes are no whole number of {kind}'s blocks of {size} bytes", "check the kind: labkit inspect FILE")
    rows = np.ascontiguousarray(data).reshape(-1, size)
    out = np.empty((len(rows), block), np.float32)
    step, decoder = _CHUNK // block, _CODECS[kind][3]
    with np.errstate(all="ignore"):
        for at in range(0, len(rows), step):
            out[at : at + step] = decoder(rows[at : at + step])
    return out.reshape(-1)


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise BadInput(f"no block format {kind!r} ({nearest(kind, KINDS)})", "labkit.quant.blocks.KINDS lists them")
    return KINDS[kind]
