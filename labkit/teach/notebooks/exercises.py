"""A lab's exercises as the course's proofs need them: the cell, its solution, and what any other answer in it would reach.

An exercise cell stands on its own: it is run here with the notebook's parameters and nothing else, so the proof needs
no kernel and no model.

>>> [(one.id, one.grade(None).points) for one in in_source(sources()[0])]  # doctest: +SKIP
[('next_token', 0.0), ('softmax', 0.0), ('window', 0.0)]
"""

from __future__ import annotations

import contextlib
import importlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.core.errors import BadInput
from labkit.teach.notebooks import forms
from labkit.teach.notebooks.build import build, replace_region
from labkit.teach.notebooks.parameters import read

if TYPE_CHECKING:
    from labkit.learn.check import Exercise, Grade


@dataclass(frozen=True)
class InLab:
    """An exercise with its cells. `source` holds the solution between its markers."""

    exercise: Exercise
    source: str
    check: str
    points: float
    parameters: dict[str, Any]

    @property
    def id(self) -> str:
        return self.exercise.id

    def cell(self, code: str | None = None) -> str:
        """The exercise cell with `code` as the answer; the learner's blank one without it."""
        return replace_region(self.source, code)

    def grade(self, code: str | None = None, seed: int = 1) -> Grade:
        """What `code` as the answer reaches; without it, the blank cell."""
        return self._grade(self.cell(code), seed)

    def grade_solution(self, seed: int = 1) -> Grade:
        """What the solution reaches."""
        return self._grade(self.source, seed)

    def _grade(self, source: str, seed: int) -> Grade:
        names = {**self.parameters, "seed": seed}
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, f"<exercise {self.id}>", "exec"), names)  # noqa: S102 - the course's own code
        if self.id not in names:
            raise BadInput(f"the exercise cell of {self.id} does not set {self.id}", "use one name for both")
        return self.exercise.grade(names[self.id], seed=seed)


def in_source(source: Path) -> list[InLab]:
    """The exercises of a lab in its order.

    Raises:
        BadInput: an exercise that its module does not have, or whose points differ from its check cell's.
    """
    from labkit.learn.exercises import exercises_of

    notebook = build(source, solved=True)
    module = forms.exercise_module(notebook)
    try:
        known = exercises_of(vars(importlib.import_module(module)))
    except ImportError as error:
        raise BadInput(f"{source.name}: cannot import its exercises: {error}", f"write {module}") from error
    parameters = {name: one.default for name, one in read(notebook).items()}
    cells = {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}
    found = []
    for name, cell in cells.items():
        if not cell.metadata.nbgrader.solution:
            continue
        check = cells[f"{name}-check"]
        points = float(check.metadata.nbgrader.points)
        if name not in known:
            raise BadInput(f"{source.name}: {module} has no exercise {name}", "define it there")
        if points != known[name].max_points:
            raise BadInput(f"{source.name}: {name} gives {points:g} points, its parts {known[name].max_points:g}", "make them equal")
        found.append(InLab(known[name], cell.source, check.source, points, parameters))
    return found
