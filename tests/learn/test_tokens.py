"""What lab 00 shows: scores to choices, pieces of text, drawings. No model is loaded here."""

import json

import matplotlib
import numpy as np
import pytest

from labkit.core.errors import BadInput
from labkit.learn import tokens

matplotlib.use("Agg")


@pytest.fixture
def logits():
    return np.random.default_rng(5).normal(0, 3, 5000).astype(np.float32)


@pytest.fixture
def row(logits):
    return tokens.summary(logits, text_of=lambda token: f" t{token}")


# -- scores


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_softmax(temperature):
    scores = np.array([1000.0, 1001.0, 999.5, -np.inf])
    weights = np.exp((scores - 1000) / temperature)
    assert tokens.softmax(scores, temperature) == pytest.approx(weights / weights.sum())
    assert tokens.softmax([1, 3, 2], 0).tolist() == [0, 1, 0]


def test_softmax_counts_tokens_that_share_a_score():
    assert tokens.softmax([2.0, 1.0], 0.7, [1, 3])[1] == pytest.approx(tokens.softmax([2.0, 1.0, 1.0, 1.0], 0.7)[1:].sum())


@pytest.mark.parametrize(
    ("p", "stay"),
    [(0.1, [True, False, False]), (0.5, [True, False, False]), (0.51, [True, True, False]), (0.8, [True, True, False]), (1.0, [True] * 3)],
)
def test_top_p_keeps_as_few_as_reach_p(p, stay):
    assert tokens.top_p_mask([0.5, 0.3, 0.2], p).tolist() == stay


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.0])
def test_a_summary_gives_the_probabilities_of_the_whole_vocabulary(logits, row, temperature):
    best = np.argsort(-logits, kind="stable")[: tokens.TOP]
    assert [c["id"] for c in row["candidates"]] == best.tolist()
    assert tokens.choose(row, temperature).probabilities[: tokens.TOP] == pytest.approx(tokens.softmax(logits, temperature)[best], rel=5e-3)
    assert tokens.TOP + sum(row["others"]["counts"]) == row["vocabulary"] == len(logits)
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_summary_of_a_vocabulary_smaller_than_its_top():
    small = tokens.summary(np.array([1.0, 3.0, -np.inf]), text_of=str, top=2)
    assert [c["text"] for c in small["candidates"]] == ["1", "0"] and small["others"]["counts"] == []


def test_the_draw_depends_on_the_seed_alone(row):
    drawn = [tokens.choose(row, 1.5, 0.9, seed).drawn for seed in range(30)]
    assert drawn == [tokens.choose(row, 1.5, 0.9, seed).drawn for seed in range(30)]
    assert len(set(drawn)) > 3
    assert {tokens.choose(row, 0.0, 1.0, seed).drawn for seed in range(30)} == {0}


def test_what_top_p_throws_out_is_never_drawn(row):
    for seed in range(30):
        choice = tokens.choose(row, 2.0, 0.3, seed)
        assert choice.kept[choice.drawn] and choice.probabilities[~choice.kept].sum() == 0
    # the best tokens stay, without a gap
    assert choice.kept.tolist() == sorted(choice.kept.tolist(), reverse=True)


def test_a_draw_follows_its_probabilities(row):
    drawn = np.bincount([tokens.choose(row, 0.7, 1.0, seed).drawn for seed in range(2000)], minlength=3)[:3] / 2000
    assert drawn == pytest.approx(tokens.choose(row, 0.7).probabilities[:3], abs=0.04)


# -- pieces


class Words:
    """A tokenizer of three tokens; token 2 is a marker, token 3 has no text at all."""

    def token_text(self, token, special=False):
        return {1: " cat", 2: "<|end|>" if special else "", 3: ""}[token]


def test_pieces_tell_markers_from_text():
    assert [(p["text"], p["special"]) for p in tokens.pieces(Words(), [1, 2, 3])] == [(" cat", False), ("<|end|>", True), ("", False)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [(" cat", "␣cat"), ("a\n", "a↵"), ("\ufffd", "▯"), ("αι", "αι"), ("い", "\\u3044"), ("\x07", "\\u0007"), ("$x$", "$x$")],
)
def test_visible(text, shown):
    assert tokens.visible(text) == shown


# -- drawings (warnings are errors here, so a letter that the font lacks would show)


def test_pieces_are_drawn_as_boxes_in_rows():
    line = [{"id": 49000 + n, "text": text, "special": n == 2} for n, text in enumerate([" $5", "日本", "<|end|>", "\n", "\ufffd"] * 8)]
    fig = tokens.draw_pieces([line, line[:3]], "caption")
    fig.canvas.draw()
    assert len(fig.axes[0].patches) == 43
    assert len({patch.get_y() for patch in fig.axes[0].patches}) >= 3
    assert all(patch.get_x() + patch.get_width() <= 79 for patch in fig.axes[0].patches)
    assert len({patch.get_facecolor() for patch in fig.axes[0].patches}) == 3


def test_candidates_have_a_bar_for_all_others(row):
    fig = tokens.draw_candidates(row, "caption")
    fig.canvas.draw()
    scores, shares = fig.axes
    assert len(shares.patches) == len(scores.patches) + 1
    assert sum(patch.get_width() for patch in shares.patches) == pytest.approx(100)
    assert shares.get_yticklabels()[-1].get_text() == "4,988 others"


def test_temperatures_move_weight_to_the_others(row):
    fig = tokens.draw_temperatures(row, "caption", (0.3, 1.0, 2.0))
    others = [ax.patches[-1].get_width() for ax in fig.axes]
    assert others == sorted(others) and others[0] < others[-1]


@pytest.mark.parametrize(("temperature", "top_p", "seed"), [(0.0, 1.0, 1), (1.0, 0.5, 2), (2.0, 1.0, 3)])
def test_a_choice_shows_what_was_drawn(row, temperature, top_p, seed):
    fig = tokens.draw_choice(row, "caption", temperature, top_p, seed)
    fig.canvas.draw()
    after = fig.axes[0].containers[1].patches
    assert sum(patch.get_width() for patch in after) == pytest.approx(100)
    orange = [n for n, patch in enumerate(after) if patch.get_facecolor() == matplotlib.colors.to_rgba(tokens.plots.ORANGE)]
    assert orange == [min(tokens.choose(row, temperature, top_p, seed).drawn, len(after) - 1)]


def test_a_vocabulary_without_others_has_no_bar_for_them():
    few = tokens.summary(np.array([1.0, 2.0, 0.5]), text_of=str)
    assert len(tokens.draw_candidates(few, "caption").axes[1].patches) == 3
    assert len(tokens.draw_choice(few, "caption", 1.0, 1.0, 1).axes[0].containers[1].patches) == 3


# -- running


def test_timed_gives_each_item_its_own_seconds():
    import time

    def slow():
        yield "a"
        time.sleep(0.05)
        yield "b"

    (first, first_s), (second, second_s) = tokens.timed(slow())
    assert (first, second) == ("a", "b") and second_s >= 0.05 > first_s >= 0


def test_a_refusal_is_kept_as_a_sentence_and_must_come(capsys):
    def refuse():
        raise BadInput("too long", "shorten it")

    assert tokens.refusal(refuse) == "BadInput: too long — shorten it"
    assert capsys.readouterr().out == ""
    with pytest.raises(AssertionError):
        tokens.refusal(lambda: None)
    with pytest.raises(ZeroDivisionError):
        tokens.refusal(lambda: 1 / 0)
