"""Lab 00 alone: its exercises on many seeds and with other right answers, and its helpers on the real model.

What every lab must have is tested for all labs together.
"""

import numpy as np
import pytest

from labkit import engines, models
from labkit.core.records import Request
from labkit.learn import tokens
from labkit.learn.exercises import lab_00 as ex
from labkit.teach.notebooks import find
from labkit.teach.notebooks.exercises import in_source

SEEDS = range(2, 14)


@pytest.fixture(scope="module")
def exercises():
    return in_source(find("00").source)


@pytest.fixture(scope="module")
def session():
    with engines.open("llamacpp").load(models.resolve("smollm2-135m"), threads=1, context=256) as loaded:
        yield loaded


def test_grades_do_not_depend_on_the_draw(exercises):
    for one in exercises:
        for seed in SEEDS:
            assert one.grade_solution(seed).points == one.points
            assert one.grade(None, seed).points == 0
            for wrong in one.exercise.wrong:
                grade = one.grade(wrong.code, seed)
                assert grade.points < one.points, (one.id, wrong.why, seed)
                assert wrong.hint_contains in grade.hint, (one.id, wrong.why, seed, grade.hint)


def by_numpy(logits, temperature):
    return tuple(tokens.softmax(logits, temperature))


def keep_as_array(probabilities, p):
    order = np.argsort(-np.array(probabilities))
    return np.sort(order[tokens.top_p_mask(np.array(probabilities)[order], p)])


def loop_that_changes_its_prompt(scores_of, prompt, max_tokens, end):
    start = len(prompt)
    for _ in range(max_tokens):
        best = np.argmax(scores_of(prompt))
        if best == end:
            break
        prompt.append(best)
    return prompt[start:]


def compare_with_zip(cached, prompt):
    for place, (a, b) in enumerate(zip(cached, prompt, strict=False)):
        if a != b:
            return len(prompt) - place
    return max(len(prompt) - len(cached), 1)


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (ex.softmax, by_numpy),
        (ex.top_p_keep, keep_as_array),
        (ex.greedy_loop, loop_that_changes_its_prompt),
        (ex.tokens_to_compute, compare_with_zip),
    ],
    ids=lambda value: getattr(value, "id", ""),
)
def test_another_right_answer_gets_full_points(exercise, answer):
    for seed in SEEDS:
        assert exercise.grade(answer, seed).points == exercise.max_points


def test_a_loop_that_never_ends_is_stopped():
    def endless(scores_of, prompt, max_tokens, end):
        while True:
            scores_of(prompt)

    assert "never ends" in ex.greedy_loop.grade(endless).sentence


def test_the_kept_scores_give_the_models_own_probabilities(session):
    *_, last = session.logits(session.prompt_tokens(Request(prompt="The farmer keeps cows, pigs and")))
    row = tokens.summary(last, session.token_text)
    assert row["vocabulary"] == session.n_vocab
    for temperature in (0.5, 1.0, 2.0):
        exact = np.sort(tokens.softmax(last, temperature))[::-1][: tokens.TOP]
        assert tokens.choose(row, temperature).probabilities[: tokens.TOP] == pytest.approx(exact, rel=5e-3)


def test_the_template_shows_its_markers(session):
    pieces = tokens.pieces(session, session.prompt_tokens(Request.chat("Hi")))
    assert any(piece["special"] for piece in pieces) and not all(piece["special"] for piece in pieces)
    assert "".join(piece["text"] for piece in pieces) == session.chat_prompt(Request.chat("Hi").messages)


def test_a_second_turn_reuses_its_beginning_only_with_the_cache_kept(session):
    first = Request.chat("The key is under the blue pot.", max_tokens=3, ignore_eos=True)
    turns = tokens.second_turns(session, first, "Where is it?", repeats=2)
    assert len(turns) == 4 and len({turn.prompt_tokens for turn in turns}) == 1
    for turn in turns:
        kept = turn.settings["keep_cache"]
        assert (turn.cached_tokens > turn.prompt_tokens / 2) if kept else turn.cached_tokens == 0


def test_prompts_of_several_lengths(session):
    runs = tokens.read_lengths(session, (8, 24), repeats=2)
    assert sorted((run.prompt_tokens, run.output_tokens) for run in runs) == [(8, 8), (8, 8), (24, 8), (24, 8)]


def test_the_edge_of_the_window(session):
    assert "context" in tokens.refusal(lambda: session.stream(Request(tokens=tokens.filler(session, 256))))
    chunks = list(session.stream(Request(tokens=tokens.filler(session, 244), max_tokens=100, ignore_eos=True)))
    assert sum(chunk.tokens for chunk in chunks) == 256 - 244 + 1  # the last token needs no place
    assert session.usage().finish_reason == "length"
