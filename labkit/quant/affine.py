"""MLX's own quantization ("affine" mode) in NumPy alone: groups of a row, each with a scale and a bias.

A group of g consecutive weights of a row becomes g numbers of b bits (the codes q, 0 to 2^b - 1), a scale s and a bias z;
the weight comes back as w = s q + z. The codes lie one after another in a stream of bits, the first in the lowest bits of
the first 32-bit word; so with 4 bits a word holds 8 codes. Scale and bias have the type of the weights.

Source: the documentation of `mlx.core.quantize`, and for the rounding the CPU code of MLX 0.32 (ml-explore/mlx,
mlx/backend/cpu/quantized.cpp): the end of the range that is farther from zero is met exactly, and zero lies on the grid.
The tests hold every function here against mlx.core, code by code.

>>> codes, scales, biases = quantize(weights, bits=4, group_size=64)
>>> bits_per_weight(4, 64)
4.5
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labkit.core.errors import BadInput

BITS = (2, 3, 4, 5, 6, 8)  # MLX also has a format of 1 bit, which it makes in another way
GROUP_SIZES = (32, 64, 128)

Floats = NDArray[np.floating]
Codes = NDArray[np.uint32]


def bits_per_weight(bits: int, group_size: int, scale_bits: int = 16) -> float:
    """Bits of a code, and the group's share of its scale and bias: b + 2 * scale_bits / g."""
    return bits + 2 * scale_bits / group_size


def check(bits: int, group_size: int) -> None:
    """Raises BadInput for numbers that MLX does not know."""
    if bits not in BITS:
        raise BadInput(f"no format of {bits} bits is converted here (known are {', '.join(map(str, BITS))})", "bits=4")
    if group_size not in GROUP_SIZES:
        raise BadInput(f"MLX has no groups of {group_size} weights (it has {', '.join(map(str, GROUP_SIZES))})", "group_size=64")


def quantize(weights: Floats, bits: int = 4, group_size: int = 64) -> tuple[Codes, Floats, Floats]:
    """Float weights [..., n] -> codes uint32 [..., n], scales and biases [..., n / group_size] in the weights' type.

    n must be a multiple of the group size. Computed in float32; half of all scales are negative, which is no mistake:
    the bias is the end of the range that is farther from zero, and the scale points back from there.
    """
    check(bits, group_size)
    if weights.shape[-1] % group_size:
        raise BadInput(f"rows of {weights.shape[-1]} weights do not divide into groups of {group_size}", "a smaller group_size")
    groups = weights.astype(np.float32).reshape(-1, group_size)
    top = np.float32(2**bits - 1)
    low, high = groups.min(axis=1), groups.max(axis=1)
    from_low = np.abs(low) > np.abs(high)
    step = np.maximum((high - low) / top, np.float32(1e-7))
    scale = np.where(from_low, step, -step)
    edge = np.where(from_low, low, high)
    places = np.rint(edge / scale)  # where zero lies, counted in steps from the edge
    on_grid = places != 0
    scale = np.where(on_grid, edge / np.where(on_grid, places, 1), scale).astype(np.float32)
    bias = np.where(on_grid, edge, np.float32(0))
    codes = np.clip(np.rint((groups - bias[:, None]) / scale[:, None]), 0, top).astype(np.uint32)
    small = (*weights.shape[:-1], weights.shape[-1] // group_size)
    return codes.reshape(weights.shape), scale.astype(weights.dtype).reshape(small), bias.astype(weights.dtype).reshape(small)


def dequantize(codes: Codes, scales: Floats, biases: Floats) -> NDArray[np.float32]:
    """w = s q + z, in float32 [..., n]; the group size follows from the shapes."""
    groups = codes.reshape(*scales.shape, -1).astype(np.float32)
    return (scales.astype(np.float32)[..., None] * groups + biases.astype(np.float32)[..., None]).reshape(codes.shape)


def pack(codes: Codes, bits: int) -> Codes:
    """Codes uint32 [..., n] -> words uint32 [..., n * bits / 32]."""
    planes = (codes[..., None] >> np.arange(bits, dtype=np.uint32)) & 1
    stream = planes.astype(np.uint8).reshape(*codes.shape[:-1], -1)
    return np.packbits(stream, axis=-1, bitorder="little").view("<u4").astype(np.uint32)


def unpack(words: Codes, bits: int) -> Codes:
    """Words uint32 [..., m] -> codes uint32 [..., m * 32 / bits]."""
    stream = np.unpackbits(np.ascontiguousarray(words, dtype="<u4").view(np.uint8), axis=-1, bitorder="little")
    planes = stream.reshape(*words.shape[:-1], -1, bits).astype(np.uint32)
    return (planes << np.arange(bits, dtype=np.uint32)).sum(axis=-1, dtype=np.uint32)
