"""nbgrader's own autograder over our notebooks: real kernels, a few seconds each."""

import pytest

from labkit.core.errors import BadInput, RunFailed
from labkit.teach import notebooks
from labkit.teach.grading import nbgrader_bridge
from labkit.teach.notebooks import forms

FULL = {"double": (2, 2), "week": (1, 1), "mean": (2, 2)}
NONE = {"double": (0, 2), "week": (0, 1), "mean": (0, 2)}


def answered(source, code):
    """The learner's notebook, with one exercise answered and its check cell tampered with."""
    notebook = notebooks.build(source)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        if grade_id == "double":
            cell["source"] = f"def double(number):\n    {code}"
        if grade_id == "week-check":
            cell["source"] = "1.0"
    return notebook


def test_points(source, tmp_path):
    """Full points, none, partial credit; a check cell that was changed counts as it was handed out."""
    submissions = {
        "solved": forms.solved(source),
        "blank": notebooks.build(source),
        "part": answered(source, "return 2 * abs(number)"),
        "raises": answered(source, "raise ValueError('no')"),
    }
    graded = nbgrader_bridge.autograde_all(notebooks.build(source), submissions, tmp_path)
    assert graded == {"solved": FULL, "blank": NONE, "part": {**NONE, "double": (1, 2)}, "raises": NONE}


def test_outputs_of_a_run_stand_for_a_kernel(source, tmp_path):
    solved = forms.solved(source)
    ran = {cell.id: list(cell.outputs) for cell in forms.execute(solved).cells if cell.cell_type == "code"}
    (graded,) = nbgrader_bridge.autograde_all(notebooks.build(source), {"x": solved}, tmp_path, outputs=ran).values()
    assert graded == FULL
    ran.pop(next(iter(ran)))
    with pytest.raises(RunFailed, match="KeyError"):
        nbgrader_bridge.autograde_all(notebooks.build(source), {"x": solved}, tmp_path, outputs=ran)


def test_a_folder_of_somebody_else_is_left_alone(source, tmp_path):
    (tmp_path / "nbgrader").mkdir()
    (tmp_path / "nbgrader" / "mine.txt").write_text("keep")
    with pytest.raises(BadInput, match="no folder of this bridge"):
        nbgrader_bridge.autograde(notebooks.build(source), notebooks.build(source), tmp_path)
    assert (tmp_path / "nbgrader" / "mine.txt").read_text() == "keep"
