"""The exercises of the labs: one module a lab, `lab_02` for lab 02. A notebook imports its own as `ex`.

An exercise's name in the module is its id:

>>> from labkit.learn.check import Exercise
>>> exercises_of({"a": Exercise("a", "A", (), ()), "other": 1})
{'a': Exercise(id='a', title='A', parts=(), wrong=(), case=None)}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.core.errors import BadInput


def exercises_of(names: Mapping[str, Any]) -> dict[str, Any]:
    """The exercises among the names of a module (`vars(module)`), in the order of definition.

    Raises:
        BadInput: an exercise whose name in the module is not its id.
    """
    from labkit.learn.check import Exercise  # NumPy, only when exercises are asked for

    found = {name: value for name, value in names.items() if isinstance(value, Exercise)}
    for name, exercise in found.items():
        if name != exercise.id:
            raise BadInput(f"the exercise {name} has the id {exercise.id!r}", f"give it the id {name!r}")
    return found
