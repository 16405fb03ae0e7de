"""labkit.quant.blocks against ggml's own code: not one byte may differ."""

from __future__ import annotations

import ast
import tracemalloc
from pathlib import Path

import ggml
import numpy as np
import pytest
from gguf import quants
from gguf.constants import GGMLQuantizationType
from weights import families

from labkit import models
from labkit.core.errors import BadInput
from labkit.models import inspect
from labkit.quant import blocks

LEAST = 10_000_000  # weights a format
ROWS = 1024  # of 256, a family
REAL = 4_500_000
ALL = list(blocks.KINDS)
live = pytest.mark.skipif(not ggml.LIVE, reason="compilers for other processors may fuse multiply and add; stored vectors hold there")


def real_weights(name: str, count: int) -> np.ndarray:
    """Weights of a model of the course, tensor after tensor, as ggml decodes them; float32 [rows, 256]."""
    ref = models.resolve(name)
    parts, found = [], 0
    for tensor in inspect.read(ref.path).tensors:
        if tensor.type == "F32" or found >= count:
            continue
        data = np.fromfile(ref.path, np.uint8, tensor.bytes, offset=tensor.offset)[: count * ggml.traits(tensor.type).bytes]
        data = data[: len(data) // 8192 * 8192] if tensor.type == "F16" else data
        parts.append(ggml.decode(tensor.type, data))
        found += len(parts[-1])
    return np.concatenate(parts)[: count // 256 * 256].reshape(-1, 256)


@pytest.fixture(scope="module")
def corpus() -> dict[str, np.ndarray]:
    found = dict(families(1, ROWS))
    for name in ("smollm2-135m", "stdlib-10m"):
        found[name] = real_weights(name, REAL)
    return found


def same_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two float32 arrays agree to the bit; any NaN is as good as another."""
    return (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))


@live
@pytest.mark.parametrize("kind", ALL)
def test_no_byte_differs_from_ggml(kind, corpus):
    differing, total = {}, 0
    for name, weights in corpus.items():
        ours, theirs = blocks.encode(kind, weights).ravel(), ggml.encode(kind, weights)
        wrong = int((ours != theirs).sum()), int((~same_bits(blocks.decode(kind, theirs), ggml.decode(kind, theirs))).sum())
        if any(wrong):
            differing[name] = wrong
        total += weights.size
    assert differing == {}  # family: (bytes encoded, weights decoded)
    assert total >= LEAST


@live
@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_16_bit_formats_have_codes_for_everything(kind):
    bits = np.random.default_rng(1).integers(0, 1 << 32, 1 << 20, dtype=np.uint64).astype(np.uint32)
    edges = np.array([0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFFFFFFF, 0, 0x80000000, 0x477FEFFF, 0x477FF000, 1], np.uint32)
    weights = np.concatenate([edges, bits]).view(np.float32)
    assert np.array_equal(blocks.encode(kind, weights), ggml.encode(kind, weights))


@live
@pytest.mark.parametrize("kind", ALL)
def test_any_bytes_decode_as_ggml_decodes_them(kind):
    data = np.random.default_rng(2).integers(0, 256, 2000 * blocks.KINDS[kind].bytes, dtype=np.uint8)
    assert same_bits(blocks.decode(kind, data), ggml.decode(kind, data)).all()


@pytest.mark.parametrize("kind", ALL)
def test_stored_vectors(kind):
    """Made by ggml on x86-64 (python tests/quant/ggml.py); these hold on every machine."""
    with np.load(ggml.VECTORS) as stored:
        weights, expected, decoded = stored["weights"], stored[kind], stored[f"{kind} decoded"].view(np.float32)
    assert np.array_equal(blocks.encode(kind, weights).ravel(), expected)
    assert same_bits(blocks.decode(kind, expected)[:: 256 // 8], decoded).all()


def test_stored_vectors_are_small():
    assert ggml.VECTORS.stat().st_size < 300_000


@pytest.mark.parametrize("kind", ALL)
def test_block_sizes_are_ggmls(kind):
    size = blocks.KINDS[kind]
    assert (size.block, size.bytes) == (ggml.traits(kind).block, ggml.traits(kind).bytes)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("F16", 16), ("BF16", 16), ("Q8_0", 8.5), ("Q4_0", 4.5), ("Q4_1", 5), ("Q5_0", 5.5), ("Q5_1", 6), ("Q4_K", 4.5), ("Q6_K", 6.5625),
     ("TQ1_0", 1.6875), ("TQ2_0", 2.0625)],
)  # fmt: skip
def test_bits_per_weight(kind, bits):
    assert blocks.bits_per_weight(kind) == bits
    assert len(blocks.KINDS) == 11


@pytest.mark.parametrize("kind", ALL)
def test_the_gguf_package_decodes_the_same(kind):
    data = blocks.encode(kind, np.random.default_rng(3).normal(size=(4, 512)).astype(np.float32))
    assert np.array_equal(blocks.decode(kind, data), quants.dequantize(data, GGMLQuantizationType[kind]).ravel())


@pytest.mark.parametrize("kind", ALL)
def test_one_block_alone_is_the_block_among_many(kind):
    """Whatever stands beside a block, and however the work is cut, its bytes are the same."""
    block, size = blocks.KINDS[kind]
    weights = np.random.default_rng(4).normal(size=(3 * (1 << 16) // block + 5, block)).astype(np.float32)
    data = blocks.encode(kind, weights)
    for at in (0, 1, len(weights) // 2, len(weights) - 1):
        assert np.array_equal(blocks.encode(kind, weights[at]), data[at])
        assert np.array_equal(blocks.decode(kind, data[at]), blocks.decode(kind, data)[at * block : (at + 1) * block])
    assert data.shape == (len(weights), size)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("shape", [(256,), (2, 3, 512), (0, 256), (4, 0)])
def test_shapes(kind, shape):
    weights = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    data = blocks.encode(kind, weights)
    block, size = blocks.KINDS[kind]
    assert data.shape == (*shape[:-1], shape[-1] // block * size)
    assert data.dtype == np.uint8
    back = blocks.decode(kind, data)
    assert back.shape == (weights.size,)
    assert back.dtype == np.float32


def test_views_and_transposed_arrays_are_read_in_their_own_order():
    weights = np.random.default_rng(6).normal(size=(256, 64)).astype(np.float32)
    assert np.array_equal(blocks.encode("Q4_K", weights.T), blocks.encode("Q4_K", weights.T.copy()))
    data = blocks.encode("Q8_0", weights)
    assert np.array_equal(blocks.decode("Q8_0", data[::2]), blocks.decode("Q8_0", data[::2].copy()))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K", "Q6_K", "TQ1_0", "F16"])
def test_the_input_is_left_as_it_was(kind):
    weights = np.random.default_rng(7).normal(size=(8, 256)).astype(np.float32)
    before = weights.copy()
    data = blocks.encode(kind, weights)
    kept = data.copy()
    blocks.decode(kind, data)
    assert np.array_equal(weights, before)
    assert np.array_equal(data, kept)


@pytest.mark.parametrize("kind", ALL)
def test_memory_stays_small(kind):
    weights = np.random.default_rng(8).normal(size=(1 << 20) if "K" in kind else (1 << 22)).astype(np.float32)
    tracemalloc.start()
    data = blocks.encode(kind, weights)
    encoding = tracemalloc.get_traced_memory()[1] - data.nbytes
    tracemalloc.reset_peak()
    back = blocks.decode(kind, data)
    decoding = tracemalloc.get_traced_memory()[1] - data.nbytes - back.nbytes
    tracemalloc.stop()
    assert max(encoding, decoding) < 8_000_000


ONE = np.ones(256, np.float32)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: blocks.encode("Q4_2", ONE), "did you mean Q4_"),
        (lambda: blocks.decode("q4_0", np.zeros(18, np.uint8)), "no block format 'q4_0'"),
        (lambda: blocks.bits_per_weight("F64"), "no block format 'F64'"),
        (lambda: blocks.encode("Q4_K", ONE[:255]), "rows of 255 weights do not divide into Q4_K's blocks of 256"),
        (lambda: blocks.encode("Q8_0", np.float32(1)), "float32"),
        (lambda: blocks.encode("Q8_0", np.array(1, np.float32)), "rows of no weights"),
        (lambda: blocks.encode("Q8_0", ONE.astype(np.float64)), "weights are float64"),
        (lambda: blocks.encode("Q8_0", [1.0] * 32), "weights are list"),
        (lambda: blocks.decode("Q8_0", np.zeros(35, np.uint8)), "35 bytes are no whole number of Q8_0's blocks of 34"),
        (lambda: blocks.decode("Q8_0", np.zeros(34, np.int8)), "data is int8"),
        (lambda: blocks.decode("Q8_0", b"\0" * 34), "data is bytes"),
    ],
)
def test_bad_input_gets_one_sentence(call, says):
    with pytest.raises(BadInput, match=says):
        call()


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in ("F16", "BF16")])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_block_formats_refuse_what_is_no_number(kind, odd):
    weights = np.ones((300, 256), np.float32)
    weights[299, 77] = odd
    with pytest.raises(BadInput, match="NaN or infinity"):
        blocks.encode(kind, weights)


def test_it_imports_numpy_alone():
    for path in Path(blocks.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
            )
            assert all(n in ("numpy", "typing", "__future__") or n.startswith(("labkit.core", "labkit.quant.blocks")) for n in names), names
