"""Lab 01, what is special to it; what holds for every lab is proven elsewhere."""

from __future__ import annotations

import ast
import dataclasses

import pytest

from labkit.learn.exercises import exercises_of, lab_01
from labkit.teach import notebooks
from labkit.teach.notebooks.exercises import in_source

SOURCE = notebooks.find("01").source
STEPS = ["first_answer", "again", "prompt_lengths", "threads", "ends", "turns", "systems", "cancel", "memory", "bench"]
EXERCISES = in_source(SOURCE)
WRONG = [(one, wrong) for one in EXERCISES for wrong in one.exercise.wrong]


def calls(name: str) -> list[ast.Call]:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


def test_every_measurement_is_a_step_of_its_own():
    assert sorted(ast.literal_eval(call.args[0]) for call in calls("lab.step")) == sorted(STEPS)


def test_bench_asks_the_same_in_quick_and_full_runs():
    """A grid compares it over machines and models: only the number of repeats may differ."""
    source = SOURCE.read_text(encoding="utf-8")
    (request,) = [text for text in source.splitlines() if text.startswith("bench_request = ")]
    assert "quick" not in request
    assert "ignore_eos=True" in request


def test_all_exercises_are_in_the_notebook():
    assert {one.id for one in EXERCISES} == set(exercises_of(vars(lab_01)))


@pytest.mark.parametrize(("one", "wrong"), WRONG, ids=[f"{one.id}-{n}" for n, (one, _) in enumerate(WRONG)])
def test_a_likely_mistake_meets_its_hint_whatever_the_seed(one, wrong):
    for seed in range(1, 40):
        grade = one.grade(wrong.code, seed=seed)
        assert wrong.hint_contains in grade.hint, f"seed {seed}: {dataclasses.asdict(grade)}"
        assert grade.points < grade.max_points


@pytest.mark.parametrize(
    ("exercise", "contains", "points"),
    [
        ("ttft_s", "marks_ns[-1] - start_ns", 1),
        ("tpot_s", "np.median", 1),
        ("first_run_factor", "// 2", 2),
        ("decode_tokens_per_s", "len(marks_ns) / ((marks_ns[-1] - start_ns)", 1),
        ("which_threads", "np.median", 2),
    ],
)
def test_half_right_gets_part_of_the_points(exercise, contains, points):
    (one,) = [one for one in EXERCISES if one.id == exercise]
    (wrong,) = [wrong for wrong in one.exercise.wrong if contains in wrong.code]
    assert one.grade(wrong.code).points == points
