"""From a source to its notebooks: the learner's, without solutions, and the solved one.

A source is py:percent. Its markers become what nbgrader reads:

    # %% tags=["exercise"] exercise="double"        the learner completes this cell
    # %% tags=["check"] exercise="double" points=2  this cell says how many points that reached

Each step takes a notebook and gives it back changed; LEARNER and SOLVED list them in order. The same source gives the
same bytes. A cell tagged `nbval-check-output` keeps the output that is committed for it, found by its id.

>>> build(sources()[0], solved=False).metadata.labkit.form  # doctest: +SKIP
'learner'
"""

from __future__ import annotations

import ast
import hashlib
import re
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.core import paths
from labkit.core.errors import BadInput, RunFailed
from labkit.teach.notebooks.locate import notebook_of, sources

if TYPE_CHECKING:
    from nbformat import NotebookNode

KEEP_OUTPUT = "nbval-check-output"
PLACE = "# your answer here"
REGION = re.compile(r"^(?P<indent>[ \t]*)### BEGIN SOLUTION[ \t]*\n(?P<code>.*?)^[ \t]*### END SOLUTION[ \t]*$", re.MULTILINE | re.DOTALL)
_ID = re.compile(r"[A-Za-z]\w*")


def build(source: Path, solved: bool = False) -> NotebookNode:
    """The learner's or the solved notebook of a source, with the outputs that are committed and not one more.

    Raises:
        BadInput: the source's markers do not fit together; says which cell.
    """
    notebook = _read(source)
    for step in SOLVED if solved else LEARNER:
        notebook = step(notebook)
    notebook.metadata["labkit"] = {
        "lab": source.stem,
        "form": "solved" if solved else "learner",
        "content": content(notebook),
    }
    return _keep_outputs(notebook, notebook_of(source))


def write_all(solved: bool = False, check: bool = False, root: Path | None = None) -> list[dict[str, str]]:
    """Write labs/NN_topic.ipynb and, with `solved`, build/solved/NN_topic.ipynb; one {path, reason} a file.

    With `check` nothing is written or run, and the list holds the differences only: it is empty when all is well.
    """
    home = root or paths.home()
    report = []
    for source in sources(home):
        targets = [(notebook_of(source), False)]
        if solved:
            targets.append((home / "build" / "solved" / f"{source.stem}.ipynb", True))
        for path, is_solved in targets:
            reason = _write(source, path, is_solved, check)
            if reason != "unchanged" or not check:
                report.append({"path": path.relative_to(home).as_posix(), "reason": reason})
    return report + (_orphans(home) if check else [])


def dumps(notebook: NotebookNode) -> str:
    """The text of the file; the same for the same notebook, whatever made it."""
    import nbformat

    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def content(notebook: NotebookNode) -> str:
    """A hash of what was written into the cells, without outputs: tells an edited copy from an untouched one."""
    text = "\0".join(f"{cell.cell_type}\0{cell.source}" for cell in notebook.cells)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(source: Path) -> NotebookNode:
    import jupytext

    try:
        notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BadInput(f"cannot read {source}: {error}", "save it as UTF-8, py:percent") from error
    if notebook.cells and notebook.cells[0].cell_type == "raw":  # the header; see front.py
        del notebook.cells[0]
    notebook.metadata.clear()
    notebook.metadata["source"] = source.name  # for the sentences of the steps; the last one drops it
    return notebook


def nbgrader_metadata(notebook: NotebookNode) -> NotebookNode:
    """Markers of exercises and checks become nbgrader's metadata, schema 3. Tags stay: nbval and papermill read them."""
    exercises: list[str] = []
    checked: set[str] = set()
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        name, points = cell.metadata.pop("exercise", None), cell.metadata.pop("points", None)
        kind = "exercise" if "exercise" in tags else "check" if "check" in tags else None
        if kind is None:
            if name is not None or points is not None:
                raise _bad(notebook, number, "names an exercise but is tagged neither exercise nor check")
            continue
        if cell.cell_type != "code" or not isinstance(name, str) or not _ID.fullmatch(name):
            raise _bad(notebook, number, f'is tagged {kind} and needs exercise="name" on a code cell')
        if kind == "exercise":
            if name in exercises:
                raise _bad(notebook, number, f"is a second exercise {name}")
            if not REGION.search(cell.source):
                raise _bad(notebook, number, "has no region from ### BEGIN SOLUTION to ### END SOLUTION")
            exercises.append(name)
            cell.metadata["nbgrader"] = _metadata(name, solution=True)
            continue
        if name not in exercises or name in checked:
            raise _bad(notebook, number, f"must be the one check cell of {name}, after its exercise")
        if isinstance(points, bool) or not isinstance(points, (int, float)) or points <= 0:
            raise _bad(notebook, number, "needs points=N, above 0")
        checked.add(name)
        cell.metadata["nbgrader"] = _metadata(f"{name}-check", grade=True, locked=True, points=points)
        cell.metadata["editable"] = False
    missing = [name for name in exercises if name not in checked]
    if missing:
        raise BadInput(f"{notebook.metadata.source}: exercise {missing[0]} has no check cell", "add one after it")
    return notebook


def stable_ids(notebook: NotebookNode) -> NotebookNode:
    """Ids from the content, with a counter for cells that are equal; taken before solutions are cut, so that both forms share them."""
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\0{cell.source}".encode()).hexdigest()[:16]
        cell["id"] = f"{digest}-{seen[digest]}"
        seen[digest] += 1
    return notebook


def cut_solutions(notebook: NotebookNode) -> NotebookNode:
    """A solution region becomes a place for the answer; in a function also `return None`, so that the cell runs."""
    for number, cell in enumerate(notebook.cells):
        if "exercise" in cell.metadata.get("tags", []):
            cell.source = replace_region(cell.source)
            try:
                ast.parse(cell.source)
            except SyntaxError as error:
                raise _bad(notebook, number, f"is no Python once its solution is cut (line {error.lineno})") from error
        if "### BEGIN SOLUTION" in cell.source or "### END SOLUTION" in cell.source:
            raise _bad(notebook, number, "has a solution marker without its pair, or outside an exercise")
    return notebook


def replace_region(source: str, code: str | None = None) -> str:
    """The cell with `code` in place of its solution (further regions become empty); without code, the learner's form."""
    first = True

    def fill(match: re.Match[str]) -> str:
        nonlocal first
        indent = match["indent"]
        if code is None:
            return f"{indent}{PLACE}" + (f"\n{indent}return None" if indent else "")
        given, first = (textwrap.dedent(code).strip("\n") if first else "pass"), False
        return textwrap.indent(given, indent)

    return REGION.sub(fill, source)


def clean(notebook: NotebookNode) -> NotebookNode:
    """No outputs, no counts, only metadata that means something, the kernel every Python has."""
    for cell in notebook.cells:
        cell.metadata.pop("lines_to_next_cell", None)
        if cell.cell_type == "code":
            cell["outputs"], cell["execution_count"] = [], None
    notebook.metadata.clear()
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    notebook["nbformat"], notebook["nbformat_minor"] = 4, 5
    return notebook


Step = Callable[["NotebookNode"], "NotebookNode"]
SOLVED: tuple[Step, ...] = (nbgrader_metadata, stable_ids, clean)
LEARNER: tuple[Step, ...] = (nbgrader_metadata, stable_ids, cut_solutions, clean)


def _metadata(
    grade_id: str, grade: bool = False, solution: bool = False, locked: bool = False, points: float | None = None
) -> dict[str, Any]:
    fields = {"schema_version": 3, "grade_id": grade_id, "grade": grade, "solution": solution, "locked": locked, "task": False}
    return fields if points is None else {**fields, "points": points}


def _bad(notebook: NotebookNode, number: int, what: str) -> BadInput:
    cell = notebook.cells[number]
    first = next((line for line in cell.source.splitlines() if line.strip()), "empty")
    return BadInput(f"{notebook.metadata.source}: the cell that starts with {first.strip()[:60]!r} {what}", "mend the source")


def _keep_outputs(notebook: NotebookNode, committed: Path) -> NotebookNode:
    """Outputs and counts of the cells that nbval compares, from the notebook that is committed."""
    from labkit.teach.notebooks.parameters import load

    if not committed.is_file():
        return notebook
    old = {cell.get("id"): cell for cell in load(committed).cells if cell.cell_type == "code"}
    for cell in _compared(notebook):
        if cell.id in old and old[cell.id].execution_count is not None:
            cell["outputs"], cell["execution_count"] = old[cell.id].outputs, old[cell.id].execution_count
    return notebook


def _compared(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and KEEP_OUTPUT in cell.metadata.get("tags", [])]


def _write(source: Path, path: Path, solved: bool, check: bool) -> str:
    notebook = build(source, solved)
    if any(cell.execution_count is None for cell in _compared(notebook)):
        if check:
            return "no output is committed for a cell tagged nbval-check-output: run labkit build"
        _obtain_outputs(source, notebook)
    text = dumps(notebook)
    if not path.is_file():
        reason = "missing: run labkit build" if check else "new"
    elif path.read_text(encoding="utf-8") == text:
        return "unchanged"
    else:
        reason = "differs from its source: run labkit build" if check else "changed"
    if not check:
        with paths.atomic(path) as file:
            file.write(text.encode())
    return reason


def _obtain_outputs(source: Path, notebook: NotebookNode) -> None:
    """Run the solved form once, quick, and take over the outputs that are not there yet."""
    from labkit.teach.notebooks import forms

    ran = {cell.id: cell for cell in forms.execute(forms.quick(build(source, solved=True))).cells}
    for cell in _compared(notebook):
        if cell.execution_count is not None:
            continue
        if not ran[cell.id].outputs:
            raise RunFailed(f"{source.name}: a cell tagged {KEEP_OUTPUT} printed nothing to compare", "print something, or drop the tag")
        cell["outputs"], cell["execution_count"] = ran[cell.id].outputs, ran[cell.id].execution_count


def _orphans(home: Path) -> list[dict[str, str]]:
    """Committed notebooks whose source is gone."""
    known = {notebook_of(source).name for source in sources(home)}
    found = [path for path in sorted((home / "labs").glob("[0-9][0-9]_*.ipynb")) if path.name not in known]
    return [{"path": path.relative_to(home).as_posix(), "reason": "has no source: delete it"} for path in found]
