"""What lab 08 counts and draws; the exercises' hints on many seeds; the commands it prints, held against the real tools."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest

from labkit import models
from labkit.facts import mlx as facts
from labkit.learn import mlx_view
from labkit.quant import affine
from labkit.teach.notebooks import find


@pytest.fixture(scope="module")
def errors():
    return mlx_view.error_rows(models.resolve("stdlib-10m").path, most_weights=200_000)


def group(bits=4, size=64):
    weights = np.random.default_rng(1).normal(0, 0.05, (1, size)).astype(np.float16)
    codes, scales, biases = affine.quantize(weights, bits, size)
    found = {"tensor": "t", "row": 0, "group": 0, "bits": bits, "group_size": size, "words": affine.pack(codes, bits)[0].tolist()}
    return found | {"scale": float(scales[0, 0]), "bias": float(biases[0, 0]), "original": weights[0].astype(float).tolist()}


def test_all_formats_get_the_same_weights(errors):
    assert len(errors) == len(affine.BITS) * len(affine.GROUP_SIZES) + len(mlx_view.GGUF)
    assert len({r["weights"] for r in errors}) == 1
    assert errors[0]["weights"] > 100_000
    assert all(r["source_types"] == ["F16"] for r in errors)


@pytest.mark.parametrize("size", affine.GROUP_SIZES)
def test_a_bit_more_about_halves_the_error(errors, size):
    found = [mlx_view.of(errors, f"MLX {bits} bit, {size}")["error"] for bits in affine.BITS]
    assert found == sorted(found, reverse=True)
    for less_bits, more_bits, (less, more) in zip(affine.BITS, affine.BITS[1:], itertools.pairwise(found), strict=False):
        steps = more_bits - less_bits
        assert 1.7**steps < less / more < 2.4**steps


def test_the_order_at_four_and_a_half_bits(errors):
    four, plain, k = (mlx_view.of(errors, name)["error"] for name in ("MLX 4 bit, 64", "Q4_0", "Q4_K"))
    assert k < plain
    assert k < four
    assert {mlx_view.of(errors, name)["bits_per_weight"] for name in ("MLX 4 bit, 64", "Q4_0", "Q4_K")} == {4.5}


def test_a_model_whose_rows_do_not_divide_is_compared_where_they_do():
    found = mlx_view.error_rows(models.resolve("smollm2-135m").path, most_weights=100_000)
    assert "Q4_K" in {r["name"] for r in found}
    assert found[0]["source_types"] != ["F16"]
    assert len({r["weights"] for r in found}) == 1


@pytest.mark.parametrize(("bits", "size"), [(4, 64), (3, 32), (8, 128)])
def test_a_group_comes_back_within_a_step(bits, size):
    row = group(bits, size)
    assert np.abs(mlx_view.restored(row) - row["original"]).max() < 1.1 * abs(row["scale"])
    assert len(mlx_view.draw_group(row, "caption").axes[0].lines) == 2**bits + 2


def test_the_plots_show_every_row(errors):
    rows = [
        {"name": mlx_view.label(*v), "predicted": mlx_view.predicted_bits(*v), "bits_per_weight": mlx_view.predicted_bits(*v)}
        for v in mlx_view.VARIANTS
    ]
    assert len(mlx_view.draw_bits(rows, 4.0, "caption").axes[0].patches) == 2 * len(rows)
    assert [r["predicted"] for r in rows] == [4.5, 5.0, 5.0, 8.5, 16.0]
    ax = mlx_view.draw_errors(errors, "caption", chosen=(3, 128)).axes[0]
    assert sum(len(line.get_xdata()) for line in ax.lines) == len(errors) + 1 + 2  # the circle, and the ends of the line at 5 %
    assert "3.25" in ax.get_title()
    runs = [{"name": "a", "device": "cpu", "engine": e, "decode_tokens_per_s": r} for e, r in (("mlx", 1.5), ("llamacpp", 150))]
    assert len(mlx_view.draw_speed(runs, "caption").axes[0].patches) == 2


def test_ceilings_are_bandwidth_by_bytes():
    assert [r["tokens_per_s_at_most"] for r in mlx_view.ceilings(2e9)] == [50, 60, 136.5, 273]


def test_the_steps_of_the_lab_on_the_real_model():
    ref = models.resolve("stdlib-10m")
    (row,) = mlx_view.conversion_rows(ref, mlx_view.VARIANTS[:1])
    assert row["bits_per_weight"] == pytest.approx(row["predicted"], rel=0.01)
    (one,), (same,), (other,) = (mlx_view.group_rows(ref, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert np.abs(mlx_view.restored(one) - one["original"]).max() < 0.6 * abs(one["scale"])
    assert {t["kind"] for t in mlx_view.tensor_rows(ref)} == {"embedding", "attention", "feed-forward", "norm"}
    said = {r["way"]: r["result"] for r in mlx_view.keyword_rows(ref)}
    assert said == {"temperature=0.7": "TypeError", "sampler=make_sampler(temp=0.7)": "works"}


def test_a_few_tokens_on_every_engine():
    rows = mlx_view.run_rows(models.resolve("stdlib-10m"), "def f(", tokens=3, repeats=1)
    assert [r["engine"] for r in rows] == ["mlx"] * 3 + ["llamacpp"]
    assert all(r["output_tokens"] == 3 and r["decode_tokens_per_s"] > 0 for r in rows)


def test_the_commands_of_the_lab_are_those_of_mlx_lm():
    text = find("08").source.read_text(encoding="utf-8")
    commands = re.findall(r"-m mlx_lm (\w+) (.*)", text)
    assert [name for name, _ in commands] == ["convert", "generate", "server"]
    for name, words in commands:
        told = subprocess.run([sys.executable, "-m", "mlx_lm", name, "--help"], capture_output=True, text=True, check=True).stdout
        flags = re.findall(r"(?<!\w)(--?[a-z][a-z-]*)", words)
        assert len(flags) >= 3
        assert [flag for flag in flags if not re.search(rf"(?<![\w-]){flag}\b", told)] == []


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (facts.four_bits([{"bits": 4, "bits_per_weight": 4.506}]), "confirmed"),
        (facts.four_bits([{"bits": 4, "bits_per_weight": 4.0}]), "refuted"),
        (facts.four_bits([{"bits": 8, "bits_per_weight": 8.5}]), "not-run"),
        (facts.same_bits_same_error([{"name": n, "bits_per_weight": 4.5, "error": e} for n, e in (("a", 0.09), ("b", 0.07))]), "confirmed"),
        (facts.same_bits_same_error([{"name": n, "bits_per_weight": 4.5, "error": 0.09} for n in "ab"]), "refuted"),
        (facts.same_bits_same_error([{"name": "a", "bits_per_weight": 4.5, "error": 0.09}]), "not-run"),
        (facts.only_on_a_mac([{"engine": "mlx", "output_tokens": 3, "device": "cpu", "system": "Linux"}]), "confirmed"),
        (facts.only_on_a_mac([{"engine": "mlx", "output_tokens": 3, "device": "gpu", "system": "Darwin"}]), "not-run"),
        (facts.temperature([{"way": "temperature=0.7", "result": "TypeError", "said": "unexpected keyword"}]), "confirmed"),
        (facts.temperature([{"way": "temperature=0.7", "result": "works", "said": ""}]), "refuted"),
        (facts.temperature([]), "not-run"),
    ],
)
def test_verdicts_can_go_both_ways(found, shown):
    assert found["shown"] == shown
