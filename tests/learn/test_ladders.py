"""Lab 04's words, choices and drawings, from rows made by hand: nothing is measured here but two tiny files."""

from __future__ import annotations

import itertools
import math

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest

from labkit.facts import quantization
from labkit.learn import ladder_plots, ladder_words, ladders, plots
from labkit.measure import compare, quality


def rung(kind, bits, kl, error=0.0, perplexity=10.0, ppl_error=0.5, **more):
    return {
        "model": "toy", "type": kind, "label": kind, "bits_per_weight": bits, "bytes": int(bits * 1000), "kl_mean": kl, "kl_stderr": error,
        "perplexity": perplexity, "perplexity_stderr": ppl_error, "top1_agreement": 0.9, "cached": False,
        "log_ratio": math.log(perplexity / 10), "log_ratio_stderr": 0.01, "source_type": "F16", **more,
    }  # fmt: skip


def sized(row, megabytes, rate=50.0):
    speed = {"median": rate, "low": 0.9 * rate, "high": 1.1 * rate, "n": 3}
    return row | {
        "memory_bytes": megabytes * 10**6, "context": 512, "kv_bytes_per_token": 1000, "tokens_per_s": speed, "memory_mb": megabytes
    }  # fmt: skip


LADDER = [
    rung("F16", 16, 0.0, 0.0, 10.0),
    rung("Q8_0", 8.5, 0.0010, 0.0001, 10.01),
    rung("Q5_1", 6.0, 0.0050, 0.0004, 10.1),
    rung("Q5_0", 5.5, 0.0055, 0.0004, 10.1),
    rung("Q4_0", 4.5, 0.0400, 0.0020, 10.4),
    rung("TQ2_0", 2.1, 6.0000, 0.1000, 5e5, 5e4),
]
SECOND = [rung("F16", 16, 0.0) | {"label": "F16-from-Q4_1"}, rung("Q8_0", 8.5, 0.002, 1e-4), rung("Q4_1", 5.0, 1e-7, 1e-8)]
ALL = [sized(row, megabytes, rate) for row, megabytes, rate in zip(LADDER, (40, 25, 20, 19, 17, 12), (20, 30, 40, 45, 60, 55), strict=True)]


def of(rows, kind):
    return next(row for row in rows if row["type"] == kind)


# -- arithmetic


@pytest.mark.parametrize(
    ("difference", "errors", "tied"),
    [(0.0, (0.0, 0.0), True), (1.0, (0.0, 0.0), False), (1.9, (1.0, 0.0), True), (2.0, (1.0, 0.0), False), (2.7, (1.0, 1.0), True)],
)
def test_a_tie_is_a_difference_within_its_error(difference, errors, tied):
    a, b = rung("a", 4, 5.0, errors[0]), rung("b", 5, 5.0 + difference, errors[1])
    assert compare.tied(a, b) is tied
    assert compare.tied(b, a) is tied


def test_neighbours_that_are_tied():
    assert [(a["type"], b["type"]) for a, b in compare.tied_neighbours(LADDER)] == [("Q5_1", "Q5_0")]
    assert len(compare.tied_neighbours(LADDER, "perplexity")) == 4


def test_the_front_has_what_nothing_beats():
    beaten = rung("beaten", 9.0, 0.5)
    assert [r["type"] for r in compare.front([*LADDER, beaten], "bits_per_weight")] == ["TQ2_0", "Q4_0", "Q5_0", "Q5_1", "Q8_0", "F16"]


def test_the_front_takes_the_better_of_two_that_cost_the_same():
    assert [r["type"] for r in compare.front([rung("b", 4, 0.2), rung("a", 4, 0.1)], "bits_per_weight")] == ["a"]


@pytest.mark.parametrize(
    ("budget", "take", "best"),
    [(100, "F16", "F16"), (24, "Q5_0", "Q5_1"), (19, "Q5_0", "Q5_0"), (18, "Q4_0", "Q4_0"), (12, "TQ2_0", "TQ2_0")],
)
def test_the_choice_under_a_budget(budget, take, best):
    found = compare.choose(ALL, budget, "memory_mb")
    assert (found.take["type"], found.best["type"]) == (take, best)


def test_no_choice_where_nothing_fits():
    assert compare.choose(ALL, 11, "memory_mb") is None


def test_smallest_within_looks_at_the_whole_interval():
    assert compare.smallest_within(LADDER, 0.006)["type"] == "Q5_1"
    assert compare.smallest_within(LADDER, 0.0063)["type"] == "Q5_0"
    assert compare.smallest_within(LADDER[1:], 1e-9) is None


def test_inversions():
    ((better, worse),) = compare.inversions(SECOND)
    assert (better["type"], [r["type"] for r in worse]) == ("Q4_1", ["Q8_0"])
    assert compare.inversions(LADDER) == []


def test_questions_for_a_difference():
    n = compare.questions_for(0.02, 0.5)
    assert compare.Z * math.sqrt(2 * 0.25 / n) == pytest.approx(0.02, rel=1e-3)


# -- words


def test_ties_in_words():
    said = ladder_words.told_ties(LADDER, "kl_mean")
    assert "best first: F16, Q8_0, Q5_1 = Q5_0, Q4_0, TQ2_0" in said
    assert "1 of 5 neighbours" in said
    assert "no two neighbours are tied" in ladder_words.told_ties([r | {"kl_stderr": 0.0} for r in LADDER], "kl_mean")


def test_a_perplexity_beyond_all_numbers_is_left_out():
    rows = [*LADDER[:-1], LADDER[-1] | {"perplexity": None}]
    assert "TQ2_0" not in ladder_words.told_ties(rows, "perplexity")
    assert ladder_words.told_ratio(rows, "TQ2_0", 2.0) == "TQ2_0 was not measured."


@pytest.mark.parametrize(
    ("rows", "said"), [(LADDER, "tied"), ([r | {"perplexity_stderr": 0.01} for r in LADDER], "larger than the error bars")]
)
def test_the_ratio_beside_the_guess(rows, said):
    told = ladder_words.told_ratio(rows, "Q4_0", 1.2)
    assert told.startswith("Q4_0 has 1.040 times the perplexity of F16; your guess was 1.2.")
    assert said in told
    assert "between 1.020 and 1.061" in told


@pytest.mark.parametrize(
    ("limit", "guess", "said"),
    [
        (0.01, "Q5_0", "That was your guess."),
        (0.01, "Q4_0", "it is above it"),
        (0.01, "Q8_0", "within it too, but larger"),
        (0.0056, "Q5_0", "may be on either side"),
        (0.01, "Q3_X", "not on this ladder"),
        (1e-9, "Q4_0", "No quantized rung stays within"),
    ],
)
def test_the_limit_beside_the_guess(limit, guess, said):
    assert said in ladder_words.told_within(LADDER, limit, guess)


def test_inversions_in_words():
    assert "Q4_1 (5.00 bits per weight, KL 1e-07) is clearly closer than Q8_0" in ladder_words.told_inversions(SECOND)
    assert "never clearly worse" in ladder_words.told_inversions(LADDER)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (24, "tied with it and takes less: 19 instead of 20 MB"),
        (10, "No rung fits"),
        (30, "take Q8_0: 5 of 6 rungs fit"),
        (20, "take Q5_0"),
    ],
)
def test_the_choice_in_words(budget, said):
    assert said in ladder_words.told_choice(ALL, budget)


def test_the_front_in_words():
    near = rung("Q5_X", 7.0, 0.0051, 0.0004)
    told = ladder_words.told_front([*LADDER, near])
    assert told.startswith("front from small to large: TQ2_0, Q4_0")
    assert told.endswith("tied in quality with a smaller one on it: Q5_X")


@pytest.mark.parametrize(("guess", "said"), [("Q4_1", "That was your guess."), ("Q8_0", "You guessed Q8_0.")])
def test_the_closest_rung_beside_the_guess(guess, said):
    told = ladder_words.told_closest(SECOND, guess)
    assert told.startswith("Closest first: Q4_1 (1e-07), Q8_0 (0.002).")
    assert told.endswith(said)


def test_the_closest_rungs_may_be_tied():
    assert "Tied with the first: Q5_0." in ladder_words.told_closest(LADDER[2:4], "Q5_1")


def test_what_is_left_where_the_weights_are_the_same():
    assert "has 16 bits" in ladder_words.told_floor(LADDER)
    told = ladder_words.told_floor([row | {"source_type": "Q4_1"} for row in SECOND])
    assert told.startswith("Q4_1 is the type of the source: it holds the same weights as F16-from-Q4_1.")


def share(name, right, n):
    low, high = quality.wilson(right, n)
    return {"label": name, "group": "python", "right": right, "n": n, "accuracy": right / n, "low": low, "high": high, "chance": 0.25}


def test_shares_in_words():
    assert "rank none" in ladder_words.told_shares([share("F16", 20, 24), share("Q4_0", 18, 24)])
    told = ladder_words.told_shares([share("F16", 22, 24), share("TQ2_0", 5, 24), share("Q4_0", 20, 24)])
    assert "TQ2_0 is below F16" in told
    assert "All others overlap" in told
    assert "rank none" not in ladder_words.told_shares([share("F16", 8, 8)])
    assert "about 1 questions" not in ladder_words.told_shares([share("F16", 8, 8)])


def test_what_came_from_the_cache():
    assert ladder_words.told_cached(LADDER) == ""
    assert "1 of 6 rungs" in ladder_words.told_cached([LADDER[0] | {"cached": True}, *LADDER[1:]])


# -- drawings


def test_a_panel_a_figure_and_model():
    fig = ladder_plots.draw({"a": ALL, "b": ALL[:3]}, "measured", front=True)
    panels = [ax for ax in fig.axes if ax.get_xlabel() == "bits per weight (log scale)"]
    assert len(panels) == 4
    assert {ax.get_ylabel() for ax in panels} == {"KL divergence from F16,\nin nats (log scale)", "perplexity (log scale)"}
    bars = [ax for ax in fig.axes if ax.get_ylabel() == "decode, tokens per second"]
    assert len(bars) == 2
    assert fig.get_supxlabel() == "measured"


def test_every_rung_is_named_and_ties_are_drawn():
    fig = ladder_plots.draw({"a": LADDER}, "measured", figures=["kl_mean"])
    ax = fig.axes[0]
    texts = {text.get_text() for text in ax.texts}
    assert {r["label"] for r in LADDER[1:]} <= texts
    assert "F16" not in texts
    links = [line for line in ax.lines if line.get_linewidth() == 6]
    assert [sorted(line.get_xdata()) for line in links] == [[5.5, 6.0]]


def test_no_link_without_a_tie():
    ax = ladder_plots.draw({"a": [r | {"kl_stderr": 0.0} for r in LADDER]}, "", figures=["kl_mean"]).axes[0]
    assert not [line for line in ax.lines if line.get_linewidth() == 6]


@pytest.mark.parametrize("perplexity", [5e5, None])
def test_a_rung_off_the_scale_is_named_at_the_edge(perplexity):
    rows = [*LADDER[:-1], LADDER[-1] | {"perplexity": perplexity}]
    ax = ladder_plots.draw({"a": rows}, "", figures=["perplexity"]).axes[0]
    (said,) = [text.get_text() for text in ax.texts if text.get_text().startswith("TQ2_0")]
    assert said in {"TQ2_0: 500,000", "TQ2_0: not finite"}
    assert ax.get_ylim()[1] < 100


def test_error_bars_are_95_percent_intervals():
    ax = ladder_plots.draw({"a": LADDER}, "", figures=["kl_mean"]).axes[0]
    (bar,) = [line for line in ax.lines if list(line.get_xdata()) == [4.5, 4.5]]
    assert bar.get_ydata() == pytest.approx([0.04 - 1.96 * 0.002, 0.04 + 1.96 * 0.002])


@pytest.mark.parametrize("places", [[0.1, 0.5, 0.9], [0.5, 0.5, 0.5, 0.51], [0.1, 0.11, 0.3, 0.31, 0.32]])
def test_crowded_labels_are_spread(places):
    moved = ladder_plots.spread(places, 0.05)
    assert all(b - a >= 0.05 - 1e-6 for a, b in itertools.pairwise(moved))
    assert sum(moved) == pytest.approx(sum(places))
    if places == [0.1, 0.5, 0.9]:
        assert moved == places


def test_guesses_are_drawn():
    ax = ladder_plots.draw({"a": LADDER}, "", figures=["kl_mean"]).axes[0]
    ladder_plots.mark_limit(ax, 0.01, LADDER, "Q4_0")
    assert any(line.get_label() == "your guess" and line.get_xdata()[0] == 4.5 for line in ax.lines)
    ax = ladder_plots.draw({"a": LADDER}, "", figures=["perplexity"]).axes[0]
    ladder_plots.mark_ratio(ax, LADDER, "Q4_0", 1.5)
    (mark,) = [line for line in ax.lines if line.get_label() == "your guess for Q4_0"]
    assert mark.get_ydata()[0] == pytest.approx(15.0)


@pytest.mark.parametrize(("budget", "context"), [(24, 512), (5, 512), (60, 512), (24, 8192)])
def test_the_widget_shows_the_choice(budget, context):
    fig = ladder_plots.draw_choice(ALL, budget, context, "measured")
    ax = fig.axes[0]
    assert len(ax.patches) == len(ALL)
    filled = [bar for bar in ax.patches if np.allclose(bar.get_facecolor(), matplotlib.colors.to_rgba(plots.BLUE))]
    found = compare.choose(ladders.with_context(ALL, context), budget, "memory_mb")
    assert len(filled) == (found is not None)
    if found:
        assert filled[0].get_height() == pytest.approx(found.take["memory_mb"])
        assert found.take["label"] in ax.get_title()


def test_more_context_takes_more_memory():
    assert ladders.memory_at(ALL[0], 1512) == 41e6
    assert ladders.memory_at(ALL[0], 12) == 39.5e6


def test_the_slider_reaches_below_and_above_all_rungs():
    low, high, step = ladder_plots.budgets(ALL, (512, 8192))
    assert low < 12
    assert high > ladders.memory_at(ALL[0], 8192) / 1e6
    assert (high - low) % step == 0


def test_shares_are_drawn_with_their_intervals():
    ax = ladder_plots.draw_shares([share("F16", 20, 24), share("TQ2_0", 6, 24)], "measured").axes[0]
    low, high = quality.wilson(20, 24)
    assert list(ax.lines[0].get_xdata()) == pytest.approx([100 * low, 100 * high])


# -- tables


def test_tables_are_joined_by_type():
    rows = ladders.joined([{"type": "a", "x": 1}, {"type": "b", "x": 2}], [{"type": "b", "y": 3}])
    assert rows == [{"type": "b", "x": 2, "y": 3}]


def test_speed_table_has_multiples_of_16_bit():
    table = ladders.speed_table(ALL)
    assert list(table["times 16-bit"]) == pytest.approx([1.0, 1.5, 2.0, 2.25, 3.0, 2.75])


def test_the_block_table_agrees_with_the_formats():
    assert {kind: bits for kind, _, _, bits in ladders.block_table()} == {
        "F16": 16, "Q8_0": 8.5, "Q6_K": 6.5625, "Q5_1": 6, "Q5_0": 5.5, "Q5_K": 5.5, "Q4_1": 5, "Q4_0": 4.5, "Q4_K": 4.5, "Q3_K": 3.4375,
        "Q2_K": 2.625, "TQ2_0": 2.0625,
    }  # fmt: skip


def test_questions_have_their_groups():
    assert {item["group"] for item in ladders.questions("python")} == {"python"}


# -- claims, each both ways


@pytest.mark.parametrize(("bits", "shown"), [(6.17, "confirmed"), (4.0, "refuted")])
def test_four_bits(bits, shown):
    assert quantization.four_bits([rung("Q4_K_M", bits, 0.1)])["shown"] == shown


@pytest.mark.parametrize(("kl", "shown"), [(0.001, "confirmed"), (0.0001, "refuted")])
def test_lossless(kl, shown):
    assert quantization.lossless([rung("Q8_0", 8.5, kl, 0.0002)])["shown"] == shown


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        (SECOND, "confirmed"),
        (LADDER, "not-run"),
        ([LADDER[0] | {"label": "F16-from-Q4_1"}, *LADDER[1:]], "refuted"),
        (SECOND[:2], "not-run"),
    ],
)
def test_more_bits(rows, shown):
    assert quantization.more_bits(rows)["shown"] == shown


@pytest.mark.parametrize(("rate", "shown"), [(40, "confirmed"), (80, "not-run"), (130, "refuted")])
def test_four_times_as_fast(rate, shown):
    assert quantization.four_times_as_fast([sized(LADDER[0], 40, 20), sized(LADDER[4], 17, rate)])["shown"] == shown


@pytest.mark.parametrize(("perplexity", "shown"), [(5e5, "confirmed"), (None, "confirmed"), (12.0, "refuted")])
def test_ternary(perplexity, shown):
    assert quantization.ternary([LADDER[0], LADDER[-1] | {"perplexity": perplexity}])["shown"] == shown


@pytest.mark.parametrize("decide", [quantization.four_bits, quantization.lossless, quantization.four_times_as_fast, quantization.ternary])
def test_nothing_measured_decides_nothing(decide):
    assert decide([])["shown"] == "not-run"
