"""What does a notebook ask? Exercises that answer in one sentence and a hint, never with a stack trace.

An exercise has parts; each part is worth points and is tried on several cases. A case is drawn from a generator that
is seeded, and its expected value is computed when it is drawn, so that no literal can be copied from a neighbour. The
same object says which wrong answers are likely and which hint each of them must meet; tests hold it to that.

Limits: an answer runs in this process without a time limit; the grading sandbox sets one.

>>> def draws(answer, case):
...     tokens = int(case.integers(1, 9000))
...     return None if close(answer(tokens), 2 * tokens) else "A byte pair takes two bytes."
>>> pair = Exercise("pair", "Bytes of a pair", (Part(2, "size", draws),), wrong=())
>>> pair.check(lambda tokens: 2 * tokens, seed=1)
Right: 2 of 2 points.
2.0
"""

from __future__ import annotations

import contextlib
import io
import math
import reprlib
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CASES = 5  # how often a part is tried, each time with another case

NOT_ANSWERED = "Not answered yet."
_NO_RETURN = "A function hands its result over with `return`."
_STUBS = (None, Ellipsis, NotImplemented)

# what a part runs: the answer and the case; a hint where the answer is wrong, None where it is right
Test = Callable[[Any, Any], str | None]


@dataclass(frozen=True)
class Wrong:
    """A likely wrong answer: `code` stands in place of the solution region, and its hint must contain `hint_contains`."""

    code: str
    hint_contains: str
    why: str


@dataclass(frozen=True)
class Part:
    """`points` for an answer that passes `test` in every case; `empty` is the hint where this part alone gets nothing back."""

    points: float
    name: str
    test: Test
    empty: str = _NO_RETURN


@dataclass(frozen=True)
class Grade:
    """What an answer reached; `hint` is empty where there is nothing to mend."""

    points: float
    max_points: float
    sentence: str
    hint: str = ""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lab; its name in the module is its id.

    `case` draws one case from a `numpy.random.Generator`. Without it a test gets the generator itself and draws what
    it needs.
    """

    id: str
    title: str
    parts: tuple[Part, ...]
    wrong: tuple[Wrong, ...]
    case: Callable[[np.random.Generator], Any] | None = None

    @property
    def max_points(self) -> float:
        return float(sum(part.points for part in self.parts))

    def grade(self, answer: Any, seed: int = 1) -> Grade:
        """Try the answer. The same answer and seed give the same grade; nothing is printed, whatever the answer prints."""
        with contextlib.redirect_stdout(io.StringIO()):
            return self._grade(answer, seed)

    def check(self, answer: Any, seed: int = 1) -> float:
        """Print one sentence and a hint; the points, which nbgrader reads as partial credit."""
        result = self._grade(answer, seed)
        print(result.sentence)  # noqa: T201 - this is what the learner reads
        if result.hint:
            print(f"Hint: {result.hint}")  # noqa: T201
        return result.points

    def _grade(self, answer: Any, seed: int) -> Grade:
        if _is_stub(answer):
            return Grade(0.0, self.max_points, NOT_ANSWERED, "Fill in the cell above, run it, and run this cell again.")
        failed: list[tuple[Part, str, str]] = []
        unanswered = 0
        for number, part in enumerate(self.parts):
            said, hint = f"Not right yet ({part.name})", None
            try:
                hint = self._try(answer, part, [int(seed) % 2**63, zlib.crc32(self.id.encode()), number])
            except _NotAnswered:
                unanswered += 1
                hint = part.empty
            except _AnswerRaised as raised:
                said, hint = f"Your code raised {_named(raised.error)}", f"Call it in a cell of your own to see where: {raised.call}"
            if hint is not None:
                failed.append((part, said, hint))
        if unanswered == len(self.parts):
            return Grade(0.0, self.max_points, NOT_ANSWERED, _NO_RETURN)
        return self._sum_up(failed)

    def _try(self, answer: Any, part: Part, seeds: list[int]) -> str | None:
        generator = np.random.default_rng(seeds)
        given = _Watched(answer) if callable(answer) else answer
        for _ in range(CASES):
            drawn = self.case(generator) if self.case else generator
            try:
                with _quiet():
                    hint = part.test(given, drawn)
            except (_AnswerRaised, _NotAnswered):
                raise
            except Exception as error:  # noqa: BLE001 - whatever the answer was, the learner gets a sentence
                return f"Your answer has a form that cannot be checked ({_kind(answer, given)}): {_named(error)}"
            if hint is not None:
                return hint
        return None

    def _sum_up(self, failed: Sequence[tuple[Part, str, str]]) -> Grade:
        most = self.max_points
        if not failed:
            return Grade(most, most, f"Right: {_points(most, most)}.")
        points = min(most, max(0.0, round(most - sum(part.points for part, _, _ in failed), 6)))
        _, said, hint = failed[0]
        return Grade(points, most, f"{said}: {_points(points, most)}.", hint)


def close(a: Any, b: Any, rel: float = 1e-6, absolute: float = 1e-12) -> bool:
    """Whether two numbers, or two sequences or arrays of numbers, agree within `rel` of the larger; never for NaN.

    False, not an error, where the shapes differ or one of them is no number.
    """
    try:
        left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    except (TypeError, ValueError):
        return False
    if left.shape != right.shape:
        return False
    return bool(
        np.all(np.isfinite(left)) and np.all(np.abs(left - right) <= np.maximum(absolute, rel * np.maximum(np.abs(left), np.abs(right))))
    )


def factor(a: Any, b: Any) -> float | None:
    """a / b where both are usable numbers: a test uses it to see 'eight times too large' and say why."""
    try:
        top, bottom = float(a), float(b)
    except (TypeError, ValueError):
        return None
    return top / bottom if bottom and math.isfinite(top) and math.isfinite(bottom) else None


def likely_mistake(
    given: Any, right: Any, otherwise: str, *, values: Iterable[tuple[Any, str]] = (), factors: Mapping[float, str] | None = None
) -> str | None:
    """None where `given` is right (a number, or numbers); else the hint of the mistake with this value, or of the factor it is off by."""
    if close(given, right):
        return None
    ratio = factor(given, right)
    hints = [hint for value, hint in values if close(given, value)]
    hints += [hint for times, hint in (factors or {}).items() if ratio is not None and close(ratio, times)]
    return [*hints, otherwise][0]


def same_order(a: Iterable[Any], b: Iterable[Any]) -> bool:
    """Whether two lists hold the same things in the same order."""
    try:
        return list(a) == list(b)
    except (TypeError, ValueError):
        return False


class _NotAnswered(Exception):
    """The learner's function gave nothing back."""


class _AnswerRaised(Exception):
    def __init__(self, error: BaseException, call: str) -> None:
        self.error, self.call = error, call
        super().__init__(str(error))


class _Watched:
    """The learner's function; tells its own errors and its empty results from those of the test."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.last: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            self.last = self.function(*args, **kwargs)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is raised again, as the learner's
            raise _AnswerRaised(error, _called(self.function, args, kwargs)) from None
        if _is_stub(self.last):
            raise _NotAnswered
        return self.last


@contextlib.contextmanager
def _quiet() -> Any:
    # nbgrader gives no points to a cell with anything on stderr, and a warning of NumPy is no wrong answer
    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stderr(sys.stdout):
        warnings.simplefilter("ignore")
        yield


def _is_stub(answer: Any) -> bool:
    if any(answer is stub for stub in _STUBS):
        return True
    if isinstance(answer, Mapping):
        return bool(answer) and all(_is_stub(value) for value in answer.values())
    return isinstance(answer, (list, tuple)) and bool(answer) and all(_is_stub(value) for value in answer)


def _kind(answer: Any, given: Any) -> str:
    if isinstance(given, _Watched):
        return f"it returned {type(given.last).__name__}"
    return f"it is {type(answer).__name__}"


class _Short(reprlib.Repr):
    """Arguments short enough for a sentence: the start of lists and dictionaries, of an array its type and shape."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxset, self.maxdict = 3, 3, 4, 3, 4

    def repr_ndarray(self, x: np.ndarray, level: int) -> str:
        del level
        return f"<array of {x.dtype}, shape {x.shape}>"

    def repr_bytes(self, x: bytes, level: int) -> str:
        del level
        return f"<{len(x)} bytes>"

    def repr_instance(self, x: Any, level: int) -> str:
        del level
        return repr(x) if isinstance(x, (bool, float, np.generic, type(None))) else f"<{type(x).__name__}>"


def _called(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """A call as one would write it, on one line of at most some 200 characters."""
    shown = [_Short().repr(value) for value in args] + [f"{key}={_Short().repr(value)}" for key, value in kwargs.items()]
    said = " ".join(", ".join(shown).split())
    return f"{getattr(function, '__name__', 'the function')}({said if len(said) <= 200 else said[:199] + '…'})"


def _points(points: float, most: float) -> str:
    return f"{points:g} of {most:g} point{'' if most == 1 else 's'}"


def _named(error: BaseException) -> str:
    """An error on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
