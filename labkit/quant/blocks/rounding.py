"""How C rounds and narrows numbers, as ggml's quantizers rely on it. Internal to `labkit.quant.blocks`.

A codec is bit-exact only if each of these steps is: binary16 with ties to even, `roundf` with ties away from zero,
`nearest_int` with ties to even, and what x86-64 makes of a float that fits no integer (C leaves it undefined; compilers
emit `cvttps2dq`, which answers -2^31, and its lowest byte is 0). Sources: ggml-impl.h, ggml-quants.c of llama.cpp.
"""

from __future__ import annotations

import numpy as np

F32 = np.float32
_U32 = np.uint32
# adding the float just below one half, and cutting: ties go away from zero, and 0.49999997 does not become 1
_HALF_BITS = np.nextafter(F32(0.5), F32(0)).view(np.uint32)
_MAGIC = F32(12582912.0)  # 1.5 * 2**23: adding it leaves no bits behind the point
_EXACT = 4194303.0  # up to here `nearest_int` is plain rounding with ties to even


def across(x: np.ndarray) -> np.ndarray:
    """[blocks, weights] -> a copy as [weights, blocks]."""
    return np.array(x.T, order="C")


def to_half(values: np.ndarray) -> np.ndarray:
    """float32 -> the bits of binary16 ("<u2") as ggml does: ties to even, 65,520 and more infinite, every NaN 0x7E00 with its sign.

    An addition does the rounding: beside a power of two that is large enough, a float32 has room for just the bits that
    binary16 keeps. Faster than NumPy's own conversion, which goes one value at a time.
    """
    words = values.view(_U32)
    base, power = np.abs(values), (words & _U32(0x7F800000)).view(F32)  # magnitude, and the power of two below it
    np.maximum(power, F32(2.0**-14), out=power)  # binary16's smallest exponent
    ordinary = base.max(initial=0) < 65536
    if not ordinary:
        np.minimum(base, F32(65536), out=base)  # from here on it is infinite
        np.minimum(power, F32(65536), out=power)
    base *= F32(4)
    power *= F32(2.0**15)
    base += power
    bits, exponent = base.view(_U32), power.view(_U32)
    bits -= exponent  # what the addition left of the fraction, leading one included
    exponent >>= _U32(13)  # the exponent in binary16's place; what stands above it is cut off at the end
    bits += exponent
    sign = np.right_shift(words, _U32(16), out=exponent)
    sign &= _U32(0x8000)
    bits |= sign
    half = bits.astype("<u2")
    if not ordinary:
        nan = np.isnan(values)
        half[nan] = np.where(np.signbit(values[nan]), 0xFE00, 0x7E00)
    return half


def half_bytes(values: np.ndarray) -> np.ndarray:
    """float32 [blocks] -> uint8 [blocks, 2]: binary16, low byte first."""
    return to_half(values).view(np.uint8).reshape(-1, 2)


def from_half(data: np.ndarray) -> np.ndarray:
    """uint8 [blocks, 2] -> float32 [blocks]."""
    return np.ascontiguousarray(data).view("<f2").reshape(-1).astype(F32)


def inverse(d: np.ndarray) -> np.ndarray:
    """1 / d, and 0 where d is 0."""
    return np.where(d == 0, F32(0), F32(1) / d)


def round_away(values: np.ndarray) -> np.ndarray:
    """`roundf`, in place: to the nearest whole number, ties away from zero. For magnitudes below 2**22, and non-finite ones."""
    signed_half = values.view(np.uint32) & _U32(0x80000000)
    signed_half |= _HALF_BITS
    values += signed_half.view(F32)
    return np.trunc(values, out=values)


def low_byte(values: np.ndarray) -> np.ndarray:
    """Cut to an integer and keep its lowest byte (uint8), for any float, as x86-64 does."""
    fits = np.abs(values) < 2.0**31
    return (np.where(fits, values, 0).astype(np.int64) & 0xFF).astype(np.uint8)


def nearest_int(values: np.ndarray) -> np.ndarray:
    """ggml's `nearest_int` for any float32, out of range too: int32 in -2**22 … 2**22 - 1."""
    return ((values + _MAGIC).view(np.int32) & 0x007FFFFF) - 0x00400000


def nearest_clipped(values: np.ndarray, low: int, high: int, safe: bool) -> np.ndarray:
    """`nearest_int`, limited to low … high, as float32; `safe` says that no magnitude exceeds 4194303. May work in place."""
    if safe:
        np.rint(values, out=values)
        return np.clip(values, F32(low), F32(high), out=values)
    return np.clip(nearest_int(values), low, high).astype(F32)


def in_range(*values: np.ndarray) -> bool:
    """Does plain rounding do for all of these? False where one is infinite or NaN."""
    return all(bool((np.abs(v) <= _EXACT).all()) for v in values)
