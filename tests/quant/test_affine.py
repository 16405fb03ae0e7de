"""MLX's quantization in NumPy, held against mlx.core: every number of bits, every group size, hard groups among them."""

import numpy as np
import pytest

from labkit.core.errors import BadInput
from labkit.quant import affine

CASES = [(bits, size) for bits in affine.BITS for size in affine.GROUP_SIZES]


def hard_rows(dtype):
    """Rows of 256: ordinary, heavy tails, one-signed, all equal, all zero, sparse, tiny, ties."""
    rng = np.random.default_rng(3)
    rows = [
        rng.standard_normal((24, 256)) * 0.05, rng.standard_t(2, (24, 256)) * 0.02, np.abs(rng.standard_normal((8, 256))),
        -np.abs(rng.standard_normal((8, 256))), np.full((2, 256), 0.37), np.full((2, 256), -3.0), np.zeros((2, 256)),
        rng.standard_normal((8, 256)) * (rng.random((8, 256)) < 0.05), rng.standard_normal((4, 256)) * 1e-6,
        rng.integers(-8, 8, (8, 256)) / 8,
    ]  # fmt: skip
    return np.concatenate(rows).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("bits", "group_size"), CASES)
def test_the_same_codes_scales_and_biases_as_mlx(bits, group_size, dtype):
    import mlx.core as mx

    weights = hard_rows(dtype)
    words, scales, biases = (np.array(part) for part in mx.quantize(mx.array(weights), group_size=group_size, bits=bits))
    mine = affine.quantize(weights, bits, group_size)
    assert np.array_equal(affine.pack(mine[0], bits), words)
    assert np.array_equal(affine.unpack(words, bits), mine[0])
    assert mine[1].dtype == mine[2].dtype == dtype
    assert np.array_equal(mine[1], scales)
    assert np.array_equal(mine[2], biases)
    back = mx.dequantize(*(mx.array(part) for part in (words, scales, biases)), group_size=group_size, bits=bits)
    assert affine.dequantize(*mine) == pytest.approx(np.array(back).astype(np.float32), rel=2e-3, abs=1e-3)


@pytest.mark.parametrize(("bits", "group_size"), CASES)
def test_bits_per_weight_are_those_of_the_arrays(bits, group_size):
    weights = hard_rows(np.float16)
    codes, scales, biases = affine.quantize(weights, bits, group_size)
    total = affine.pack(codes, bits).nbytes + scales.nbytes + biases.nbytes
    assert 8 * total / weights.size == affine.bits_per_weight(bits, group_size)
    assert affine.bits_per_weight(bits, group_size, scale_bits=32) - bits == 2 * (affine.bits_per_weight(bits, group_size) - bits)


@pytest.mark.parametrize(
    ("bits", "group_size", "width", "words"), [(7, 64, 128, "of 7 bits"), (4, 16, 128, "groups of 16"), (4, 128, 192, "do not divide")]
)
def test_what_mlx_has_not_is_refused(bits, group_size, width, words):
    with pytest.raises(BadInput, match=words):
        affine.quantize(np.zeros((2, width), np.float16), bits, group_size)
