"""GRID.yaml: what is read, what is refused, and in which words."""

import re

import nbformat
import pytest
import yaml

from labkit.core.errors import BadInput, MissingPart
from labkit.teach import batch

PARAMETERS = """seed: int = 1  # of every random choice
threads: int = 0
name: str = "a"
quick: bool = False
share: float = 0.5
"""


def notebook(path, parameters=PARAMETERS):
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell("print(1)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my").mkdir()
    notebook(tmp_path / "my" / "own.ipynb")
    notebook(tmp_path / "other.ipynb", "threads: int = 1\n")
    return tmp_path


def read(folder, text):
    (folder / "grid.yaml").write_text(text)
    return batch.read(folder / "grid.yaml")


def rows(tasks):
    return [(task.lab, task.parameters) for task in tasks]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("labs: [my/own.ipynb]", [{}]),
        ("labs: [my/own.ipynb]\ngrid: {seed: [1, 2], quick: [true]}", [{"seed": 1, "quick": True}, {"seed": 2, "quick": True}]),
        ("labs: [my/own.ipynb]\ngrid: {seed: [1, 1, 2]}", [{"seed": 1}, {"seed": 2}]),
        ("labs: [my/own.ipynb]\ngrid: {seed: [1]}\ninclude: [{seed: 7, name: b}]", [{"seed": 1}, {"seed": 7, "name": "b"}]),
        ("labs: [my/own.ipynb]\ngrid: {seed: [1, 2], threads: [1, 2]}\nexclude: [{seed: 2, threads: 1}]",
         [{"seed": 1, "threads": 1}, {"seed": 1, "threads": 2}, {"seed": 2, "threads": 2}]),
        ("labs: [my/own.ipynb]\ngrid: {seed: [1, 2]}\nexclude: [{seed: 2}]\ninclude:\n", [{"seed": 1}]),
        ("labs: [my/own.ipynb]\ngrid: {share: [1]}", [{"share": 1.0}]),
    ],
)  # fmt: skip
def test_rows(folder, text, expected):
    assert [task.parameters for task in read(folder, text)] == expected


def test_paths_are_relative_to_the_grid_file_and_rows_may_name_a_lab(folder, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    tasks = read(
        folder,
        "labs: [my/own.ipynb, other.ipynb]\ngrid: {threads: [1, 2]}\n"
        "include: [{lab: other.ipynb, threads: 3}]\nexclude: [{lab: my/own.ipynb, threads: 2}]\nlimits: {seconds: 9, memory_gb: 0.5}",
    )
    assert rows(tasks) == [("own", {"threads": 1}), *[("other", {"threads": n}) for n in (1, 2, 3)]]
    assert {task.limits for task in tasks} == {batch.Limits(seconds=9, memory_gb=0.5)}
    assert tasks[0].notebook == (folder / "my" / "own.ipynb").resolve()


def test_a_row_that_one_lab_refuses_leaves_the_others(folder):
    tasks = read(folder, "labs: [my/own.ipynb, other.ipynb]\ngrid: {seed: [1, 2], threads: [1, two]}")
    assert [task.refused is None for task in tasks] == [True, False, True, False, False, False, False, False]
    assert "threads must be an int" in tasks[1].refused
    assert "no parameter 'seed'" in tasks[4].refused


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a grid"),
        ("- 1", "not a grid"),
        ("labs: []", "labs"),
        ("labs: [1.5]", "labs"),
        ("labs: [true]", "labs"),
        ("labs: my/own.ipynb", "labs"),
        ("lab: [my/own.ipynb]", "unknown key lab — did you mean labs?"),
        ("labs: [my/own.ipynb]\nlimit: {}", "did you mean limits?"),
        ("labs: [my/own.ipynb]\nlimits: {second: 3}", "unknown key limits.second — did you mean seconds?"),
        ("labs: [my/own.ipynb]\nlimits: {seconds: '3'}", "limits.seconds"),
        ("labs: [my/own.ipynb]\nlimits: {seconds: 0}", "limits.seconds"),
        ("labs: [my/own.ipynb]\nlimits: {memory_gb: true}", "limits.memory_gb"),
        ("labs: [my/own.ipynb]\ngrid: [seed]", "grid"),
        ("labs: [my/own.ipynb]\ngrid: {seed: 1}", "write seed: [1, 2]"),
        ("labs: [my/own.ipynb]\ngrid: {seed: []}", "grid.seed has no values"),
        ("labs: [my/own.ipynb]\ngrid: {seed: [2024-01-02]}", "grid.seed"),
        ("labs: [my/own.ipynb]\ngrid: {share: [.inf]}", "inf"),
        ("labs: [my/own.ipynb]\ngrid: {lab: [1]}", "grid.lab"),
        ("labs: [my/own.ipynb]\ngrid: {sed: [1]}", "did you mean seed?"),
        ("labs: [my/own.ipynb]\ngrid: {seed: [a]}", "seed must be an int"),
        ("labs: [my/own.ipynb]\ngrid: {seed: [true]}", "seed must be an int"),
        ("labs: [my/own.ipynb]\ngrid: {seed: [1]}\nexclude: [{sed: 1}]", "did you mean seed?"),
        ("labs: [my/own.ipynb]\ngrid: {seed: [1]}\nexclude: [{seed: 1}]", "has no rows"),
        ("labs: [my/own.ipynb]\ninclude: [3]", "include"),
        ("labs: [my/own.ipynb]\ninclude: [{lab: 1.5}]", "lab must be"),
        ("labs: [my/own.ipynb]\nlabs: [other.ipynb]", "line 2: labs is there twice"),
        ("labs: [my/own.ipynb]\ngrid: {seed: [1], seed: [2]}", "seed is there twice"),
        ("labs: [my/onw.ipynb]", "no notebook my/onw.ipynb — did you mean own.ipynb?"),
        ("labs: [lab_that_is_not]", "lab_that_is_not"),
        ("labs: [97]", "97"),
        ("labs: [my/own.ipynb]\ngrid: !!python/object/apply:os.system ['true']", "tag tag:yaml.org,2002:python"),
        ("labs: !mine [my/own.ipynb]", "line 1: a grid has plain values only"),
        ("labs: &a [my/own.ipynb]\ninclude: *a", "anchors"),
        ("labs: [my/own.ipynb", "line 1 is not YAML"),
        ("labs: [1]\n---\nlabs: [2]", "is not YAML"),
        ("a: " + "[" * 5000, "too deep for a grid"),
        ("labs: [my/own.ipynb]\ngrid: {seed: [" + "1, " * 200 + "], threads: [" + "1, " * 200 + "]}", "40000 rows"),
    ],
)
def test_broken_grids_are_refused_in_one_sentence(folder, text, says):
    with pytest.raises(BadInput) as caught:
        read(folder, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00labs"])
def test_files_that_cannot_be_read(tmp_path, content):
    if content:
        (tmp_path / "grid.yaml").write_bytes(content)
    with pytest.raises(BadInput, match="cannot read"):
        batch.read(tmp_path / "grid.yaml")


@pytest.mark.parametrize("broken", ["", "{", "[]", "{}", '{"cells": 3}', '{"cells": [{}]}', '{"cells": []}'])
def test_notebooks_that_are_none(tmp_path, broken):
    (tmp_path / "x.ipynb").write_text(broken)
    with pytest.raises(BadInput):
        read(tmp_path, "labs: [x.ipynb]")


@pytest.mark.parametrize("written", ["01", "1", '"01"', '"1"', "first_model", "01_first_model", "../labs/01_first_model.ipynb"])
def test_one_lab_has_many_names(tmp_path, written, fake_home):
    (fake_home / "grids").mkdir()
    tasks = read(fake_home / "grids", f"labs: [{written}]\ngrid: {{seed: [3]}}")
    assert rows(tasks) == [("01_first_model", {"seed": 3})]


def test_yaml_reads_bare_numbers_in_three_ways(fake_home):
    text = "labs: [01, 08, 09, '10']"
    assert yaml.safe_load(text)["labs"] == [1, "08", "09", "10"]  # why labs are found by number and by text
    assert [task.lab[:2] for task in read(fake_home, text)] == ["01", "08", "09", "10"]


@pytest.fixture
def fake_home(tmp_path, monkeypatch):
    """A checkout whose labs hold a parameters cell and nothing else."""
    from labkit.core import paths

    models = paths.data("models.toml").read_text()
    for name in ("01_first_model", "08_mlx", "09_developer_apis", "10_ollama"):
        source = tmp_path / "labs" / "sources" / f"{name}.py"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text('# %% [markdown]\n# # Lab\n\n# %% tags=["parameters"]\nseed: int = 1  # a number\n\n# %%\nprint(seed)\n')
        (tmp_path / "labs" / f"{name}.ipynb").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models.toml").write_text(models)
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    return tmp_path


def test_run_ids_change_with_what_decides_a_run_and_with_nothing_else(tmp_path, monkeypatch):
    path = notebook(tmp_path / "own.ipynb", 'seed: int = 1\nmodel: str = "none of ours"\n')
    first = batch.make(path, {"seed": 1}).run_id
    assert re.fullmatch("[0-9a-f]{16}", first)

    node = nbformat.read(path, 4)
    node.cells[1].outputs = [nbformat.v4.new_output("stream", text="an output")]
    node.cells[1].execution_count = 7
    nbformat.write(node, path)
    assert batch.make(path, {"seed": 1}).run_id == first  # outputs do not count
    assert batch.make(path, {"seed": 1}, batch.Limits(seconds=5)).run_id == first  # limits do not decide a result

    ids = {first, batch.make(path, {"seed": 2}).run_id}
    (tmp_path / "a.gguf").write_bytes(b"GGUF is what it is not")
    ids.add(batch.make(path, {"seed": 1, "model": str(tmp_path / "a.gguf")}).run_id)
    node.cells[1].source = "print(2)"
    nbformat.write(node, path)
    ids.add(batch.make(path, {"seed": 1}).run_id)
    monkeypatch.setattr("labkit.__version__", "99")
    ids.add(batch.make(path, {"seed": 1}).run_id)
    assert len(ids) == 5


def test_the_models_bytes_are_part_of_the_run_id(tmp_path, monkeypatch):

    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "onnx"
    folder.mkdir()
    (folder / "genai_config.json").write_text("{}")
    path = notebook(tmp_path / "own.ipynb", 'model: str = "none of ours"\n')
    first = batch.make(path, {"model": "onnx/"}, base=tmp_path)
    assert first.parameters["model"] == str(folder)  # a run has a folder of its own, so paths are made absolute
    (folder / "genai_config.json").write_text('{"new": "bytes"}')
    second = batch.make(path, {"model": "onnx/"}, base=tmp_path)
    assert first.model_sha256 != second.model_sha256
    assert first.run_id != second.run_id


def test_a_lab_of_ours_refuses_a_model_that_is_not_there(fake_home):
    source = fake_home / "labs" / "sources" / "01_first_model.py"
    source.write_text('# %% tags=["parameters"]\nmodel: str = "smollm2-135m"\nengine: str = "llamacpp"\n')
    with pytest.raises(BadInput, match="did you mean smollm2-135m"):
        batch.make("01", {"model": "smolm2-135m"})
    behind_a_url = batch.make("01", {"model": "anything-the-server-calls-it", "engine": "openai"})
    assert behind_a_url.model_sha256 is None
    assert batch.make("01").model_sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def test_the_grids_of_the_course_can_run():
    from labkit.core import paths

    grids = {path.name: batch.read(path) for path in paths.data("grids").glob("*.yaml")}
    assert {name: len(tasks) for name, tasks in grids.items()} == {"class_comparison.yaml": 2, "seed_per_learner.yaml": 15}
    assert [task.refused for tasks in grids.values() for task in tasks if task.refused] == []
    assert {task.limits for tasks in grids.values() for task in tasks} == {batch.Limits(seconds=240, memory_gb=2)}
    assert len({task.run_id for tasks in grids.values() for task in tasks}) == 17


def test_a_missing_default_model_is_no_reason_to_refuse_a_lab(fake_home, monkeypatch):
    """The lab goes on with its recording then; a model that was asked for is another matter."""
    source = fake_home / "labs" / "sources" / "01_first_model.py"
    source.write_text('# %% tags=["parameters"]\nmodel: str = "qwen3-0.6b"\nengine: str = "llamacpp"\n')
    assert batch.make("01").model_sha256 is None
    with pytest.raises(MissingPart, match=r"qwen3-0\.6b are not on this machine"):
        batch.make("01", {"model": "qwen3-0.6b"})
