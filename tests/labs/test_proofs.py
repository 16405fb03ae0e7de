"""Every lab: built as committed, in the shape of a lab, and its exercises proven both ways.

The proofs run over all sources there are, and over the fixture lab.
"""

import ast
import importlib

import pytest

from labkit.learn.check import NOT_ANSWERED
from labkit.teach import notebooks, pages
from labkit.teach.grading import nbgrader_bridge
from labkit.teach.notebooks import forms, structure
from labkit.teach.notebooks.exercises import in_source

SEEDS = (1, 2, 3)


def test_the_course_has_its_first_labs():
    assert [source.stem for source in notebooks.sources()][:3] == ["00_from_prompt_to_token", "01_first_model", "02_model_selection"]


def test_the_committed_notebooks_are_what_their_sources_build():
    assert notebooks.write_all(check=True) == []


def test_the_committed_pages_are_what_their_labs_say():
    assert pages.write_pages(check=True) == []


def test_structure(source):
    assert structure.problems(source) == []


def test_two_builds_are_the_same_bytes(source):
    from labkit.teach.notebooks.build import dumps

    for solved in (False, True):
        assert dumps(notebooks.build(source, solved)) == dumps(notebooks.build(source, solved))


def test_the_solution_gets_all_points(source):
    for one in in_source(source):
        for seed in SEEDS:
            grade = one.grade_solution(seed)
            assert (grade.points, grade.hint) == (one.points, ""), (one.id, seed, grade)


def test_the_blank_form_gets_none(source):
    """Each check cell's own code, over the blank exercise cell: no points, and no error."""
    ex = importlib.import_module(forms.exercise_module(notebooks.build(source)))
    for one in in_source(source):
        assert (one.grade().points, one.grade().sentence) == (0, NOT_ANSWERED), one.id
        names = {**one.parameters, "ex": ex}
        exec(one.cell(), names)  # noqa: S102 - the course's own code, as in the two lines below
        *before, last = ast.parse(one.check).body
        exec(compile(ast.Module(before, []), one.id, "exec"), names)  # noqa: S102
        assert eval(compile(ast.Expression(last.value), one.id, "eval"), names) == 0.0, one.id  # noqa: S307


def test_wrong_answers_get_the_right_hint(source):
    for one in in_source(source):
        for wrong in one.exercise.wrong:
            for seed in SEEDS:
                grade = one.grade(wrong.code, seed)
                assert grade.points < one.points, (one.id, wrong.code, seed)
                assert wrong.hint_contains in f"{grade.sentence} {grade.hint}", (one.id, wrong.code, seed, grade)


def test_the_proofs_run_offline(offline):
    """The labs below run in a network that has no interface but loopback."""
    links = offline(["ip", "-o", "link"]).stdout.splitlines()
    assert len(links) == 1
    assert ": lo:" in links[0]


@pytest.mark.timeout(880)
def test_the_learners_form_runs(source, nbval):
    """First of the two executions of a lab: without its exercise and check cells, so all the rest runs unanswered."""
    nbval(forms.learner(source))


@pytest.mark.timeout(880)
def test_the_solved_form_runs_and_gets_all_points(source, nbval, tmp_path):
    """Second and last execution of a lab, and it serves two proofs.

    nbval runs the solved form in its kernel and compares what is to be compared. nbgrader's autograder then grades the
    same notebook: everything of it is real but the kernel, in whose place the outputs of nbval's kernel are put.
    """
    solved = forms.solved(source)
    ran = nbval(solved)
    outputs = {name: cell.outputs for name, cell in ran.items()}
    graded = nbgrader_bridge.autograde_all(notebooks.build(source), {"learner": solved}, tmp_path, outputs=outputs)
    assert graded["learner"] == {one.id: (one.points, one.points) for one in in_source(source)}


def test_nbgrader_gives_the_blank_form_nothing_and_the_solved_one_all(source, tmp_path):
    """The whole of nbgrader with its own kernel, over the graded cells alone: seconds, and no model.

    The solved notebook as a whole is graded by the test above.
    """
    submissions = {"blank": forms.graded(source, solved=False), "solved": forms.graded(source, solved=True)}
    graded = nbgrader_bridge.autograde_all(forms.graded(source, solved=False), submissions, tmp_path)
    assert graded["blank"] == {one.id: (0, one.points) for one in in_source(source)}
    assert graded["solved"] == {one.id: (one.points, one.points) for one in in_source(source)}
