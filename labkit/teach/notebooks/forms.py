"""What a test runs of a lab: the learner's notebook as far as it runs unanswered, the solved one, and the graded cells alone.

All are quick (`quick = True` in the parameters cell): nbval takes no parameters itself.

>>> [cell.id for cell in learner(sources()[0]).cells if "exercise" in cell.metadata.get("tags", [])]  # doctest: +SKIP
[]
"""

from __future__ import annotations

import ast
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.core.errors import BadInput, RunFailed
from labkit.teach.notebooks.build import build
from labkit.teach.notebooks.parameters import parameters_cell, read, with_values

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from traitlets.config import Config

TIMEOUT_S = 600


def learner(source: Path) -> NotebookNode:
    """The learner's form without its exercise and check cells: taken out, not skipped. All the rest must run."""
    return _without(quick(build(source, solved=False)), lambda cell: bool(_tags(cell) & {"exercise", "check"}))


def solved(source: Path) -> NotebookNode:
    """The solved form, whole."""
    return quick(build(source, solved=True))


def graded(source: Path, solved: bool) -> NotebookNode:
    """Only what a grade depends on: parameters, the import of the exercises, exercise and check cells. No model is loaded.

    It holds because an exercise cell uses nothing of the lab; `structure.problems` watches over that.
    """
    notebook = quick(build(source, solved))
    cell = _exercises_import(notebook)
    return _without(notebook, lambda other: other is not cell and not _tags(other) & {"parameters", "exercise", "check"})


def quick(notebook: NotebookNode) -> NotebookNode:
    """With `quick = True`, where the notebook has that parameter."""
    return with_values(notebook, {"quick": True}) if "quick" in read(notebook) else notebook


def execute(notebook: NotebookNode, timeout_s: float = TIMEOUT_S) -> NotebookNode:
    """Run a copy in a kernel of its own, in a folder that is gone afterwards. Counts are the cells' places, so they do not vary.

    Raises:
        RunFailed: a cell raised; names the cell and the error.
    """
    import nbclient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    ran = copy.deepcopy(notebook)
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(ran, timeout=timeout_s, kernel_name="python3", resources=place, config=_encrypted())
        try:
            client.execute()
        except CellExecutionError as error:
            raise RunFailed(f"a cell raised {error.ename}: {error.evalue}", "run the notebook to see where") from error
        except CellTimeoutError as error:
            raise RunFailed(f"a cell took more than {timeout_s:g} s", "run the notebook to see where") from error
    for number, cell in enumerate((cell for cell in ran.cells if cell.cell_type == "code"), 1):
        cell.metadata.pop("execution", None)
        cell["execution_count"] = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output["execution_count"] = number
    return ran


def _encrypted() -> Config:
    """Kernels that talk over encrypted sockets where the library can: without it they warn on stderr."""
    import zmq
    from traitlets.config import Config

    return Config({"KernelManager": {"transport_encryption": "auto"}}) if zmq.has("curve") else Config()


def exercise_module(notebook: NotebookNode) -> str:
    """The module whose exercises the notebook uses: what it imports as `ex`."""
    statement, _ = _ex(notebook)
    if isinstance(statement, ast.ImportFrom):
        return f"{statement.module}.{statement.names[0].name}"
    return statement.names[0].name


def _exercises_import(notebook: NotebookNode) -> NotebookNode:
    """The cell that imports the exercises, cut down to that import."""
    statement, cell = _ex(notebook)
    cell["source"] = ast.unparse(statement)
    return cell


def _ex(notebook: NotebookNode) -> tuple[ast.Import | ast.ImportFrom, NotebookNode]:
    for cell in notebook.cells:
        for statement in python(cell).body:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                names = [name for name in statement.names if (name.asname or name.name) == "ex"]
                if names:
                    statement.names = names
                    return statement, cell
    raise BadInput("the notebook does not import its exercises", "write: from labkit.learn.exercises import lab_NN as ex")


def python(cell: NotebookNode) -> ast.Module:
    """The cell's syntax tree; lines for IPython alone (`%…`, `!…`) are left out."""
    if cell.cell_type != "code":
        return ast.Module(body=[], type_ignores=[])
    lines = ["" if line.startswith(("%", "!")) else line for line in cell.source.splitlines()]
    return ast.parse("\n".join(lines))


def _without(notebook: NotebookNode, unwanted: Callable[[NotebookNode], bool]) -> NotebookNode:
    parameters_cell(notebook)  # a lab without one could not be made quick
    notebook["cells"] = [cell for cell in notebook.cells if not unwanted(cell)]
    return notebook


def _tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))
