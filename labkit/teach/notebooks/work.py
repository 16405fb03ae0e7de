"""The learner's own copies of the labs, in work/, which git ignores: an update of the course never meets their edits.

A copy that was edited or run is never written over. When its lab has changed since, a sentence says so, and `fresh`
puts a new copy next to it.

>>> prepare()  # doctest: +SKIP
[{'path': 'work/02_model_selection.ipynb', 'reason': 'kept'}]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labkit.core import paths
from labkit.teach.notebooks.build import content, dumps
from labkit.teach.notebooks.front import front
from labkit.teach.notebooks.locate import notebook_of, sources
from labkit.teach.notebooks.parameters import load

if TYPE_CHECKING:
    from nbformat import NotebookNode

START = "00_START_HERE.md"


def prepare(fresh: bool = False, root: Path | None = None) -> list[dict[str, str]]:
    """Make the copies that are missing and the course map; one {path, reason} a file. A reason of one word needs no reading.

    With `fresh` a lab whose copy was edited gets another one, NN_topic.2.ipynb and so on.
    """
    home = root or paths.home()
    folder = home / "work"
    report = []
    built = [source for source in sources(home) if notebook_of(source).is_file()]
    for source in built:
        path, reason = _copy(load(notebook_of(source)), folder / f"{source.stem}.ipynb", fresh)
        report.append({"path": path.relative_to(home).as_posix(), "reason": reason})
    _write(folder / START, course_map(home))
    return report


def course_map(root: Path | None = None) -> str:
    """The labs with what they need, as a page that opens next to the copies."""
    lines = ["# Start here", "", "Open a lab with a click. The copies in this folder are yours: change and run them as you like.", ""]
    lines += ["| lab | minutes | memory | builds on | track |", "|---|---|---|---|---|"]
    for source in sources(root):
        about = front(source)
        memory = f"{about.memory_gb:g} GB" if about.memory_gb else ""
        minutes = f"{about.minutes:g}" if about.minutes else ""
        name = f"[{source.stem[:2]} {about.title}]({source.stem}.ipynb)"
        lines.append(f"| {name} | {minutes} | {memory} | {' '.join(about.builds_on)} | {', '.join(about.track)} |")
    lines += ["", "Run a cell with Shift+Enter. To run a lab on another model, change `model` in its second cell.", ""]
    return "\n".join(lines)


def _copy(lab: NotebookNode, path: Path, fresh: bool) -> tuple[Path, str]:
    if not path.exists():
        _write(path, dumps(lab))
        return path, "new"
    mine = load(path)
    if _untouched(mine):
        if content(mine) == content(lab):
            return path, "kept"
        _write(path, dumps(lab))
        return path, "updated"
    if fresh:
        path = _free(path)
        _write(path, dumps(lab))
        return path, "new"
    if _built_from(mine) != content(lab):
        return path, "this lab has changed since you began; yours is kept, `labkit lab --fresh` puts the new one next to it"
    return path, "kept"


def _untouched(mine: NotebookNode) -> bool:
    """As it was built: no cell was changed, none was run."""
    ran = any(
        cell.cell_type == "code" and cell.outputs and "nbval-check-output" not in cell.metadata.get("tags", []) for cell in mine.cells
    )
    return not ran and _built_from(mine) == content(mine)


def _built_from(mine: NotebookNode) -> str:
    return mine.metadata.get("labkit", {}).get("content", "")


def _free(path: Path) -> Path:
    number = 2
    while (free := path.with_name(f"{path.stem}.{number}.ipynb")).exists():
        number += 1
    return free


def _write(path: Path, text: str) -> None:
    with paths.atomic(path) as file:
        file.write(text.encode())
