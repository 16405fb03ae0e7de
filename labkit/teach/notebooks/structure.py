"""Does a lab have the shape that every lab has? A list of sentences, empty when all is well.

>>> problems(sources()[0])  # doctest: +SKIP
[]
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.core.errors import BadInput
from labkit.teach.notebooks import forms
from labkit.teach.notebooks.build import KEEP_OUTPUT, build
from labkit.teach.notebooks.exercises import in_source
from labkit.teach.notebooks.front import front
from labkit.teach.notebooks.parameters import read

if TYPE_CHECKING:
    from nbformat import NotebookNode

PARAMETERS = {"model": "str", "threads": "int", "seed": "int", "quick": "bool", "results_path": "str"}
MAX_LINES = 12  # of code in a cell: more belongs in labkit
MIN_EXERCISES = 3
MIN_WRONG = 3
_IN_EXERCISES = {"json", "math", "numpy"}  # what an exercise cell may import


def problems(source: Path) -> list[str]:
    """What is missing or against the rules, each as a sentence."""
    try:
        front(source)
        notebook = build(source, solved=True)
        parameters = read(notebook)
        exercises = in_source(source)
    except BadInput as error:
        return [str(error)]
    found = _first_cells(notebook)
    found += [
        f"parameter {name} is missing or not {kind}"
        for name, kind in PARAMETERS.items()
        if name not in parameters or parameters[name].annotation != kind
    ]
    found += [f"parameter {name} has no comment" for name, one in parameters.items() if not one.comment]
    if not {"engine", "engines"} & parameters.keys():
        found.append("there is no parameter engine or engines")
    if len(exercises) < MIN_EXERCISES:
        found.append(f"{len(exercises)} exercises; a lab has at least {MIN_EXERCISES}")
    found += [
        f"{one.id} has {len(one.exercise.wrong)} wrong answers; at least {MIN_WRONG}"
        for one in exercises
        if len(one.exercise.wrong) < MIN_WRONG
    ]
    if not any(KEEP_OUTPUT in cell.metadata.get("tags", []) for cell in notebook.cells):
        found.append(f"no cell is tagged {KEEP_OUTPUT}, so nbval would compare nothing")
    return found + _long_cells(notebook) + _shared_names(notebook)


def _first_cells(notebook: NotebookNode) -> list[str]:
    cells = [*notebook.cells, None, None]
    first, second = cells[0], cells[1]
    found = []
    if first is None or first.cell_type != "markdown" or "?" not in first.source:
        found.append("the first cell must ask the lab's question, in Markdown")
    if second is None or "parameters" not in second.metadata.get("tags", []):
        found.append("the second cell must be the one tagged parameters")
    return found


def _long_cells(notebook: NotebookNode) -> list[str]:
    found = []
    for cell in notebook.cells:
        code = [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]
        if cell.cell_type == "code" and len(code) > MAX_LINES:
            found.append(f"{len(code)} lines of code in the cell that starts with {code[0]!r}; at most {MAX_LINES}")
    return found


def _shared_names(notebook: NotebookNode) -> list[str]:
    """No cell but its check may use an answer; an exercise cell imports little, so that it stands on its own."""
    found = []
    answers = {cell.metadata.nbgrader.grade_id for cell in notebook.cells if _is_exercise(cell)}
    for cell in notebook.cells:
        tree = forms.python(cell)
        own = cell.metadata.get("nbgrader", {}).get("grade_id", "").removesuffix("-check")
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        found += [f"a cell other than its check uses {name}: {cell.source.splitlines()[0]!r}" for name in sorted(used & answers - {own})]
        if _is_exercise(cell):
            found += [f"exercise {own} imports {name}" for name in sorted(_imports(tree) - _IN_EXERCISES)]
    return found


def _is_exercise(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def _imports(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names
