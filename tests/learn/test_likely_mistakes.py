"""Exercises under many seeds: the solution is right under each, and each likely mistake loses points and meets its own hint."""

import importlib

import pytest

from labkit.teach.notebooks import find
from labkit.teach.notebooks.exercises import in_source

LABS = ("07", "08", "10", "11", "12", "18", "16", "17", "19")
SEEDS = range(1, 30)
EXERCISES = [pytest.param(lab, one, id=f"{lab}-{one.id}") for lab in LABS for one in in_source(find(lab).source)]


@pytest.mark.parametrize(("lab", "one"), EXERCISES)
def test_a_likely_mistake_meets_its_hint_whatever_the_seed(lab, one):
    assert vars(importlib.import_module(f"labkit.learn.exercises.lab_{lab}"))[one.id] is one.exercise
    for seed in SEEDS:
        assert one.grade_solution(seed).points == one.points
        for wrong in one.exercise.wrong:
            grade = one.grade(wrong.code, seed=seed)
            assert wrong.hint_contains in grade.hint, (one.id, wrong.why, seed, grade)
            assert grade.points < one.points
