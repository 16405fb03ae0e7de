"""Ternary formats: 256 weights that share one scale and are -1, 0 or 1 times it. Internal to `labkit.quant.blocks`.

Each encoder takes float32 [blocks, 256] and returns uint8 [blocks, bytes]; decoders go back. The scale d is the largest
magnitude, so a weight below half of it becomes 0: made for weights that were trained to three values, ruinous for others.
Source: ggml-quants.c (`quantize_row_tq1_0_ref`, `quantize_row_tq2_0_ref`) and ggml-common.h of llama.cpp, as in
llama-cpp-python 0.3.36.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.quant.blocks.rounding import F32, from_half, half_bytes, inverse


def encode_tq1_0(x: np.ndarray) -> np.ndarray:
    """TQ1_0, 54 bytes for 256 weights: 48 bytes with five weights each, 4 bytes with four each, d (2 bytes).

    A weight's digit t is 0, 1 or 2 for -1, 0, 1. Five digits make a number v below 243 (first digit the most significant);
    stored is ceil(v * 256 / 243), so that multiplying by 3 pushes out one digit after the other at the top.
    Bytes 0-31 hold weights m, 32+m, 64+m, 96+m, 128+m; bytes 32-47 weights 160 + m, 176 + m, … in steps of 16; the last
    four bytes weights 240 + m, 244 + m, 248 + m, 252 + m, with 0 for the fifth digit.
    """
    t, d = _trits(x)
    t = t.astype(np.uint16)
    out = np.empty((len(x), 54), np.uint8)
    out[:, :32] = _digits(t[:, :160].reshape(-1, 5, 32))
    out[:, 32:48] = _digits(t[:, 160:240].reshape(-1, 5, 16))
    out[:, 48:52] = _digits(np.concatenate([t[:, 240:].reshape(-1, 4, 4), np.zeros((len(x), 1, 4), np.uint16)], axis=1))
    out[:, 52:] = half_bytes(d)
    return out


def decode_tq1_0(data: np.ndarray) -> np.ndarray:
    parts = [_undigits(data[:, :32], 5), _undigits(data[:, 32:48], 5), _undigits(data[:, 48:52], 4)]
    return _times(np.concatenate(parts, axis=1), data[:, 52:])


def encode_tq2_0(x: np.ndarray) -> np.ndarray:
    """TQ2_0, 66 bytes for 256 weights: 64 bytes with four weights of two bits each, d (2 bytes).

    For each half of 128 weights, byte m (0 … 31) holds the digits of weights m, 32+m, 64+m, 96+m, lowest bits first.
    """
    t, d = _trits(x)
    q = t.reshape(-1, 2, 4, 32)
    out = np.empty((len(x), 66), np.uint8)
    out[:, :64] = (q[:, :, 0] | (q[:, :, 1] << 2) | (q[:, :, 2] << 4) | (q[:, :, 3] << 6)).reshape(-1, 64)
    out[:, 64:] = half_bytes(d)
    return out


def decode_tq2_0(data: np.ndarray) -> np.ndarray:
    digits = (data[:, :64].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    return _times(digits.reshape(-1, 256), data[:, 64:])


def _trits(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Digits 0, 1, 2 (uint8) and the scale. A tie goes away from zero; a product that is no number counts as 0."""
    d = np.abs(np.maximum(x.max(axis=1), -x.min(axis=1)))  # abs: a zero loses its sign
    scaled = x * inverse(d)[:, None]
    half, finite = F32(0.5), F32(2)
    up = (scaled >= half) & (scaled < finite)
    down = (scaled <= -half) & (scaled > -finite)
    return np.uint8(1) + up.view(np.uint8) - down.view(np.uint8), d


def _digits(t: np.ndarray) -> np.ndarray:
    value = t[:, 0]
    for n in range(1, 5):
        value = value * 3 + t[:, n]
    return ((value * 256 + 242) // 243).astype(np.uint8)


def _undigits(data: np.ndarray, count: int) -> np.ndarray:
    powers = np.array([1, 3, 9, 27, 81][:count], np.uint8)[:, None]
    top = (data[:, None, :] * powers).astype(np.uint16)  # uint8 times uint8 keeps the lowest byte, as it must
    return ((top * 3) >> 8).astype(np.uint8).reshape(len(data), -1)


def _times(digits: np.ndarray, d: np.ndarray) -> np.ndarray:
    return (digits.view(np.int8) - np.int8(1)) * from_half(d)[:, None]


CODECS: dict[str, tuple[int, int, Any, Any]] = {
    "TQ1_0": (256, 54, encode_tq1_0, decode_tq1_0),
    "TQ2_0": (256, 66, encode_tq2_0, decode_tq2_0),
}
