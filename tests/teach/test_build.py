"""Building: each step, ids, the same bytes twice, drift, outputs that nbval compares."""

import json
import re

import nbformat
import pytest

from labkit.core.errors import BadInput, RunFailed
from labkit.teach import notebooks
from labkit.teach.notebooks import forms
from labkit.teach.notebooks.build import clean, cut_solutions, dumps, nbgrader_metadata, replace_region, stable_ids


def cells(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def with_cell(text):
    """A fixture lab whose first exercise cell is another one."""
    return lambda source: source.write_text(
        re.sub(
            r"# %% tags=\[\"exercise\"\] exercise=\"double\".*?(?=# %% tags=\[\"check)", text, source.read_text(), count=1, flags=re.DOTALL
        )
    )


def test_exercise_and_check_carry_nbgraders_metadata(source):
    notebook = notebooks.build(source)
    exercise, check = cells(notebook, "exercise")[0], cells(notebook, "check")[0]
    common = {"schema_version": 3, "task": False}
    assert exercise.metadata.nbgrader == {**common, "grade_id": "double", "grade": False, "solution": True, "locked": False}
    assert check.metadata.nbgrader == {
        **common, "grade_id": "double-check", "grade": True, "solution": False, "locked": True, "points": 2
    }  # fmt: skip
    assert not {"exercise", "points", "lines_to_next_cell"} & exercise.metadata.keys() | check.metadata.keys() & {"exercise", "points"}
    assert [cell.metadata.tags for cell in notebook.cells if cell.metadata.get("tags")][:2] == [["parameters"], ["nbval-check-output"]]


def test_nbgrader_accepts_both_forms(source):
    from nbgrader.nbgraderformat.v3 import MetadataValidatorV3

    for solved in (False, True):
        MetadataValidatorV3().validate_nb(notebooks.build(source, solved))
        nbformat.validate(notebooks.build(source, solved))


def test_solutions_are_cut(source):
    learner, solved = notebooks.build(source), notebooks.build(source, solved=True)
    assert (
        cells(learner, "exercise")[0].source == 'def double(number):\n    """Twice the number."""\n    # your answer here\n    return None'
    )
    assert cells(learner, "exercise")[1].source == "week = None  # how many days?\n# your answer here"
    assert "SOLUTION" not in dumps(learner)
    assert "return 2 * number" in cells(solved, "exercise")[0].source


def test_no_outputs_python3_and_front_matter_gone(source):
    notebook = notebooks.build(source)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info", "labkit"}
    assert notebook.cells[0].source.startswith("# Does it double?")


def test_ids_are_stable_valid_unique_and_shared_by_both_forms(source):
    text = source.read_text()
    ids = [cell.id for cell in notebooks.build(source).cells]
    assert ids == [cell.id for cell in notebooks.build(source).cells] == [cell.id for cell in notebooks.build(source, solved=True).cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{8,64}", one) for one in ids)
    source.write_text(text + "\n# %%\nx = 1\n\n# %%\nx = 1\n")
    more = [cell.id for cell in notebooks.build(source).cells]
    assert more[: len(ids)] == ids  # a new cell changes no other one's id
    assert more[-2].endswith("-0") and more[-1] == more[-2][:-1] + "1"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (None, "def f(x):\n    # your answer here\n    return None\n\nprint(f)"),
        ("y = x\nreturn y", "def f(x):\n    y = x\n    return y\n\nprint(f)"),
        ("    return x  # indented already", "def f(x):\n    return x  # indented already\n\nprint(f)"),
    ],
)
def test_replace_region(code, expected):
    assert replace_region("def f(x):\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n\nprint(f)", code) == expected


MARKED = '# %% tags=["exercise"] exercise="double"\n'
REGION = "### BEGIN SOLUTION\nx = 1\n### END SOLUTION\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (MARKED + "x = 1\n", "no region from"),
        ('# %% tags=["exercise"]\n' + REGION, 'needs exercise="name"'),
        (MARKED.replace("double", "a b") + REGION, 'needs exercise="name"'),
        (MARKED.replace("double", "week") + REGION, "must be the one check cell of double"),
        ('# %% exercise="double"\nx = 1\n', "neither exercise nor check"),
        (MARKED + REGION + "### BEGIN SOLUTION\n", "without its pair"),
        (MARKED + "if 1:\n" + REGION, "no Python once its solution is cut"),
        ("", "must be the one check cell of double"),
    ],
)
def test_sources_whose_markers_do_not_fit(source, text, sentence):
    with_cell(text + "\n" if text else "")(source)
    with pytest.raises(BadInput, match=sentence):
        notebooks.build(source)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("points=2", "points=0", "needs points=N"),
        ("points=2", "points=true", "needs points=N"),
        (" points=2", "", "needs points=N"),
        ('["check"] exercise="double"', '["other"]', "neither exercise nor check"),
    ],
)
def test_checks_that_do_not_fit(source, old, new, sentence):
    source.write_text(source.read_text().replace(old, new, 1))
    with pytest.raises(BadInput, match=sentence):
        notebooks.build(source)


def test_an_exercise_without_a_check_is_refused(source):
    text = source.read_text()
    source.write_text(text.replace('# %% tags=["check"] exercise="mean" points=2', "# %%"))
    with pytest.raises(BadInput, match="exercise mean has no check cell"):
        notebooks.build(source)


def test_each_step_alone():
    """A step does its one thing on any notebook."""
    region = "### BEGIN SOLUTION\n1\n### END SOLUTION"
    marked = nbformat.v4.new_code_cell(region, metadata={"tags": ["exercise"], "exercise": "a"})
    check = nbformat.v4.new_code_cell("a", metadata={"tags": ["check"], "exercise": "a", "points": 1})
    notebook = nbformat.v4.new_notebook(cells=[marked, check], metadata={"source": "x.py", "other": 1})
    assert nbgrader_metadata(notebook).cells[0].metadata.nbgrader.grade_id == "a"
    assert stable_ids(notebook).cells[0].id != notebook.cells[1].id
    assert cut_solutions(notebook).cells[0].source == "# your answer here"
    assert set(clean(notebook).metadata) == {"kernelspec", "language_info"}


def test_write_check_and_drift(course, source):
    """Built once with a kernel for the compared cell; then the same bytes; then every way to drift is seen."""
    assert [row["reason"] for row in notebooks.write_all(check=True, root=course)] == [
        "no output is committed for a cell tagged nbval-check-output: run labkit build"
    ]
    assert not list(course.glob("labs/*.ipynb"))
    rows = notebooks.write_all(solved=True, root=course)
    assert rows == [{"path": "labs/90_fixture.ipynb", "reason": "new"}, {"path": "build/solved/90_fixture.ipynb", "reason": "new"}]
    path = course / "labs" / "90_fixture.ipynb"
    first, solved = path.read_bytes(), (course / "build" / "solved" / "90_fixture.ipynb").read_bytes()

    compared = cells(json.loads(first, object_hook=nbformat.from_dict), "nbval-check-output")[0]
    assert compared.execution_count == 3 and compared.outputs[0].text == ["quick 42\n"]
    assert b"### BEGIN SOLUTION" in solved and b"### BEGIN SOLUTION" not in first

    assert {row["reason"] for row in notebooks.write_all(solved=True, root=course)} == {"unchanged"}
    assert notebooks.write_all(solved=True, check=True, root=course) == []
    assert path.read_bytes() == first

    path.write_bytes(first.replace(b"# Does it double?", b"# Does it treble?"))
    assert notebooks.write_all(check=True, root=course) == [
        {"path": "labs/90_fixture.ipynb", "reason": "differs from its source: run labkit build"}
    ]
    assert notebooks.write_all(root=course) == [{"path": "labs/90_fixture.ipynb", "reason": "changed"}]
    assert path.read_bytes() == first  # the output is kept, no kernel was needed

    source.write_text(source.read_text().replace("A small lab", "A tiny lab"))
    assert [row["reason"] for row in notebooks.write_all(check=True, root=course)] == ["differs from its source: run labkit build"]
    source.rename(source.with_name("91_other.py"))
    rows = {row["path"]: row["reason"] for row in notebooks.write_all(check=True, root=course)}
    assert rows["labs/90_fixture.ipynb"] == "has no source: delete it"
    assert set(rows) == {"labs/90_fixture.ipynb", "labs/91_other.ipynb"}


def test_a_compared_cell_must_print_something(course, source):
    source.write_text(source.read_text().replace('print("quick" if quick else "slow", 6 * 7)\nsteps + 41', "pass"))
    with pytest.raises(RunFailed, match="printed nothing to compare"):
        notebooks.write_all(root=course)
    assert not list(course.glob("labs/*.ipynb"))


def test_an_error_while_running_names_itself(source):
    source.write_text(source.read_text().replace("steps + 41", "1 / 0"))
    with pytest.raises(RunFailed, match="ZeroDivisionError: division by zero"):
        forms.execute(forms.solved(source))


def test_forms(source):
    learner, solved = forms.learner(source), forms.solved(source)
    assert not cells(learner, "exercise") and not cells(learner, "check")
    assert len(cells(solved, "exercise")) == len(cells(solved, "check")) == 3
    for form in (learner, solved):
        assert "quick: bool = True  # fewer repeats" in cells(form, "parameters")[0].source
    graded = forms.graded(source, solved=False)
    assert [cell.source for cell in graded.cells if not cell.metadata.get("tags")] == ["import lab_90_exercises as ex"]
    assert len(graded.cells) == 8


def test_a_name_leads_to_a_lab(course, source, tmp_path):
    own = tmp_path / "own.ipynb"
    own.write_text(dumps(notebooks.build(source)))
    notebook = course / "labs" / "90_fixture.ipynb"
    for name in (90, "90", "90_fixture", "fixture", source):
        assert notebooks.find(name, root=course) == notebooks.LabFile("90_fixture", notebook, source)
    assert notebooks.find("labs/90_fixture.ipynb", base=course, root=course).source == source
    assert notebooks.find("own.ipynb", base=tmp_path, root=course) == notebooks.LabFile("own", own.resolve())
    assert notebooks.sources(course) == [source]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (91, "there is no lab '91' — known: 90_fixture"),
        ("90_fixtur", "there is no lab '90_fixtur' — did you mean 90_fixture"),
        ("owm.ipynb", "there is no notebook owm.ipynb — did you mean own.ipynb"),
        ("x.py", "x.py is not a notebook"),
    ],
)
def test_names_that_lead_nowhere(course, tmp_path, name, sentence):
    (tmp_path / "own.ipynb").write_text("{}")
    with pytest.raises(BadInput, match=sentence):
        notebooks.find(name, base=tmp_path, root=course)
