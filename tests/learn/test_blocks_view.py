"""labkit.learn.blocks_rows and blocks_view: what lab 05 computes and draws."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quants

from labkit import models
from labkit.core.errors import BadInput
from labkit.core.records import ModelRef
from labkit.learn import blocks_rows, blocks_view
from labkit.quant import blocks

WEIGHTS = (np.random.default_rng(1).normal(size=256) * 0.02).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> ModelRef:
    """The course's own, with 16-bit weights."""
    return models.resolve("stdlib-10m")


def written(path, **tensors) -> ModelRef:
    """A GGUF file with these matrices: name -> (values, type)."""
    writer = GGUFWriter(path, "llama")
    for name, (values, kind) in tensors.items():
        type_ = GGMLQuantizationType[kind]
        data = values if kind == "F32" else quants.quantize(values, type_)
        writer.add_tensor(name.replace("__", "."), data, raw_dtype=type_ if data.dtype == np.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return ModelRef(name="toy", path=path, format="gguf")


def values(rows, row):
    return np.random.default_rng(rows).normal(size=(rows, row)).astype(np.float32)


# -- reading


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q4_0"])
def test_reads_what_the_file_says(tmp_path, kind):
    given = values(6, 64)
    ref = written(tmp_path / "toy.gguf", blk__0__ffn_down__weight=(given, kind))
    header = blocks_rows.header_of(ref)
    found = blocks_rows.read(header, blocks_rows.pick(header), most=256)
    assert found.values.shape == (4, 64)  # as many whole rows as `most` allows
    expected = given if kind == "F32" else blocks_rows.round_trip(kind, given)
    assert np.array_equal(found.values, expected[:4])


def test_a_type_that_labkit_does_not_write_is_decoded_by_the_gguf_package(tmp_path):
    data = np.random.default_rng(2).integers(0, 100, (4, 110), dtype=np.uint8)  # Q3_K: 110 bytes for 256 weights
    writer = GGUFWriter(tmp_path / "toy.gguf", "llama")
    writer.add_tensor("blk.0.ffn_down.weight", data, raw_dtype=GGMLQuantizationType.Q3_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = blocks_rows.header_of(ModelRef(name="toy", path=tmp_path / "toy.gguf", format="gguf"))
    found = blocks_rows.read(header, blocks_rows.pick(header))
    assert np.array_equal(found.values, quants.dequantize(data, GGMLQuantizationType.Q3_K))


def test_picks_the_middle_layer(tmp_path):
    given = (values(4, 256), "F16")
    ref = written(
        tmp_path / "toy.gguf",
        **{f"blk__{n}__{part}__weight": given for n in (0, 1, 2, 10) for part in ("attn_q", "ffn_down")},
        token_embd__weight=given,
        blk__2__attn_norm__weight=(np.ones(256, np.float32), "F32"),
    )
    header = blocks_rows.header_of(ref)
    assert blocks_rows.pick(header).name == "blk.2.ffn_down.weight"
    assert {t.name for t in blocks_rows.layer(header)} == {"blk.2.attn_q.weight", "blk.2.ffn_down.weight", "token_embd.weight"}
    assert blocks_rows.pick(header, "blk.10.attn_q.weight").name == "blk.10.attn_q.weight"
    with pytest.raises(BadInput, match=r"did you mean blk\.10\.attn_q\.weight"):
        blocks_rows.pick(header, "blk.10.attnq.weight")


def test_says_what_it_cannot_read(tmp_path):
    with pytest.raises(BadInput, match="hf folder"):
        blocks_rows.header_of(ModelRef(name="toy", path=tmp_path, format="hf"))
    odd = written(tmp_path / "odd.gguf", blk__0__weight=(values(4, 20), "F32"))
    with pytest.raises(BadInput, match="no matrix with rows of a multiple of 32"):
        blocks_rows.pick(blocks_rows.header_of(odd))


def test_weights_rows_depend_on_the_seed(model):
    one, again, other = (blocks_rows.weights_rows(model, "", seed)[0] for seed in (1, 1, 2))
    assert one == again
    assert one["weights"] != other["weights"]
    assert len(one["weights"]) == 256
    assert not one["quantized"]
    assert blocks_rows.weights_rows(models.resolve("smollm2-135m"), "", 1)[0]["quantized"]


# -- errors


def test_relative_error():
    assert blocks_rows.relative_error(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1)
    assert blocks_rows.relative_error(np.zeros(2), np.ones(2)) == 0


def test_the_formats_rank_as_the_lab_says(model):
    rows = blocks_rows.error_rows(model, ("ffn_down",), most=1 << 15)
    error = blocks_rows.medians(rows)
    assert error["F16"] == 0
    assert error["Q8_0"] < error["Q6_K"] < error["Q5_1"] < error["Q4_K"] < error["Q4_0"] < error["TQ2_0"]
    (ratio,) = blocks_rows.ratios(rows).values()
    assert 14 < ratio < 18


def test_a_quantized_source_flatters_its_own_format():
    error = blocks_rows.medians(blocks_rows.error_rows(models.resolve("smollm2-135m"), ("ffn_down",), most=1 << 15))
    assert error["Q4_1"] < 0.001 < error["Q8_0"]
    assert error["Q5_1"] > error["Q5_0"]


def test_rows_that_are_no_multiple_of_256_have_no_superblocks(tmp_path):
    ref = written(tmp_path / "toy.gguf", blk__0__attn_q__weight=(values(8, 96), "F16"))
    assert {r["kind"] for r in blocks_rows.error_rows(ref)} == {k for k, v in blocks.KINDS.items() if v.block <= 32}


def test_twice_is_worse_than_once(model):
    found = {r["via"]: r["relative_error"] for r in blocks_rows.twice_rows(model, "")}
    assert found["F16"] < found["Q8_0"] < found["Q5_1"] < found["Q4_1"]


def test_spread_and_share(model):
    rows = blocks_rows.spread_rows(model, "", count=50)
    assert len(rows) == 50
    assert 0.1 < blocks_rows.share_of_top(rows) < 0.6
    assert blocks_rows.share_of_top([{"largest": n, "rms_error": 1.0} for n in range(10)]) == pytest.approx(0.1)


def test_larger_blocks_cost_less_and_err_more(model):
    rows = blocks_rows.size_rows(model, "", sizes=(16, 32, 64))
    assert [r["bits_per_weight"] for r in rows[:3]] == [5.0, 4.5, 4.25]
    assert sorted(rows, key=lambda r: r["relative_error"]) == rows
    real = {r["kind"]: r["relative_error"] for r in blocks_rows.error_rows(model, ("ffn_down",))}
    assert rows[1]["relative_error"] == pytest.approx(real["Q4_0"], rel=0.01)


def test_the_referee_is_llama_cpp_itself():
    rows = blocks_rows.referee_rows(WEIGHTS, list(blocks.KINDS))
    assert [r["differing"] for r in rows] == [0] * 11
    assert rows[3] == {"kind": "Q4_0", "bytes": 144, "differing": 0}


# -- drawings


@pytest.mark.parametrize(
    ("kind", "count"), [("Q4_0", 16), ("Q4_1", 16), ("Q5_0", 32), ("Q5_1", 32), ("Q8_0", 255), ("Q4_K", 16), ("TQ2_0", 3)]
)
def test_levels_hold_what_is_stored(kind, count):
    grid = blocks_view.levels(kind, WEIGHTS)
    assert len(grid) == count
    assert np.isin(blocks_rows.round_trip(kind, WEIGHTS)[:32], grid).all()


def test_levels_of_an_unknown_kind():
    with pytest.raises(BadInput, match="no grid to draw for 'F16'"):
        blocks_view.levels("F16", WEIGHTS)


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q4_K", "TQ2_0"])
@pytest.mark.parametrize("outlier", [1, 19])
def test_draw_block(kind, outlier):
    fig = blocks_view.draw_block(WEIGHTS, kind, "somewhere", outlier)
    left, right = fig.axes
    dots, crosses = left.get_lines()[-2:]
    error = np.asarray(crosses.get_ydata()) - np.asarray(dots.get_ydata())
    assert [bar.get_height() for bar in right.patches] == pytest.approx(list(error))
    assert np.abs(dots.get_ydata()).max() == pytest.approx(np.abs(WEIGHTS[:32]).max() * outlier)
    assert fig._supxlabel.get_text() == "somewhere"


def test_an_outlier_costs_the_others_their_precision():
    def share(kind, outlier):
        return float(blocks_view.draw_block(WEIGHTS, kind, "", outlier).axes[1].get_title().split("error ")[1].split("%")[0])

    assert share("Q4_0", 1) < share("Q4_0", 4) < share("Q4_0", 10) <= 100
    assert share("Q4_0", 19) == 100  # all the others are zero
    assert share("Q8_0", 19) < share("Q5_0", 19) < share("Q4_0", 19)


def test_draw_ratio():
    rows = [{"tensor": t, "kind": k, "relative_error": e} for t in "ab" for k, e in (("Q4_0", 0.16), ("Q8_0", 0.01))]
    rows += [{"tensor": "exact", "kind": k, "relative_error": e} for k, e in (("Q4_0", 0.1), ("Q8_0", 0.0))]
    ax = blocks_view.draw_ratio(rows, 40, "").axes[0]
    assert list(ax.lines[0].get_ydata()) == [16.0, 16.0]
    assert ax.get_ylim()[1] > 40


def test_draw_errors_puts_no_error_on_the_floor():
    rows = [{"tensor": "t", "kind": k, "relative_error": e} for k, e in (("F16", 0.0), ("Q8_0", 0.005), ("Q4_1", 0.0), ("Q4_0", 0.08))]
    fig = blocks_view.draw_errors({"one": rows, "two": rows}, "")
    assert len(fig.axes) == 2
    assert [text.get_text() for text in fig.axes[0].texts] == ["Q8_0", "Q4_1: no error", "Q4_0"]
    assert fig.axes[0].lines[1].get_ydata()[0] == pytest.approx(0.005 / 3)


def test_draw_spread_sizes_superblock():
    spread = [{"largest": n + 1.0, "rms_error": 0.1 * n} for n in range(10)]
    assert "28% of the squared error" in blocks_view.draw_spread(spread, "").axes[0].get_title()
    sizes = [{"block": b, "bits_per_weight": 4 + 16 / b, "relative_error": 0.01 * b} for b in (8, 32, 1000)]
    ticks = [t.get_text() for t in blocks_view.draw_sizes(sizes, "").axes[0].get_xticklabels()]
    assert ticks == ["8", "32", "the 1,000\nthat were read"]
    assert len(blocks_view.draw_superblock(WEIGHTS, "").axes[0].patches) == 16
