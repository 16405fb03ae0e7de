"""What lab 07 counts and draws; the exercises' hints on many seeds; the commands it prints, held against the real tools."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from labkit import models
from labkit.core.errors import BadInput
from labkit.facts import onnx as facts
from labkit.learn import onnx_rows, onnx_view
from labkit.quant import onnx
from labkit.teach.notebooks import find
from labkit.teach.notebooks.exercises import in_source

SOURCE = "07"


@pytest.fixture(scope="module")
def ref():
    return models.resolve("stdlib-10m")


@pytest.fixture(scope="module")
def built(ref):
    return onnx_rows.build_rows(ref, (*onnx_rows.RECIPES, onnx_rows.BEFORE))


@pytest.fixture(scope="module")
def equal(ref):
    return onnx_rows.equal_rows(ref, 512, ("Q4_1", "Q8_0"), ("int4-shared", "olive-rtn", "fp32"), (), threads=1, context=256)


def test_counted_bits_are_near_the_arithmetic(built):
    for row in built:
        tables = 8 * row["tables_bytes"] / row["parameters"]
        assert row["bits_per_weight"] == pytest.approx(row["predicted"] + tables, rel=0.001), row["recipe"]
        assert row["bytes"] == sum(row[f"{role}_bytes"] for role in ("codes", "scales", "zero_points", "unquantized", "tables"))
    assert {r["recipe"]: r["tool"] for r in built}["olive-rtn"] == "Olive"


def test_the_arithmetic_of_an_untied_model(tmp_path):
    """With an output matrix of its own, the table is stored once more often by nobody: only its width differs."""
    from gguf_factory import write

    path = write(tmp_path / "own.gguf")
    header = models.inspect.read(path)
    sizes = {t.name: t.elements for t in header.tensors}
    tied = "output.weight" not in sizes
    assert (onnx_rows.predicted_bits(path, "int4") > onnx_rows.predicted_bits(path, "int4-shared")) == tied
    assert 31 < onnx_rows.predicted_bits(path, "fp32") <= 32 + 1e-9


def test_the_footprint_of_the_real_runs(ref):
    rows = onnx_rows.history_rows(ref, ("olive-rtn", "olive-int8"))
    last = {r["recipe"]: r for r in rows}
    assert "onnxblockwisertnquantization" in last["olive-rtn"].values()
    assert last["olive-int8"]["settings"]["per_channel"] is False
    footprint = json.loads((onnx.convert(ref, "olive-rtn").path / "footprint.json").read_text(encoding="utf-8"))
    solution = next(one for one in in_source(find(SOURCE).source) if one.id == "passes_of")
    assert solution.grade_solution(1).points == solution.points
    assert [r["from_pass"] for r in rows if r["recipe"] == "olive-rtn"][1:] == _passes(footprint)


def _passes(footprint):
    last = next(one for one in footprint if one not in {n["parent_model_id"] for n in footprint.values()})
    names = []
    while footprint[last]["parent_model_id"]:
        names.insert(0, footprint[last]["from_pass"])
        last = footprint[last]["parent_model_id"]
    return names


def test_every_format_reads_the_same_tokens(equal):
    assert {r["family"] for r in equal} == {"GGUF", "ONNX"}
    assert len({(r["tokens"], r["scored_tokens"]) for r in equal}) == 1
    by_name = {r["name"]: r for r in equal}
    assert by_name["F16"]["kl_mean"] == pytest.approx(0, abs=1e-9)
    assert by_name["fp32"]["perplexity"] == pytest.approx(by_name["F16"]["perplexity"], rel=1e-3)
    assert by_name["fp32"]["kl_mean"] < 1e-4 < by_name["Q8_0"]["kl_mean"] < by_name["Q4_1"]["kl_mean"]
    assert by_name["Q4_1"]["kl_mean"] < by_name["int4-shared"]["kl_mean"] < 0.2
    assert {r["source_type"] for r in equal} == {"F16"}


def test_a_large_model_gets_one_variant_of_mlx(ref):
    assert onnx_rows.mlx_groups(ref) == onnx_rows.mlx_groups(None) == onnx_rows.MLX
    assert onnx_rows.mlx_groups(models.resolve("smollm2-135m")) == onnx_rows.MLX[1:]
    assert onnx_rows.mlx_groups(ref, quick=True) == ()


def test_the_origin_is_said():
    assert "made from F16" in onnx_view.origin([{"source_type": "F16"}])
    told = onnx_view.origin([{"source_type": "Q4_1"}])
    assert "stem from a file in Q4_1" in told
    assert "no original" in told


def test_what_these_tokens_do_not_separate():
    rows = [
        {"family": "GGUF", "name": "a", "kl_mean": 0.010, "kl_stderr": 0.001},
        {"family": "ONNX", "name": "b", "kl_mean": 0.011, "kl_stderr": 0.001},
        {"family": "MLX", "name": "c", "kl_mean": 0.030, "kl_stderr": 0.001},
    ]
    first, second = onnx_view.says_equal(rows)
    assert "GGUF a is not told apart from ONNX b" in first
    assert "ONNX b is closer to the original than MLX c" in second


def test_near_and_best_below(equal):
    near = onnx_rows.near(equal, 5.3)
    assert [r["kl_mean"] for r in near] == sorted(r["kl_mean"] for r in near)
    assert {r["family"] for r in near} == {"GGUF", "ONNX"}
    assert onnx_view.best_below(equal, 5.5)["name"] == "Q4_1"
    assert onnx_view.best_below(equal, 1) is None


def test_the_plots_show_every_row(built, equal):
    small = [r for r in built if r["recipe"] != onnx_rows.BEFORE]
    ax = onnx_view.draw_bits(small, 4.0, "caption").axes[0]
    assert len(ax.patches) == 2 * len(small)
    assert len(onnx_view.draw_parts(small, "caption").axes[0].patches) == 5 * len(small)
    ax = onnx_view.draw_nodes(built[:3], "caption", most=4).axes[0]
    assert len(ax.patches) == 12
    ax = onnx_view.draw_equal(equal, "caption", at_most=5.5).axes[0]
    assert {t.get_text() for t in ax.texts} == {r["name"] for r in equal if r["bits_per_weight"] < 15}
    assert "Q4_1" in ax.get_title()
    assert "nothing here" in onnx_view.draw_equal(equal, "caption", at_most=1.0).axes[0].get_title()


def test_what_differs_comes_first_in_the_table_of_nodes(built):
    table = onnx_view.node_table([r for r in built if r["recipe"] in ("fp32", "olive-int8")])
    assert (table[0]["fp32"], table[0]["olive-int8"]) == (8, 50)
    same = [t["fp32"] == t["olive-int8"] for t in table]
    assert same == sorted(same)


def test_the_providers_are_those_of_this_installation():
    rows = {r["provider"]: r for r in onnx_rows.provider_rows()}
    assert set(rows) == set(onnx_rows.NEEDS)
    assert rows["CPUExecutionProvider"]["here"]
    assert "OnnxDynamicQuantization" in rows["CPUExecutionProvider"]["passes"]
    assert "EPContextBinaryGenerator" in rows["QNNExecutionProvider"]["passes"]


def test_olives_refusal_as_a_row(ref):
    (row,) = onnx_rows.refusal_rows(ref)
    assert (row["exit_code"], row["model_made"]) == (0, False)
    assert facts.exit_code([row])["shown"] == "confirmed"


def test_the_exercise_is_the_operator_of_the_standard():
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    names = ["y", "scale", "zero"]
    types = (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8)
    outputs = [helper.make_tensor_value_info(name, one, None) for name, one in zip(names, types, strict=True)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])]
    node = helper.make_node("DynamicQuantizeLinear", ["x"], names)
    graph = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=[helper.make_opsetid("", 21)])
    run = ReferenceEvaluator(graph)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = (rng.normal(0, 1, 24) + (3 if seed % 2 else 0)).astype(np.float32)
        _, scale, zero = run.run(None, {"x": values})
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
        assert float(scale) == pytest.approx((high - low) / 255, rel=1e-5)
        assert int(zero) == min(255, max(0, round(-low / ((high - low) / 255))))


def test_the_commands_of_the_lab_are_those_of_the_tools():
    text = find(SOURCE).source.read_text(encoding="utf-8")
    (words,) = re.findall(r"-m onnxruntime_genai\.models\.builder (.*)", text)
    told = subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", "--help"], capture_output=True, text=True, check=True)
    for flag in re.findall(r"(?<!\w)(--?[a-z][a-z_]*)", words):
        assert re.search(rf"(?<![\w-]){flag}\b", told.stdout), flag
    for option in re.findall(r"(\w+)=", words):
        assert option in told.stdout
    assert "CI=true olive run --config run.json" in text
    with pytest.raises(BadInput, match="no recipe 'int8'"):
        onnx.recipe("int8")


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (facts.four_bits([{"recipe": "int4", "bits_per_weight": 12.3}]), "confirmed"),
        (facts.four_bits([{"recipe": "int4", "bits_per_weight": 4.0}]), "refuted"),
        (facts.four_bits([{"recipe": "olive-int8", "bits_per_weight": 8.5}]), "not-run"),
        (facts.exit_code([{"model_made": False, "exit_code": 0, "said": "KeyError"}]), "confirmed"),
        (facts.exit_code([{"model_made": False, "exit_code": 1, "said": "KeyError"}]), "refuted"),
        (facts.exit_code([{"model_made": True, "exit_code": 0, "said": ""}]), "not-run"),
        (
            facts.same_bits_same_quality(
                [{"family": f, "name": f, "bits_per_weight": 5, "kl_mean": k} for f, k in (("A", 0.01), ("B", 0.03))]
            ),
            "confirmed",
        ),
        (facts.same_bits_same_quality([{"family": f, "name": f, "bits_per_weight": 5, "kl_mean": 0.01} for f in "AB"]), "refuted"),
        (facts.same_bits_same_quality([{"family": "A", "name": "A", "bits_per_weight": 5, "kl_mean": 0.01}]), "not-run"),
    ],
)
def test_verdicts_can_go_both_ways(found, shown):
    assert found["shown"] == shown
