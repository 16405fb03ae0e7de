"""nbval compares nothing, and says nothing, where a cell has no execution count. So every compared cell must have one."""

from pathlib import Path

import nbformat
import pytest

from labkit.core import paths
from labkit.teach import notebooks
from labkit.teach.notebooks import forms
from labkit.teach.notebooks.build import KEEP_OUTPUT

FIXTURES = Path(__file__).parents[1] / "fixtures"
COMMITTED = sorted(paths.labs().glob("*.ipynb"))


def unguarded(notebook):
    """Why nbval would compare too little in a notebook."""
    compared = [cell for cell in notebook.cells if KEEP_OUTPUT in cell.metadata.get("tags", [])]
    found = [] if compared else ["no cell is compared"]
    found += [f"no output: {cell.source!r}" for cell in compared if not cell.outputs]
    return found + [f"no execution count: {cell.source!r}" for cell in compared if cell.execution_count is None]


def test_every_lab_is_committed():
    assert [path.stem for path in COMMITTED] == [source.stem for source in notebooks.sources()]


def test_compared_cells_of_the_committed_labs():
    assert {path.name: unguarded(nbformat.read(path, as_version=4)) for path in COMMITTED} == {path.name: [] for path in COMMITTED}


@pytest.fixture
def fixture_lab():
    """The fixture lab and its one compared cell; it is not committed, so that cell has neither output nor count."""
    (source,) = notebooks.sources(FIXTURES / "course")
    notebook = forms.learner(source)
    (cell,) = [cell for cell in notebook.cells if KEEP_OUTPUT in cell.metadata.get("tags", [])]
    return notebook, cell


def test_the_guard_sees_what_nbval_does_not(fixture_lab, nbval):
    notebook, cell = fixture_lab
    nbval(notebook)
    assert unguarded(notebook) == [f"no output: {cell.source!r}", f"no execution count: {cell.source!r}"]
    assert unguarded(nbformat.v4.new_notebook()) == ["no cell is compared"]


def test_with_a_count_nbval_compares(fixture_lab, nbval):
    notebook, cell = fixture_lab
    cell["outputs"], cell["execution_count"] = [nbformat.v4.new_output("stream", name="stdout", text="quick 43\n")], 1
    assert unguarded(notebook) == []
    with pytest.raises(AssertionError, match="Cell outputs differ"):
        nbval(notebook)
