"""The shape of a lab, its header and its instructor's page: what is against the rules is said."""

import pytest

from labkit.core.errors import BadInput
from labkit.teach import pages
from labkit.teach.notebooks import find, structure
from labkit.teach.notebooks.exercises import in_source
from labkit.teach.notebooks.front import front


def test_the_fixture_is_well_formed(source):
    assert structure.problems(source) == []


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("# # Does it double?", "# # It doubles", "the first cell must ask"),
        ("# %% [markdown]\n# # Does it double?\n# A small lab for the tests.\n\n", "", "the second cell must be the one tagged parameters"),
        ("seed: int", "seed: float", "parameter seed is missing or not int"),
        ("threads: int = 0  # 0: choose by measuring\n", "", "parameter threads is missing"),
        ("engine: str", "motor: str", "no parameter engine or engines"),
        ("  # of every random choice", "", "parameter seed has no comment"),
        ('print("no later', 'print(double(2), "no later', "a cell other than its check uses double"),
        ("    return sum(values) / len(values)", "    return sum(values) / double(1)", "a cell other than its check uses double"),
        ("steps = 1", "\n".join(f"a{n} = {n}" for n in range(12)) + "\nsteps = 1", "14 lines of code"),
        ("def mean(values):", "import pandas\n\ndef mean(values):", "exercise mean imports pandas"),
        ('tags=["nbval-check-output"]', "", "no cell is tagged nbval-check-output"),
        ('exercise="mean" points=2', 'exercise="mean" points=3', "mean gives 3 points, its parts 2"),
        ("import lab_90_exercises as ex", "import lab_90_exercises", "does not import its exercises"),
        ("import lab_90_exercises as ex", "import lab_91_exercises as ex", "cannot import its exercises"),
        ('exercise="mean"', 'exercise="median"', "has no exercise median"),
        ("minutes: 2", "minute: 2", "unknown entry 'minute' — did you mean minutes"),
        ("minutes: 2", "minutes: soon", "minutes must be a number"),
        ("track: [run]", "track: run", "track must be a list"),
        ("title: Does", "title: a: Does", "its header is not YAML"),
    ],
)
def test_problems(source, old, new, sentence):
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    assert sentence in " ".join(structure.problems(source))


def test_too_few_exercises_and_wrong_answers(source, monkeypatch):
    import dataclasses

    import lab_90_exercises

    monkeypatch.setattr(lab_90_exercises, "week", dataclasses.replace(lab_90_exercises.week, wrong=()))
    monkeypatch.setattr(structure, "MIN_EXERCISES", 4)
    assert structure.problems(source) == ["3 exercises; a lab has at least 4", "week has 0 wrong answers; at least 3"]


def test_an_answer_in_its_cell(source):
    double, week, mean = in_source(source)
    assert (double.grade_solution().points, double.grade().points, double.grade("return 2 * abs(number)").points) == (2, 0, 1)
    assert (week.grade_solution().points, week.grade("week = 8").points) == (1, 0)
    assert mean.grade("print(values)").sentence == "Not answered yet."


def test_front(source):
    about = front(source)
    assert (about.title, about.minutes, about.builds_on, len(about.transfer)) == ("Does it double?", 2, ("00", "01"), 5)
    source.write_text("# %%\nx = 1\n")
    assert front(source).title == "Fixture"
    source.write_text("# ---\n# jupyter:\n#   labkit:\n#     title: There\n#     expected:\n#       - decode: 1 to 2\n# ---\n")
    assert (front(source).title, front(source).expected) == ("There", ("decode: 1 to 2",))


def test_page(course, source):
    text = pages.page(find(90, root=course))
    for part in ("# Lab 90: Does it double?", "| Prerequisites | lab 00, lab 01 |", "- nothing is measured here", "5. Five?"):
        assert part in text
    for one in in_source(source):
        for wrong in one.exercise.wrong:
            assert wrong.why in text and wrong.code in text and wrong.hint_contains in text


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (', "Five?"', "", "4 transfer questions, not 5"),
        ('"Five?"', '"Five?", "Six?"', "6 transfer questions, not 5"),
        ('["nothing is measured here"]', "[]", "its header has no expected"),
        ("minutes: 2", "memory_gb: 2", "its header has no minutes"),
    ],
)
def test_a_page_needs_a_complete_header(course, source, old, new, sentence):
    source.write_text(source.read_text().replace(old, new))
    with pytest.raises(BadInput, match=sentence):
        pages.page(find(90, root=course))


def test_pages_are_written_and_checked(course, source):
    assert pages.write_pages(check=True, root=course) == [
        {"path": "docs/labs/90_fixture.md", "reason": "differs from its lab: run labkit build"}
    ]
    assert not (course / "docs").exists()
    assert [row["reason"] for row in pages.write_pages(root=course)] == ["new"]
    assert [row["reason"] for row in pages.write_pages(root=course)] == ["unchanged"]
    assert pages.write_pages(check=True, root=course) == []
    source.write_text(source.read_text().replace("minutes: 2", "minutes: 3"))
    assert len(pages.write_pages(check=True, root=course)) == 1
    assert [row["reason"] for row in pages.write_pages(root=course)] == ["changed"]
