"""Points for a submission from nbgrader's own autograder.

nbgrader changes the working folder, reads notebooks from a course folder and warns as it loads; so it runs in a process
of its own, over a course folder made for the purpose; it also needs `alembic` on the PATH. It overwrites check cells that a
submission has changed.

Limits: the submission's code runs as the current user, with the time limit of a cell and nothing else. Submissions of
others belong in the sandbox.

>>> autograde(learner, submission, Path("build/grading"))  # doctest: +SKIP
{'double': (2.0, 2.0)}
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.core import paths
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.teach.notebooks.build import dumps

if TYPE_CHECKING:
    from nbformat import NotebookNode

TIMEOUT_S = 600  # of one cell; nbgrader's own default of 30 s is short for a model
_ASSIGNMENT = "lab"


def autograde(
    notebook: NotebookNode, submission: NotebookNode, workdir: Path, timeout_s: int = TIMEOUT_S
) -> dict[str, tuple[float, float]]:
    """Points and maximal points by exercise, of one submission; see `autograde_all`."""
    return autograde_all(notebook, {"learner": submission}, workdir, timeout_s=timeout_s)["learner"]


def autograde_all(
    notebook: NotebookNode,
    submissions: Mapping[str, NotebookNode],
    workdir: Path,
    outputs: Mapping[str, list[Any]] | None = None,
    timeout_s: int = TIMEOUT_S,
) -> dict[str, dict[str, tuple[float, float]]]:
    """By learner and exercise, the points and the maximal points. One kernel a submission, one after another.

    The graded notebooks stay in workdir/nbgrader/autograded/LEARNER/lab/.

    Args:
        notebook: what was handed out; its check cells count.
        submissions: what came back, by learner.
        workdir: the course is made in its folder `nbgrader`; that of an earlier call is replaced.
        outputs: outputs by cell id of a run that the caller has made just before; then no kernel starts. Never take
            them from a submission.
        timeout_s: for one cell.

    Raises:
        BadInput: something else is in that folder.
        MissingPart: nbgrader is not installed.
        RunFailed: nbgrader could not grade a notebook; names the first error it met.
    """
    if importlib.util.find_spec("nbgrader") is None:
        raise MissingPart("nbgrader is not installed", 'uv pip install "labkit[grading]"')
    course = workdir.resolve() / "nbgrader"
    if course.exists():
        if not (course / "source" / _ASSIGNMENT).is_dir():
            raise BadInput(f"{course} is there and no folder of this bridge", "choose another folder")
        shutil.rmtree(course)
    folders = {"source": notebook, **{f"submitted/{learner}": one for learner, one in submissions.items()}}
    for folder, content in folders.items():
        with paths.atomic(course / folder / _ASSIGNMENT / f"{_ASSIGNMENT}.ipynb") as file:
            file.write(dumps(content).encode())
    request = {"course": str(course), "learners": list(submissions), "timeout_s": timeout_s, "outputs": outputs}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "labkit.teach.grading.nbgrader_bridge"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=course,
        encoding="utf-8",
        env={**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])},
    )
    if done.returncode:
        raise RunFailed(f"nbgrader could not grade the notebook: {_cause(done.stderr)}", f"look into {course}")
    graded: dict[str, dict[str, tuple[float, float]]] = {}
    for learner, name, points, most in json.loads(done.stdout.splitlines()[-1]):
        graded.setdefault(learner, {})[name] = (points, most)
    return graded


def _cause(log: str) -> str:
    """The first error that a log names: what follows is only that nbgrader gave up."""
    named = [line.strip() for line in log.splitlines() if re.match(r"(\w+\.)*\w*(Error|Exception|Timeout)\b.*", line)]
    return (named or log.strip().splitlines() or ["it said nothing"])[0]


def _grade(course: str, learners: list[str], timeout_s: int, outputs: dict[str, list[Any]] | None) -> list[tuple]:
    """In the process of its own: hand out, grade, read the grade book."""
    from nbgrader.api import Gradebook
    from nbgrader.converters import Autograde, GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.preprocessors import ClearSolutions, Execute, NbGraderPreprocessor
    from traitlets.config import Config

    class Played(NbGraderPreprocessor):
        """Stands for Execute where the caller has run the notebook."""

        def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:
            if cell.cell_type == "code":
                cell["outputs"] = [_node(output) for output in (outputs or {})[cell.id]]
            return cell, resources

    config = Config()
    config.CourseDirectory.root = course
    config.CourseDirectory.db_url = f"sqlite:///{Path(course).as_posix()}/gradebook.db"
    config.CourseDirectory.assignment_id = _ASSIGNMENT
    config.Execute.timeout = timeout_s
    coursedir = CourseDirectory(config=config)
    hand_out = GenerateAssignment(coursedir=coursedir, config=config)
    # our build has cut the solutions; nbgrader's cutter would empty a cell that has no markers
    hand_out.preprocessors = [step for step in hand_out.preprocessors if step is not ClearSolutions]
    hand_out.start()
    grade = Autograde(coursedir=coursedir, config=config)
    if outputs is not None:
        grade.autograde_preprocessors = [Played if step is Execute else step for step in grade.autograde_preprocessors]
    grade.start()  # every learner's
    rows = []
    with Gradebook(coursedir.db_url) as book:
        for learner in learners:
            for one in book.find_submission_notebook(_ASSIGNMENT, _ASSIGNMENT, learner).grades:
                points = float(one.auto_score or 0), float(one.max_score)
                rows.append((learner, one.name.removesuffix("-check"), *points))
    return rows


def _node(output: dict[str, Any]) -> Any:
    from nbformat import from_dict

    return from_dict(output)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR, format="%(message)s")  # to stderr; the answer is the last line of stdout
    asked = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(_grade(**asked)) + "\n")
