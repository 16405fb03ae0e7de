"""K-quants: superblocks of 256 weights, whose small blocks have scales that are themselves quantized. Internal to `labkit.quant.blocks`.

Each encoder takes float32 [superblocks, 256] and returns uint8 [superblocks, bytes]; decoders go back. Both search: they try
a row of scales for each small block and keep the one with the least weighted squared error. Every sum runs over the
weights in their order, in float32, since another order would round differently.
Inside, an array is [weights of a small block, small blocks], so that each step works on many small blocks at once.
Source: ggml-quants.c (`quantize_row_q4_K_ref`, `make_qkx2_quants`, `quantize_row_q6_K_ref`, `make_qx_quants`) and ggml-common.h of
llama.cpp, as in llama-cpp-python 0.3.36.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.quant.blocks.rounding import F32, across, from_half, half_bytes, in_range, nearest_clipped, nearest_int

_EPS = F32(1e-15)  # a small block below this counts as zeros (GROUP_MAX_EPS)


def encode_q4_k(x: np.ndarray) -> np.ndarray:
    """Q4_K, 144 bytes for 256 weights: 8 small blocks of 32, each with a 6-bit scale and a 6-bit minimum.

    d (2 bytes), dmin (2 bytes), 12 bytes with the scales s and minima m, 128 bytes with two 4-bit numbers q each.
    Weight = d * s * q - dmin * m. Bytes 0-3 of the twelve hold s of blocks 0-3 (lower six bits), bytes 4-7 their m; bytes 8-11
    hold the lower four bits of s and, above them, of m of blocks 4-7, whose upper two bits are the upper two of bytes 0-3 and 4-7.
    In the 128 bytes each 32 hold two small blocks, one in the lower and one in the upper halves.
    """
    w = across(x.reshape(-1, 32))
    scale, minimum, kept = _search_q4(w)
    scales, minima = scale.reshape(-1, 8), minimum.reshape(-1, 8)
    top, deep = _greatest(scales), _greatest(minima)
    s, m = _six_bits(scales, top), _six_bits(minima, deep)
    out = np.empty((len(x), 144), np.uint8)
    out[:, :2], out[:, 2:4], out[:, 4:16] = half_bytes(top / F32(63)), half_bytes(deep / F32(63)), _pack_scales(s, m)
    d = (from_half(out[:, :2])[:, None] * s).reshape(-1)
    dm = (from_half(out[:, 2:4])[:, None] * m).reshape(-1)
    q = np.clip(nearest_int((w + dm) / d), 0, 15).astype(np.uint8)
    flat = np.flatnonzero(d == 0)  # ggml leaves what the search found there
    if len(flat):
        iscale, low = kept
        q[:, flat] = np.clip(nearest_int(iscale[flat] * (w[:, flat] - low[flat])), 0, 15)
        q[:, flat[iscale[flat] == 0]] = 0
    pairs = q.reshape(32, -1, 4, 2)
    out[:, 16:] = (pairs[..., 0] | (pairs[..., 1] << 4)).transpose(1, 2, 0).reshape(len(x), 128)
    return out


def decode_q4_k(data: np.ndarray) -> np.ndarray:
    s, m = _unpack_scales(data[:, 4:16])
    d, dm = from_half(data[:, :2])[:, None] * s, from_half(data[:, 2:4])[:, None] * m
    pairs = data[:, 16:].reshape(-1, 4, 1, 32)
    q = np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32)
    return (d[:, :, None] * q - dm[:, :, None]).reshape(-1, 256)


def encode_q6_k(x: np.ndarray) -> np.ndarray:
    """Q6_K, 210 bytes for 256 weights: 16 small blocks of 16, each with a signed 8-bit scale.

    128 bytes ql with the lower four bits, 64 bytes qh with the upper two, 16 scales s (signed bytes), d (2 bytes).
    Weight = d * s * (q - 32). For each half of 128 weights: weights l, 32+l, 64+l, 96+l (l = 0 … 31) are the lower halves of ql
    bytes l and 32+l, then their upper halves, and bit pairs 0, 1, 2, 3 of qh byte l.
    """
    w = across(x.reshape(-1, 16))
    scale, kept = _search_q6(w)
    scales = scale.reshape(-1, 16)
    size = np.where(np.isnan(scales), F32(0), np.abs(scales))
    largest = scales[np.arange(len(x)), size.argmax(axis=1)]
    empty = size.max(axis=1) < _EPS
    largest = np.where(size.max(axis=1) > 0, largest, F32(0))
    iscale = F32(-128) / largest
    out = np.empty((len(x), 210), np.uint8)
    out[:, 208:] = half_bytes(F32(1) / iscale)
    s = np.minimum(nearest_int(iscale[:, None] * scales), 127).astype(np.int8)
    out[:, 192:208] = s.view(np.uint8)
    d = (from_half(out[:, 208:])[:, None] * s).reshape(-1)
    q = (np.clip(nearest_int(w / d), -32, 31) + 32).astype(np.uint8)
    flat = np.flatnonzero(d == 0)
    if len(flat):
        found = (np.clip(nearest_int(kept[flat] * w[:, flat]), -32, 31) + 32).astype(np.uint8)
        q[:, flat] = np.where(kept[flat] == 0, 0, found)
    quarters = q.reshape(16, len(x), 2, 4, 2).transpose(1, 2, 3, 4, 0).reshape(len(x), 2, 4, 32)
    low, high = quarters & 15, quarters >> 4
    out[:, :128] = np.concatenate([low[:, :, :2] | (low[:, :, 2:] << 4)], axis=2).reshape(len(x), 128)
    out[:, 128:192] = (high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)).reshape(len(x), 64)
    out[empty] = 0
    return out


def decode_q6_k(data: np.ndarray) -> np.ndarray:
    low, high = data[:, :128].reshape(-1, 2, 2, 32), data[:, 128:192].reshape(-1, 2, 1, 32)
    bits = (high >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    q = (np.concatenate([low & 15, low >> 4], axis=2) | (bits << 4)).view(np.int8) - np.int8(32)
    d = from_half(data[:, 208:])[:, None] * data[:, 192:208].view(np.int8)
    return (d[:, :, None] * q.reshape(-1, 16, 16)).reshape(-1, 256)


# -- the searches


def _search_q4(w: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """For each small block: scale, minus its minimum, and the (inverse scale, minimum) that gave its best numbers.

    The inverse scale is 0 where all weights are equal. Weights count the more, the larger they are.
    """
    weight = np.sqrt(_sum(w * w) / F32(32)) + np.abs(w)
    sum_w, sum_x = _sum(weight), _sum(weight * w)
    high, bottom = w.max(axis=0), w.min(axis=0)
    low = np.minimum(bottom, F32(0))
    plain = high == low
    iscale = F32(15) / (high - low)
    scale = F32(1) / iscale
    q = _numbers_q4(w, iscale, low, high, bottom)
    best = _error(q, scale, low, w, weight)
    kept_iscale, kept_low = np.where(plain, F32(0), iscale), low
    for step in range(21):
        iscale = (F32(-1) + F32(0.1) * F32(step) + F32(15)) / (high - low)
        q = _numbers_q4(w, iscale, low, high, bottom)
        wq = weight * q
        sum_q = _sum(wq)
        wqx = wq * w
        wq *= q
        sum_qq, sum_qx = _sum(wq), _sum(wqx)
        determinant = sum_w * sum_qq - sum_q * sum_q
        new_scale = (sum_w * sum_qx - sum_x * sum_q) / determinant
        new_low = (sum_qq * sum_x - sum_q * sum_qx) / determinant
        above = new_low > 0
        new_scale = np.where(above, sum_qx / sum_qq, new_scale)
        new_low = np.where(above, F32(0), new_low)
        error = _error(q, new_scale, new_low, w, weight)
        better = (determinant > 0) & (error < best) & ~plain
        kept_iscale, kept_low = np.where(better, iscale, kept_iscale), np.where(better, low, kept_low)
        best, scale, low = np.where(better, error, best), np.where(better, new_scale, scale), np.where(better, new_low, low)
    return np.where(plain, F32(0), scale), -low, (kept_iscale, kept_low)


def _numbers_q4(w: np.ndarray, iscale: np.ndarray, low: np.ndarray, high: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """0 … 15 (as float32) for each weight. Rounding is monotone, so the two ends say whether all products are in range."""
    safe = in_range(iscale * (high - low), iscale * (bottom - low))
    q = w - low
    q *= iscale
    return nearest_clipped(q, 0, 15, safe)


def _error(q: np.ndarray, scale: np.ndarray, low: np.ndarray, w: np.ndarray, weight: np.ndarray) -> np.ndarray:
    difference = scale * q
    difference += low
    difference -= w
    difference *= difference
    difference *= weight
    return _sum(difference)


def _search_q6(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each small block: its scale, and the inverse scale that gave its best numbers (0 for a block of zeros)."""
    size = np.abs(w)
    largest = np.take_along_axis(w, size.argmax(axis=0)[None], axis=0)[0]
    zero = size.max(axis=0) < _EPS
    square = w * w
    wx = square * w
    iscale = F32(-32) / largest
    sum_lx, sum_ll = _sums_q6(w, square, wx, iscale, largest)
    scale = np.where(sum_ll != 0, sum_lx / sum_ll, F32(0))
    best, kept = scale * sum_lx, iscale
    for step in (*range(-9, 0), *range(1, 10)):
        iscale = -(F32(32) + F32(0.1) * F32(step)) / largest
        sum_lx, sum_ll = _sums_q6(w, square, wx, iscale, largest)
        better = (sum_ll > 0) & (sum_lx * sum_lx > best * sum_ll)
        scale, kept = np.where(better, sum_lx / sum_ll, scale), np.where(better, iscale, kept)
        best = np.where(better, scale * sum_lx, best)
    return np.where(zero, F32(0), scale), np.where(zero, F32(0), kept)


def _sums_q6(w: np.ndarray, square: np.ndarray, wx: np.ndarray, iscale: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    q = nearest_clipped(iscale * w, -32, 31, in_range(iscale * largest))
    first = _sum(wx * q)
    ll = square * q
    ll *= q
    return first, _sum(ll)


# -- what they share


def _sum(values: np.ndarray) -> np.ndarray:
    """Sum over the first axis, strictly in order: NumPy's own sum may pair the terms."""
    total = values[0] + F32(0)
    for row in values[1:]:
        total += row
    return total


def _greatest(values: np.ndarray) -> np.ndarray:
    """The largest of each row that is above 0; NaN never is (`if (v > max) max = v`)."""
    top = np.zeros(len(values), F32)
    for column in values.T:
        top = np.where(column > top, column, top)
    return top


def _six_bits(values: np.ndarray, top: np.ndarray) -> np.ndarray:
    back = np.where(top > 0, F32(63) / top, F32(0))
    return np.minimum(nearest_int(back[:, None] * values).astype(np.uint8), 63)


def _pack_scales(s: np.ndarray, m: np.ndarray) -> np.ndarray:
    out = np.empty((len(s), 12), np.uint8)
    out[:, :4] = s[:, :4] | ((s[:, 4:] >> 4) << 6)
    out[:, 4:8] = m[:, :4] | ((m[:, 4:] >> 4) << 6)
    out[:, 8:] = (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4)
    return out


def _unpack_scales(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second, rest = data[:, :4], data[:, 4:8], data[:, 8:]
    s = np.concatenate([first & 63, (rest & 15) | ((first >> 6) << 4)], axis=1)
    m = np.concatenate([second & 63, (rest >> 4) | ((second >> 6) << 4)], axis=1)
    return s, m


CODECS: dict[str, tuple[int, int, Any, Any]] = {
    "Q4_K": (256, 144, encode_q4_k, decode_q4_k),
    "Q6_K": (256, 210, encode_q6_k, decode_q6_k),
}
