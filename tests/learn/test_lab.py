"""A lab's steps: measured and appended, or played from a recording and labelled."""

import pytest

from labkit import engines
from labkit.core import extras, recordings, results
from labkit.core.errors import BadInput, MissingPart
from labkit.learn import lab as labs
from labkit.learn import plots, sizing, widgets

START = {"model": "smollm2-135m", "threads": 1, "seed": 1, "quick": True}


def test_a_step_is_appended_with_machine_and_parameters(tmp_path):
    path = tmp_path / "results.jsonl"
    lab = labs.start("01_first_model", results_path=str(path), **START)
    rows = lab.step("sum", lambda: [{"value": 3}])
    lab.session.close()
    (line,) = results.read(path)
    assert rows == [{"value": 3}]
    assert (line["lab"], line["step"], line["source"], line["rows"]) == ("01_first_model", "sum", "measured", rows)
    assert line["machine"]["cores"]
    assert line["parameters"]["seed"] == 1
    assert lab.caption().startswith("measured on")


def test_without_the_engine_the_recording_plays_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines.open("llamacpp"), "missing", lambda: "llama-cpp-python is not installed; install it: uv sync")
    header = {"date": "2026-01-01", "machine": {"cpu": "a processor", "cores": 4, "memory_bytes": 8 << 30}}
    monkeypatch.setattr(recordings, "load", lambda name: (header, {"sum": [{"value": 7}]}))
    lab = labs.start("01_first_model", results_path=str(tmp_path / "r.jsonl"), **START)
    assert lab.session is None
    assert lab.step("sum", lambda: 1 / 0) == [{"value": 7}]
    assert "recorded, not measured" in capsys.readouterr().out
    assert lab.caption().startswith("RECORDED 2026-01-01")
    with pytest.raises(MissingPart, match="has no recording"):
        lab.step("other", list)
    assert [line["source"] for line in results.read(tmp_path / "r.jsonl")] == ["recorded"]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"model": "smollm2-135mm"}, "did you mean"), ({"threads": -1}, "threads is -1"), ({"engine": "openai"}, "does not show them")],
)
def test_a_lab_refuses_bad_parameters(change, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        labs.start("01_first_model", results_path=str(tmp_path / "r"), **(START | change))


# -- a step, or a whole lab, that needs an optional part


@pytest.fixture
def recorded(monkeypatch):
    header = {"date": "2026-01-01", "machine": {"cpu": "a processor", "cores": 4, "memory_bytes": 8 << 30}}
    monkeypatch.setattr(recordings, "load", lambda name: (header, {"sum": [{"value": 7}]}))


def test_a_step_whose_part_is_missing_plays_while_the_others_run(tmp_path, monkeypatch, capsys, recorded):
    monkeypatch.setenv("LABKIT_WITHOUT", "hf")
    lab = labs.start("01_first_model", results_path=str(tmp_path / "r.jsonl"), load=False, **START)
    assert (lab.session, lab.missing, lab.model.name, lab.threads) == (None, None, "smollm2-135m", 1)
    assert lab.step("first", lambda: [{"value": 1}]) == [{"value": 1}]
    assert lab.step("sum", lambda: 1 / 0, needs="hf") == [{"value": 7}]
    assert "accelerate and safetensors and transformers are hidden" in (said := capsys.readouterr().out)
    assert "--extra hf" in said
    assert lab.step("last", lambda: [{"value": 2}], needs="llamacpp") == [{"value": 2}]
    assert [line["source"] for line in results.read(tmp_path / "r.jsonl")] == ["measured", "recorded", "measured"]
    assert lab.caption("sum").startswith("RECORDED 2026-01-01")
    assert lab.caption("first", "last").startswith("measured on")
    assert lab.caption().startswith("sum: RECORDED 2026-01-01")
    assert "the rest measured on" in lab.caption()
    with pytest.raises(MissingPart, match=r"step 'other' .* has no recording, and .*--extra hf"):
        lab.step("other", list, needs=("llamacpp", "hf"))


def test_a_lab_whose_main_part_is_missing_plays_every_step(tmp_path, monkeypatch, capsys, recorded):
    monkeypatch.setenv("LABKIT_WITHOUT", "azure,mlx")
    lab = labs.start("01_first_model", results_path=str(tmp_path / "r.jsonl"), load=False, needs="mlx", **START)
    assert "--extra mlx\nThis lab goes on with a recording." in capsys.readouterr().out
    assert lab.source == "recorded"
    assert lab.step("sum", lambda: 1 / 0) == [{"value": 7}]
    assert lab.caption().startswith("RECORDED 2026-01-01")


def test_extras_are_known_by_name(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "fiction", (("no_such_package.deep.inside", "no-such-package"),))
    assert extras.missing("fiction") == (
        "no-such-package is not installed; install it: make install SET=all, or: uv sync --inexact --extra fiction"
    )
    with pytest.raises(MissingPart, match="no-such-package is not installed — make install"):
        extras.require("fiction")
    with pytest.raises(BadInput, match="did you mean torch"):
        extras.missing("torhc")


# -- what lab 02 computes


def test_candidates_and_limits():
    rows = sizing.candidates(20e9, 0.5, context=4096)
    assert len(rows) > 8
    assert all(r["source"].startswith("https://") and r["tokens_per_s"] > 0 for r in rows)
    few = sizing.allowed(rows, memory_gb=2, context=8000, licences=("Apache-2.0",), tokens_per_s=1)
    assert few
    assert all(r["memory_gb"] <= 2 and r["licence"] == "Apache-2.0" for r in few)
    assert sizing.allowed(rows, 0.01, 1, (), 0) == []


def test_a_mixture_of_experts_reads_only_its_share():
    moe = sizing.facts("granite-3.1-1b-a400m", "Q4_0")
    assert 0.25 < moe["active_bytes"] / moe["file_bytes"] < 0.4
    dense = sizing.facts("gemma3-1b", "Q4_0")
    assert dense["active_bytes"] == dense["file_bytes"]


def test_the_pareto_front_is_what_nothing_beats():
    rows = [{"name": n, "x": x, "y": y} for n, x, y in (("a", 1, 5), ("b", 2, 4), ("c", 3, 9), ("d", 3, 8), ("e", 5, 9))]
    fig, ax = plots.figure("test")
    assert plots.pareto(ax, rows, "x", "y", "cost", "benefit") == ["a", "c"]
    _closed(fig)


@pytest.mark.parametrize(("control", "value"), [((2, 32, 2), 18), ((0.0, 1.0, 0.5), 0.5), (["f16", "q8_0"], "f16"), ("text", "text")])
def test_a_control_starts_in_the_middle(control, value):
    assert widgets.first(control) == value
    assert widgets._control("name", control).value == value


def test_the_footprint_figure_follows_its_arguments():
    names = ["qwen3-0.6b", "gemma3-1b"]
    heights = []
    for context in (2048, 32768):
        fig = sizing.draw_footprints(context, "f16", names, "computed", budget_gb=4)
        heights.append(sum(p.get_height() for p in fig.axes[0].patches))
        _closed(fig)
    assert heights[1] > 1.5 * heights[0]


def test_a_slider_redraws():
    drawn = []

    def draw(n):
        drawn.append(n)
        return plots.figure("test")[0]

    box = widgets.explore(draw, n=(1, 9, 1))
    box.children[0].value = 7
    assert drawn == [5, 7]


def _closed(fig):
    import matplotlib.pyplot as plt

    plt.close(fig)
