"""16-bit formats and the formats whose block has 32 weights. Internal to `labkit.quant.blocks`.

Each encoder takes float32 [blocks, weights of a block] and returns uint8 [blocks, bytes of a block]; decoders go back.
Two-byte numbers are binary16, low byte first. In 4-bit formats weight j (0 … 15) is the low half of byte j, and weight
16 + j its high half. In 5-bit formats the fifth bit of weight j is bit j of the 32-bit word `qh`.
Source: ggml-quants.c (`quantize_row_*_ref`, `dequantize_row_*`) and ggml-common.h of llama.cpp, as in llama-cpp-python 0.3.36.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.quant.blocks.rounding import F32, across, from_half, half_bytes, inverse, low_byte, round_away, to_half


def encode_f16(x: np.ndarray) -> np.ndarray:
    """F16, 2 bytes a weight: IEEE binary16. 65,520 and more becomes infinite."""
    return to_half(x).view(np.uint8)


def decode_f16(data: np.ndarray) -> np.ndarray:
    return data.view("<f2").astype(F32)


def encode_bf16(x: np.ndarray) -> np.ndarray:
    """BF16, 2 bytes a weight: the upper half of a float32, ties to even; a NaN keeps its sign and is made quiet."""
    bits = x.view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    if np.isnan(x.max(initial=0)):
        rounded = np.where(np.isnan(x), (bits >> 16) | 64, rounded)
    return rounded.astype("<u2").view(np.uint8)


def decode_bf16(data: np.ndarray) -> np.ndarray:
    return (data.view("<u2").astype(np.uint32) << 16).view(F32)


def encode_q8_0(x: np.ndarray) -> np.ndarray:
    """Q8_0, 34 bytes: scale d (2 bytes), then 32 signed bytes q. Weight = d * q, d = largest magnitude / 127."""
    w = across(x)
    d = np.abs(np.maximum(w.max(axis=0), -w.min(axis=0))) / F32(127)  # abs: a zero loses its sign
    back = inverse(d)
    w *= back
    rounded = round_away(w)
    out = np.empty((len(x), 34), np.uint8)
    out[:, :2] = half_bytes(d)
    out[:, 2:] = (rounded.astype(np.int8).view(np.uint8) if np.isfinite(back).all() else low_byte(rounded)).T
    return out


def decode_q8_0(data: np.ndarray) -> np.ndarray:
    return data[:, 2:].view(np.int8) * from_half(data[:, :2])[:, None]


def encode_q4_0(x: np.ndarray) -> np.ndarray:
    """Q4_0, 18 bytes: scale d (2 bytes), then 16 bytes with two 4-bit numbers q each. Weight = d * (q - 8).

    d = (weight of the largest magnitude, with its sign) / -8, so that this weight becomes q = 0.
    A block of zeros gets d = -0 and q = 8.
    """
    out = np.empty((len(x), 18), np.uint8)
    out[:, 2:] = _pack4(_symmetric(x, 8, out))
    return out


def decode_q4_0(data: np.ndarray) -> np.ndarray:
    q = _unpack4(data[:, 2:]).view(np.int8)
    q -= 8
    return q * from_half(data[:, :2])[:, None]


def encode_q5_0(x: np.ndarray) -> np.ndarray:
    """Q5_0, 22 bytes: scale d (2 bytes), the fifth bits qh (4 bytes), 16 bytes with the lower four. Weight = d * (q - 16)."""
    out = np.empty((len(x), 22), np.uint8)
    q = _symmetric(x, 16, out)
    out[:, 2:6], out[:, 6:] = _fifth_bits(q), _pack4(q & 15)
    return out


def decode_q5_0(data: np.ndarray) -> np.ndarray:
    q = (_unpack4(data[:, 6:]) | _unpack_fifth(data[:, 2:6])).view(np.int8)
    q -= 16
    return q * from_half(data[:, :2])[:, None]


def encode_q4_1(x: np.ndarray) -> np.ndarray:
    """Q4_1, 20 bytes: step d (2 bytes), minimum m (2 bytes), 16 bytes with two 4-bit numbers q each. Weight = d * q + m.

    d = (maximum - minimum) / 15.
    """
    out = np.empty((len(x), 20), np.uint8)
    out[:, 4:] = _pack4(_from_minimum(x, 15, out))
    return out


def decode_q4_1(data: np.ndarray) -> np.ndarray:
    return _on_minimum(_unpack4(data[:, 4:]), data)


def encode_q5_1(x: np.ndarray) -> np.ndarray:
    """Q5_1, 24 bytes: step d (2 bytes), minimum m (2 bytes), fifth bits qh (4 bytes), 16 bytes with the lower four bits."""
    out = np.empty((len(x), 24), np.uint8)
    q = _from_minimum(x, 31, out)
    out[:, 4:8], out[:, 8:] = _fifth_bits(q), _pack4(q & 15)
    return out


def decode_q5_1(data: np.ndarray) -> np.ndarray:
    return _on_minimum(_unpack4(data[:, 8:]) | _unpack_fifth(data[:, 4:8]), data)


# -- what they share; while encoding, an array is [32 weights of a block, blocks]: NumPy is fastest along long rows


def _symmetric(x: np.ndarray, half: int, out: np.ndarray) -> np.ndarray:
    """Write the scale into `out`; the numbers 0 … 2 * half - 1 (uint8) [32, blocks]."""
    w = across(x)
    d = _largest(w) / F32(-half)
    back = inverse(d)
    out[:, :2] = half_bytes(d)
    w *= back
    w += F32(half + 0.5)
    if np.isfinite(back).all():
        np.minimum(w, F32(2 * half - 1), out=w)
        return w.astype(np.uint8)
    return np.minimum(low_byte(w), np.uint8(2 * half - 1))


def _largest(w: np.ndarray) -> np.ndarray:
    """Of each block the weight with the largest magnitude; of two that tie, the first; 0 (never -0) for zeros."""
    top, bottom = w.max(axis=0), w.min(axis=0)
    largest = np.where(top >= -bottom, top, bottom)
    tied = np.flatnonzero(top == -bottom)
    if len(tied):
        columns = w[:, tied]
        largest[tied] = columns[np.abs(columns).argmax(axis=0), np.arange(len(tied))]
    largest[largest == 0] = 0
    return largest


def _from_minimum(x: np.ndarray, steps: int, out: np.ndarray) -> np.ndarray:
    """Write step and minimum into `out`; the numbers 0 … steps (uint8) [32, blocks]."""
    w = across(x)
    low, high = w.min(axis=0), w.max(axis=0)
    zero = np.flatnonzero((low == 0) | (high == 0))
    if len(zero):  # 0 and -0 compare equal: of the two the first in the block counts, down to the sign of what is stored
        columns, at = w[:, zero], np.arange(len(zero))
        low[zero], high[zero] = columns[columns.argmin(axis=0), at], columns[columns.argmax(axis=0), at]
    width = high - low
    d = width / F32(steps)
    back = inverse(d)
    out[:, :2], out[:, 2:4] = half_bytes(d), half_bytes(low)
    w -= low
    w *= back
    w += F32(0.5)
    return w.astype(np.uint8) if np.isfinite(back).all() and np.isfinite(width).all() else low_byte(w)


def _on_minimum(q: np.ndarray, data: np.ndarray) -> np.ndarray:
    values = q * from_half(data[:, :2])[:, None]
    values += from_half(data[:, 2:4])[:, None]
    return values


def _pack4(q: np.ndarray) -> np.ndarray:
    return (q[:16] | (q[16:] << 4)).T


def _unpack4(data: np.ndarray) -> np.ndarray:
    out = np.empty((len(data), 32), np.uint8)
    np.bitwise_and(data, 15, out=out[:, :16])
    np.right_shift(data, 4, out=out[:, 16:])
    return out


def _fifth_bits(q: np.ndarray) -> np.ndarray:
    groups = (q >> 4).reshape(4, 8, -1)
    word = groups[:, 0].copy()
    for n in range(1, 8):
        word |= groups[:, n] << n
    return word.T


def _unpack_fifth(data: np.ndarray) -> np.ndarray:
    return np.unpackbits(data, axis=1, bitorder="little") << 4


CODECS: dict[str, tuple[int, int, Any, Any]] = {
    "F16": (1, 2, encode_f16, decode_f16),
    "BF16": (1, 2, encode_bf16, decode_bf16),
    "Q8_0": (32, 34, encode_q8_0, decode_q8_0),
    "Q4_0": (32, 18, encode_q4_0, decode_q4_0),
    "Q4_1": (32, 20, encode_q4_1, decode_q4_1),
    "Q5_0": (32, 22, encode_q5_0, decode_q5_0),
    "Q5_1": (32, 24, encode_q5_1, decode_q5_1),
}
