"""Exercises: one sentence and a hint, points by part, never a stack trace."""

import sys
import warnings

import numpy as np
import pytest

from labkit.core.errors import BadInput
from labkit.learn.check import NOT_ANSWERED, Exercise, Grade, Part, Wrong, close, factor, same_order
from labkit.learn.exercises import exercises_of


def square(answer, case):
    number = case.uniform(1, 100)
    return None if close(answer(number), number**2) else "Multiply it by itself."


def negative(answer, case):
    number = -case.uniform(1, 100)
    return None if close(answer(number), number**2) else "A square is never below zero."


EXERCISE = Exercise("square", "A square", (Part(2, "above zero", square), Part(1, "below zero", negative)), (Wrong("", "", ""),))


def stops(number):
    sys.exit("enough")


@pytest.mark.parametrize(
    ("answer", "points", "sentence", "hint"),
    [
        (lambda x: x * x, 3, "Right: 3 of 3 points.", ""),
        (lambda x: x * abs(x), 2, "Not right yet (below zero): 2 of 3 points.", "A square is never below zero."),
        (lambda x: 2 * x, 0, "Not right yet (above zero): 0 of 3 points.", "Multiply it by itself."),
        (lambda x: None, 0, NOT_ANSWERED, "A function hands its result over with `return`."),
        (lambda x: ..., 0, NOT_ANSWERED, "A function hands its result over with `return`."),
        (lambda x: [None, None], 0, NOT_ANSWERED, "A function hands its result over with `return`."),
        (lambda x: x * x if x > 0 else None, 2, "Not right yet (below zero): 2 of 3 points.", "A function hands its result"),
        (None, 0, NOT_ANSWERED, "Fill in the cell above"),
        (..., 0, NOT_ANSWERED, "Fill in the cell above"),
        ((None, None), 0, NOT_ANSWERED, "Fill in the cell above"),
        ({"a": None}, 0, NOT_ANSWERED, "Fill in the cell above"),
        (lambda x: 1 / 0, 0, "Your code raised ZeroDivisionError: division by zero: 0 of 3 points.", "cell of your own"),
        (stops, 0, "Your code raised SystemExit: enough: 0 of 3 points.", "cell of your own"),
        (lambda: 1, 0, "Your code raised TypeError:", "cell of your own"),
        (7, 0, "Not right yet (above zero): 0 of 3 points.", "has a form that cannot be checked (it is int): TypeError"),
        (lambda x: "many", 0, "Not right yet (above zero)", "Multiply it by itself."),
        (lambda x: float("nan"), 0, "Not right yet (above zero)", "Multiply it by itself."),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, -5])
def test_grade(answer, points, sentence, hint, seed):
    grade = EXERCISE.grade(answer, seed)
    assert (grade.points, grade.max_points) == (points, 3)
    assert grade.sentence.startswith(sentence)
    assert hint in grade.hint
    assert "\n" not in grade.sentence + grade.hint


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ([1.5, 2, 3, 4], "root([1.5, 2, 3, ...])"),
        (np.zeros((2, 3), np.float32), "root(<array of float32, shape (2, 3)>)"),
        ({"a": b"12", "b": None}, "root({'a': <2 bytes>, 'b': None})"),
        (object(), "root(<object>)"),
    ],
)
def test_a_failed_call_is_shown(argument, shown):
    def root(x):
        return x.missing

    one = Exercise("root", "A root", (Part(1, "a part", lambda answer, case: answer(argument)),), ())
    assert one.grade(root).hint == f"Call it in a cell of your own to see where: {shown}"


def test_a_long_call_is_cut():
    one = Exercise("x", "X", (Part(1, "a part", lambda answer, case: answer(*[["long" * 20] * 3] * 9)),), ())
    assert len(one.grade(lambda: 1).hint) < 270


def test_a_part_has_a_word_for_an_empty_result():
    one = Exercise("x", "X", (Part(1, "a", lambda answer, case: None), Part(1, "b", lambda answer, case: answer(), "say none")), ())
    assert one.grade(lambda: None) == Grade(1.0, 2.0, "Not right yet (b): 1 of 2 points.", "say none")


def test_check_prints_the_sentence_and_the_hint_and_gives_a_plain_float(capsys):
    points = EXERCISE.check(lambda x: 2 * x, seed=1)
    assert type(points) is float  # nbgrader reads its repr: np.float64(0.0) would be taken for full points
    assert capsys.readouterr().out == "Not right yet (above zero): 0 of 3 points.\nHint: Multiply it by itself.\n"
    assert repr(EXERCISE.check(lambda x: x * x, seed=1)) == "3.0"
    assert capsys.readouterr().out == "Right: 3 of 3 points.\n"


def test_cases_vary_with_the_seed_and_repeat_with_it():
    def seen(seed):
        drawn = []
        EXERCISE.grade(lambda x: drawn.append(x) or x * x, seed)
        return drawn

    assert seen(1) == seen(1)
    assert not set(seen(1)) & set(seen(2))
    assert len(set(seen(1))) == 10  # two parts, five cases each, none twice


def test_a_case_function_draws_the_cases():
    def test(answer, case):
        return None if answer(**case) == case["a"] + case["b"] else "Add."

    exercise = Exercise("add", "Add", (Part(1, "sum", test),), (), case=lambda g: {"a": int(g.integers(9)), "b": int(g.integers(9))})
    assert exercise.grade(lambda a, b: a + b).points == 1
    assert exercise.grade(lambda a, b: a - b, seed=3) == Grade(0.0, 1.0, "Not right yet (sum): 0 of 1 point.", "Add.")


def test_nothing_of_an_answer_reaches_stderr(capsys):
    """nbgrader gives no points to a check cell with anything on stderr."""

    def noisy(x):
        warnings.warn("careful", stacklevel=1)
        print("note", file=sys.stderr)
        np.float64(1.0) / np.float64(0.0)
        return x * x

    assert EXERCISE.check(noisy) == 3
    assert capsys.readouterr().err == ""


def test_grade_prints_nothing(capsys):
    EXERCISE.grade(lambda x: print(x) or x * x)
    assert capsys.readouterr().out == ""


def test_points_of_parts_that_are_fractions_never_pass_the_maximum():
    parts = tuple(Part(0.1, str(n), square) for n in range(3))
    exercise = Exercise("square", "", parts, ())
    assert exercise.grade(lambda x: x * x).points == exercise.max_points
    assert exercise.grade(lambda x: x).points == 0


@pytest.mark.parametrize(
    ("a", "b", "rel", "expected"),
    [
        (1.0, 1.0, 1e-6, True),
        (1.0, 1.1, 0.05, False),
        (1.0, 1.1, 0.1, True),
        (0, 0.0, 1e-6, True),
        (1e-20, 0, 1e-6, True),
        (float("nan"), float("nan"), 1, False),
        (float("inf"), float("inf"), 1, False),
        ([1, 2], (1, 2), 1e-6, True),
        ([1, 2], [1, 2, 3], 1e-6, False),
        (np.ones(3), [1, 1, 1], 1e-6, True),
        ("1.0.0", 1, 1e-6, False),
        (None, 1, 1e-6, False),
        (1, {"a": 1}, 1e-6, False),
    ],
)
def test_close(a, b, rel, expected):
    assert close(a, b, rel=rel) is expected
    assert close(b, a, rel=rel) is expected


def test_other_comparisons():
    assert (factor(8, 1), factor(1, 0), factor("x", 1), factor(None, 1)) == (8, None, None, None)
    assert same_order([1, 2], (1, 2)) and not same_order([2, 1], [1, 2]) and not same_order(1, [1])


def test_an_exercise_is_named_as_its_id():
    assert exercises_of({"square": EXERCISE, "np": np}) == {"square": EXERCISE}
    with pytest.raises(BadInput, match="the exercise cube has the id 'square'"):
        exercises_of({"cube": EXERCISE})
