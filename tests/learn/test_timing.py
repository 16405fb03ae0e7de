"""labkit.learn.timing: words and numbers of lab 01, from fixed figures."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import pytest

from labkit.core.errors import BadInput
from labkit.core.records import SCHEMA, Marks, Measurement, Request
from labkit.learn import plots, timing
from labkit.measure.clock import Spread

MS = 1_000_000


def measurement(**changes: object) -> Measurement:
    """Prompt of 100 tokens, 5 tokens of answer: 400 ms wait, then 500 ms."""
    marks = tuple(at * MS for at in (400, 500, 600, 800, 900))
    given = {
        "model": "toy",
        "engine": "none",
        "prompt_tokens": 100,
        "output_tokens": 5,
        "cached_tokens": 0,
        "marks_ns": Marks(start=0, first=marks[0], last=marks[-1]),
        "token_marks_ns": marks,
        "threads": 1,
    }
    return Measurement(**{**given, **changes})


def test_told():
    assert timing.told(Spread(2.0, 1.0, 4.0, 3), "s") == "2 s (1 to 4, n = 3)"
    assert timing.told(None, "s") == "unknown"


@pytest.mark.parametrize(("marks", "gaps"), [(None, []), ((), []), ((5 * MS,), []), ((MS, 3 * MS, 4 * MS), [0.002, 0.001])])
def test_gaps(marks, gaps):
    assert timing.gaps_s(marks) == pytest.approx(gaps)


@pytest.mark.parametrize("vocabulary", [7, 256, 262_144])
def test_token_prompt_fits_every_vocabulary(vocabulary):
    ids = timing.token_prompt(300, vocabulary)
    assert len(ids) == 300
    assert 0 <= min(ids) <= max(ids) < vocabulary


def test_claims_differ_for_one_run():
    decode, end_to_end, mixed, prefill = timing.claims(measurement()).values()
    assert decode == pytest.approx(4 / 0.5)
    assert end_to_end == pytest.approx(5 / 0.9)
    assert mixed == pytest.approx(105 / 0.9)
    assert prefill == pytest.approx(100 / 0.4)


def test_claims_unknown_is_none():
    unknown = measurement(prompt_tokens=None, output_tokens=None, token_marks_ns=None, marks_ns=Marks(start=0))
    assert set(timing.claims(unknown).values()) == {None}


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (3.0, "slower than all others. By chance alone that happens once in 4 times"),
        (0.5, "below all of them"),
        (1.5, "inside their range"),
    ],
)
def test_told_first(first, said):
    text = timing.told_first(first, [1.0, 2.0, 2.0])
    assert said in text
    assert f"{first / 2:.2f} times the median" in text


def test_by_keeps_what_is_known():
    one, two, unknown = measurement(), measurement(threads=2), measurement(threads=None)
    nothing = measurement(output_tokens=1)
    assert timing.by([two, one, unknown, nothing, one], "threads", "decode_tokens_per_s") == {1: [8.0, 8.0], 2: [8.0]}


def test_medians():
    slow = measurement(marks_ns=Marks(start=-MS * 600, first=400 * MS, last=900 * MS))
    assert timing.medians([measurement(), slow, slow, measurement(prompt_tokens=7)], "prompt_tokens", "ttft_s") == {7: 0.4, 100: 1.0}


@pytest.mark.parametrize(("wanted", "column"), [(1, 0), (2, 1), (3, 1), (4, 2), (64, 2), (0, 0)])
def test_column_nearest_to_a_prediction(wanted, column):
    assert timing.column({1: [], 2: [], 4: []}, wanted) == column


def test_ending_says_what_was_allowed_and_what_came():
    row = timing.ending("count", Request(prompt="1, 2,", max_tokens=9, stop=("8",)), measurement(finish_reason="stop", text=" 3"))
    assert row == {"asked": "count", "max_tokens": 9, "stop strings": ["8"], "output_tokens": 5, "finish_reason": "stop", "text": " 3"}


CLEAR = {1: [12.0, 15.0, 20.0], 2: [31.0, 33.0, 34.0]}
TIE = {1: [12.0, 15.0, 20.0], 2: [11.0, 18.0, 34.0]}
TOO_MANY = {1: [12.0, 15.0, 20.0], 2: [31.0, 33.0, 34.0], 4: [9.0, 10.0, 11.0]}


@pytest.mark.parametrize(
    ("rates", "take", "verdict"),
    [(CLEAR, 2, "true here"), (TIE, 1, "a tie here"), (TOO_MANY, 2, "false here"), ({1: [5.0], 2: []}, 1, "Take 1 thread.")],
)
def test_threads_in_words(rates, take, verdict):
    assert timing.fewest_tied(rates) == take
    text = timing.told_threads(rates)
    assert verdict in text
    assert f"Take {take} thread" in text
    assert ("Tied" in text) == (rates is TIE)


@pytest.mark.parametrize("tell", [timing.fewest_tied, timing.told_threads])
def test_no_known_rate_is_one_sentence(tell):
    with pytest.raises(BadInput, match="no thread count has a known rate"):
        tell({1: []})


def test_a_prediction_above_the_axis_is_seen():
    _, ax = plots.figure("here")
    plots.points(ax, {"first": [1.0], "others": [0.5, 0.6]}, "s")
    timing.mark_prediction(ax, 0, 9.0)
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] > 9
    assert list(ax.lines[-1].get_ydata()) == [9.0, 9.0]


class Session:
    """Knows a system role, or does not."""

    def __init__(self, knows: bool) -> None:
        self.knows = knows

    def chat_prompt(self, messages: object) -> str:
        if not self.knows:
            raise BadInput("the model's chat template refuses these messages: no system role")
        return "prompt"


@pytest.mark.parametrize(
    ("knows", "messages"), [(True, [("system", "Be brief."), ("user", "Why?")]), (False, [("user", "Be brief.\n\nWhy?")])]
)
def test_system_prompt_for_every_template(knows, messages):
    request = timing.system_request(Session(knows), "Be brief.", "Why?", max_tokens=7)
    assert [(m.role, m.content) for m in request.messages] == messages
    assert request.max_tokens == 7


@pytest.mark.parametrize(("growth", "said"), [(60_000_000, "less than the file"), (130_000_000, "the file and 30 MB more")])
def test_told_memory(growth, said):
    assert said in timing.told_memory(growth, 100_000_000)


def line(**changes: object) -> dict:
    rows = [measurement().model_dump(mode="json"), measurement(threads=1).model_dump(mode="json")]
    return {
        "schema": SCHEMA, "lab": "01_first_model", "step": "bench", "source": "measured", "machine": {"id": "abc", "cores": 2}, "rows": rows
    } | changes  # fmt: skip


def test_benches_pools_only_this_step():
    lines = [line(), line(step="threads"), line(lab="02_model_selection"), line(schema=SCHEMA + 1), line(rows=[]), line(source="recorded")]
    found = timing.benches(lines)
    assert [row["source"] for row in found] == ["measured", "recorded"]
    assert found[0] == {
        "machine": "abc", "cores": 2, "source": "measured", "model": "toy", "threads": 1, "n": 2, "ttft_s": 0.4, "decode_tokens_per_s": 8.0
    }  # fmt: skip


def test_wait_is_prompt_and_answer():
    assert timing.wait_s(100, 11, 50.0, 20.0) == (2.0, 0.5)
    assert timing.wait_s(100, 1, 50.0, 20.0) == (2.0, 0.0)


@pytest.mark.parametrize("prompt", [16, 1024])
def test_draw_wait_says_when_the_first_token_comes(prompt):
    fig = timing.draw_wait(prompt, 64, 50.0, 20.0, "here")
    ax = fig.axes[0]
    assert f"first token after {prompt / 50:.1f} s" in ax.get_title()
    assert list(ax.lines[0].get_ydata()) == [0, 0, 1, 64]
    assert ax.lines[0].get_xdata()[-1] < ax.get_xlim()[1]
    assert ax.get_xlabel().endswith("(predicted)")
