"""Lab 06's plain functions: rounding to three values, figures, arithmetic rows, and the claims they decide."""

import numpy as np
import pytest

from labkit import models
from labkit.facts import ternary as facts
from labkit.learn import ternary_view as view

FINAL = [
    {"kind": kind, "form": form, "seed": seed, "step": step, "loss": loss + 0.01 * seed}
    for form, loss in ((view.FULL, 1.4), (view.AFTERWARDS, 2.0), (view.TRAINED_IN, 1.45))
    for seed in (1, 2, 3)
    for kind, step in (("curve", 1), ("curve", 50), ("final", 50))
]


def test_rounding_at_absmean_is_absmean():
    weights = np.random.default_rng(1).normal(0, 0.02, (64, 256)).astype(np.float32)
    found = view.rounded(weights, 1.0, 0.5)
    values = np.clip(np.round(weights / np.abs(weights).mean()), -1, 1)
    assert found.shares == pytest.approx([(values == v).mean() for v in (-1, 0, 1)], abs=1e-4)
    assert sum(found.shares) == pytest.approx(1)
    left = weights - values * np.abs(weights).mean()
    assert found.error == pytest.approx(np.linalg.norm(left) / np.linalg.norm(weights), rel=1e-3)


def test_no_setting_rounds_a_normal_matrix_well_but_a_ternary_one_is_kept():
    weights = np.random.default_rng(2).normal(size=(64, 256)).astype(np.float32)
    best = min(view.rounded(weights, s, t).error for s in np.arange(0.2, 4.1, 0.2) for t in np.arange(0, 2.1, 0.1))
    assert 0.40 < best < 0.46  # 0.436 in theory
    ternary = np.sign(weights) * (np.abs(weights) > 0.6)
    unit = np.abs(ternary).mean()
    assert view.rounded(ternary, 1 / unit, 0.5 / unit).error < 1e-5


def test_the_widget_draws_shares_that_make_one():
    weights = view.matrix(models.resolve("stdlib-10m").path)
    assert weights.dtype == np.float32
    fig = view.draw_rounding(weights, 1.0, 0.5, "a test")
    ax = fig.axes[0]
    assert ax.get_xlabel()
    assert "relative error" in ax.get_title()
    assert sum(int(text.get_text().split(": ")[1].rstrip("%")) for text in ax.get_legend().get_texts()) == pytest.approx(100, abs=1)


def test_curves_have_a_band_and_a_guess():
    fig = view.draw_curves(FINAL, 40, "a test")
    ax = fig.axes[0]
    assert len(ax.lines) == 4
    assert len(ax.collections) == 3
    assert ax.lines[3].get_ydata()[0] == pytest.approx(1.42 * 1.4)
    assert "3 seeds" in ax.get_title()
    assert "no band" in view.draw_curves([r for r in FINAL if r["seed"] == 1], 40, "a test").axes[0].get_title()


def test_collapse_is_drawn_for_each_file():
    rows = [{"model": m, "type": t, "perplexity": p} for m in ("a", "b") for t, p in (("F16", 9.0), ("TQ1_0", 4e4), ("TQ2_0", 4e4))]
    fig = view.draw_collapse(rows, 80, "a test")
    assert len(fig.axes[0].patches) == 6
    assert fig.axes[0].get_yscale() == "log"


def test_energy_rows_are_figures_times_weights():
    f16, *_, tq1 = view.energy_rows(10**9)
    assert f16 == {
        "type": "F16",
        "bits per weight": 16.0,
        "weights (GB)": 2.0,
        "arithmetic (mJ/token)": pytest.approx(1.5),
        "reading weights (mJ/token)": pytest.approx(320),
    }
    assert tq1["type"] == "TQ1_0"
    assert tq1["arithmetic (mJ/token)"] == pytest.approx(0.1)
    ax = view.draw_energy([f16, tq1], "a test").axes[0]
    assert [round(bar.get_height(), 3) for bar in ax.patches] == [1.5, 0.1, 320, 33.75]


def test_ends():
    assert view.ends(FINAL)[view.FULL] == pytest.approx([1.41, 1.42, 1.43])


@pytest.mark.parametrize(("loss", "shown"), [(1.41, "confirmed"), (1.9, "refuted"), (1.56, "not-run")])
def test_claim_trained_in(loss, shown):
    rows = [r | {"loss": loss} if r["form"] == view.TRAINED_IN else r for r in FINAL]
    assert facts.trained_in(rows)["shown"] == shown


def test_claim_file_bits():
    assert facts.file_bits([])["shown"] == "not-run"
    assert facts.file_bits([{"type": "TQ2_0", "bits_per_weight": 2.83}])["shown"] == "confirmed"
    assert facts.file_bits([{"type": "TQ2_0", "bits_per_weight": 1.585}])["shown"] == "refuted"


def test_claim_energy():
    found = facts.energy_factor()
    assert found["shown"] == "confirmed"
    assert "15 times" in found["why"]
    assert "7.8 times" in found["why"]
