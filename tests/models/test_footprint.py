"""The arithmetic against real processes, and its parts against numbers worked out by hand."""

import pytest

from labkit import models
from labkit.core import machine
from labkit.core.errors import BadInput
from labkit.measure import memory
from labkit.models import catalog, footprint, inspect, shape

FAMILIES = [
    ("gemma3-270m", "Q8_0"),
    ("qwen2.5-0.5b", "Q4_0"),
    ("qwen3-0.6b", "Q4_0"),
    ("smollm2-360m", "Q4_K"),
    ("granite-3.1-1b-a400m", "Q5_0"),
]
TOLERANCE = 0.10


def test_phi_4_mini_by_hand():
    """32 layers x 2 x 8 heads x 128 x 2 bytes = 128 KiB a token; 3.836 B weights."""
    header = shape.header(catalog.get("phi-4-mini"), "BF16")
    assert footprint.kv_bytes_per_token(header) == 128 * 1024
    assert footprint.kv_cache_bytes(header, 4096) == 2**29
    assert footprint.kv_cache_bytes(header, 4096, "q8_0") == 2**29 * 8.5 / 16
    assert round(header.tensor_bytes / 1e9, 2) == 7.67


def test_a_sliding_window_keeps_only_its_window():
    """Gemma 3 270M: 3 of 18 layers see all, 15 keep 512 + 512 cells; 1 KV head of 256."""
    header = shape.header(catalog.get("gemma3-270m"), "Q8_0")
    a_cell = 2 * 256 * 2
    assert footprint.kv_cache_bytes(header, 8192) == a_cell * (3 * 8192 + 15 * 1024)
    assert footprint.kv_cache_bytes(header, 512) == a_cell * 18 * 512


@pytest.mark.parametrize(("isa", "copied"), [({"avx2"}, True), ({"asimddp"}, True), (set(), False)])
def test_q4_0_is_held_twice_where_the_processor_wants_it_rearranged(isa, copied):
    header = shape.header(catalog.get("llama3.2-1b"), "Q4_0")
    assert bool(footprint.repacked_bytes(header, frozenset(isa))) == copied


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
@pytest.mark.parametrize("context", [512, 2048, 8192])
def test_the_default_model_is_within_ten_percent(context, kv):
    ref = models.resolve("smollm2-135m")
    predicted = footprint.predict(inspect.read(ref.path), context, kv, ubatch=128).total_bytes
    found = memory.growth(ref, context, kv, threads=machine.cores(), fill=130, ubatch=128)
    assert abs(predicted / found["measured_bytes"] - 1) < TOLERANCE


@pytest.mark.parametrize(("name", "type_name"), FAMILIES)
def test_shape_true_families_are_within_ten_percent(name, type_name, tmp_path):
    ref = shape.write(catalog.get(name), type_name, tmp_path)
    header = inspect.read(ref.path)
    assert header.parameters == catalog.get(name).parameters
    predicted = footprint.predict(header, 2048, ubatch=64).total_bytes
    found = memory.growth(ref, 2048, threads=machine.cores(), fill=66, ubatch=64)
    assert abs(predicted / found["measured_bytes"] - 1) < TOLERANCE


def test_a_model_that_does_not_fit_is_refused_before_loading(monkeypatch):
    ref = models.resolve("smollm2-135m")
    monkeypatch.setattr(machine, "memory_available_bytes", lambda: 100 << 20)
    with pytest.raises(BadInput, match="needs about"):
        footprint.check_fits(inspect.read(ref.path), 8192, "f16", 512)


def test_unknown_cache_type():
    with pytest.raises(BadInput, match="f16"):
        footprint.predict(shape.header(catalog.get("qwen3-0.6b")), 512, "q2")


@pytest.mark.parametrize("type_name", shape.TYPES)
def test_every_type_can_be_written_and_loads(type_name, tmp_path):
    """A tiny shape in each format, decoded once: the random blocks are valid for the real library."""
    from labkit import engines, measure
    from labkit.core.records import Request
    from labkit.models.catalog import Shape

    small = catalog.get("qwen3-0.6b").model_copy(
        update={
            "shape": Shape(layers=1, hidden=256, ff=512, heads=4, kv_heads=2, head_dim=64, vocab=512, tied_embeddings=True, qk_norm=True)
        }
    )
    ref = shape.write(small, type_name, tmp_path)
    session = engines.open("llamacpp").load(ref, threads=1, context=256)
    done = measure.one(session, Request(tokens=(1, 2, 3), max_tokens=3, ignore_eos=True))
    logits = list(session.logits([1, 2, 3]))[-1]
    session.close()
    assert done.output_tokens == 3
    assert (logits == logits).all()  # no NaN
