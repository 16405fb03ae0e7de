"""Ladders drawn: quality against size with error bars, ties and the Pareto front; speed as colour (cividis, which
colour-blind readers can follow and which prints in grey). Rows in, figures out; see `ladders` for the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.learn import ladder_words, ladders, plots
from labkit.measure import compare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Row = dict[str, Any]

NAMES = {"kl_mean": "KL divergence from {reference},\nin nats (log scale)", "perplexity": "perplexity (log scale)"}
OFF_SCALE = 4.0  # a perplexity above this multiple of the reference's is drawn at the edge, with its figure
FLOOR = 1e-6  # a KL divergence below this is rounding


def draw(
    tables: Mapping[str, Sequence[Row]],
    caption: str,
    figures: Sequence[str] = ("kl_mean", "perplexity"),
    cost: str = "bits_per_weight",
    front: bool = False,
) -> Figure:
    """A column of panels a model, a row of panels a figure. Rows with `tokens_per_s` are coloured by it.

    `front` adds the Pareto front and, in KL panels, grey links between neighbours that are tied.
    """
    size = (5.2 * len(tables) + 1.2, 4.0 * len(figures) + 0.5) if len(tables) > 1 else (8.0, 4.3 * len(figures) + 0.3)
    fig, axes = plots.figure(caption, *size, columns=len(tables), rows=len(figures))
    axes = np.reshape(axes, (len(figures), len(tables)))
    for column, (name, rows) in enumerate(tables.items()):
        colours = _colours(rows)
        for line, figure in enumerate(figures):
            ax = axes[line][column]
            panel(ax, rows, figure, cost, colours, front)
            if line == 0:
                ax.set_title(name, fontsize=10, pad=60)
        if colours:
            bar = fig.colorbar(colours, ax=list(axes[:, column]), pad=0.02, aspect=30)
            bar.set_label("decode, tokens per second")
    return fig


def panel(ax: Axes, rows: Sequence[Row], figure: str, cost: str = "bits_per_weight", colours: Any = None, front: bool = False) -> Axes:
    """One figure of one ladder: a point a rung with its 95 % interval, ties, and the front where it is asked for."""
    ref = ladders.reference(rows)
    ax.set_yscale("log")
    ax.grid(alpha=0.25)
    kept = [r for r in rows if r is not ref] if figure == "kl_mean" else list(rows)
    top = OFF_SCALE * ref["perplexity"] if figure == "perplexity" else math.inf
    inside = [r for r in kept if r[figure] is not None and r[figure] <= top]
    _ties(ax, inside, figure, cost)
    if front:
        best = compare.front(inside, cost, figure)
        ax.step([r[cost] for r in best], [_value(r, figure) for r in best], where="post", color=plots.BLACK, lw=1, label="Pareto front")
    labels = [(row[cost], _point(ax, row, figure, cost, colours), row["label"]) for row in inside]
    for row in (r for r in kept if r not in inside):
        said = "not finite" if row[figure] is None else f"{row[figure]:,.0f}"
        ax.plot(row[cost], top, "^", color=_colour(row, colours), ms=8, mec=plots.BLACK, mew=0.6, clip_on=False)
        labels.append((row[cost], top, f"{row['label']}: {said}"))
    if figure == "perplexity":
        low, high = compare.interval(ref, "perplexity")
        ax.axhspan(low, high, color="0.5", alpha=0.12, lw=0, label=f"{ref['label']} with its error")
        _plain(ax.yaxis)
    else:
        low, high = ax.get_ylim()
        ax.set_ylim(low / 2, high * 2)
    _bits(ax, cost, [r[cost] for r in kept])
    _labels(ax, labels)
    ax.set_ylabel(NAMES[figure].format(reference=ref["label"]))
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=8, loc="best")
    return ax


def mark_rung(ax: Axes, rows: Sequence[Row], guess: str) -> Axes:
    """A ring around the rung that the learner guessed; nothing where it is the reference or not on the ladder."""
    row = ladders.named(rows, guess)
    if row is not None and row["type"] != "F16":
        ax.plot(row["bits_per_weight"], _value(row, "kl_mean"), "o", ms=16, mfc="none", mec=plots.ORANGE, mew=2, label="your guess")
        ax.legend(frameon=False, fontsize=8, loc="best")
    return ax


def mark_limit(ax: Axes, limit: float, rows: Sequence[Row], guess: str) -> Axes:
    """A limit of KL divergence as a line, and a ring around the rung that the learner guessed."""
    ax.axhline(limit, color=plots.RED, ls=":", lw=1.5, label=f"limit: {limit:g}")
    ax.legend(frameon=False, fontsize=8, loc="best")
    return mark_rung(ax, rows, guess)


def mark_ratio(ax: Axes, rows: Sequence[Row], kind: str, ratio: float) -> Axes:
    """The learner's guess of a rung's perplexity, as a multiple of the reference's."""
    row = ladders.named(rows, kind)
    if row is not None:
        value = ratio * ladders.reference(rows)["perplexity"]
        ax.plot(row["bits_per_weight"], value, "X", color=plots.ORANGE, ms=10, mec=plots.BLACK, mew=0.5, label=f"your guess for {kind}")
    ax.legend(frameon=False, fontsize=8, loc="best")
    return ax


def draw_choice(rows: Sequence[Row], budget_mb: int, context: int, caption: str) -> Figure:
    """Memory of each rung with that context as a bar, the budget as a line; the rung to take is filled, the title says why."""
    sized = sorted(ladders.with_context(rows, context), key=lambda r: r["memory_mb"])
    found = compare.choose(sized, budget_mb, "memory_mb")
    tied = {r["type"] for r in found.tied} if found else set()
    fig, ax = plots.figure(caption, width=8.5)
    for at, row in enumerate(sized):
        taken = found is not None and row["type"] == found.take["type"]
        style: dict[str, Any] = (
            {"color": plots.BLUE} if taken else {"color": plots.SKY, "hatch": "//"} if row["type"] in tied else {"color": "0.8"}
        )
        ax.bar(at, row["memory_mb"], 0.65, edgecolor="white", **style)
        said, colour = f" KL {row['kl_mean']:.2g}", "white" if taken else plots.BLACK
        box = {"facecolor": plots.BLUE if taken else "white", "alpha": 0.8, "lw": 0, "pad": 1}  # or a hatch runs through it
        ax.text(at, 0, said, ha="center", va="bottom", rotation=90, fontsize=9, color=colour, bbox=box)  # at the foot: no line crosses it
    ax.axhline(budget_mb, color=plots.RED, ls="--", label=f"budget, {budget_mb} MB")
    ax.legend(frameon=False, loc="upper left")
    ax.set_xticks(range(len(sized)), [r["label"] for r in sized], rotation=25, ha="right")
    ax.set_ylabel("memory, in MB")
    ax.set_ylim(0, 1.25 * max([budget_mb, *(r["memory_mb"] for r in sized)]))
    ax.set_title(f"context {context:,} tokens\n{_wrapped(ladder_words.told_choice(sized, budget_mb))}", fontsize=9)
    return fig


def budgets(rows: Sequence[Row], contexts: tuple[int, int]) -> tuple[int, int, int]:
    """(low, high, step) in MB of a slider from below the smallest rung to above the largest, for these contexts."""
    low = min(ladders.memory_at(r, contexts[0]) for r in rows) / 1e6
    high = max(ladders.memory_at(r, contexts[1]) for r in rows) / 1e6
    step = max(1, round((high - low) / 40))
    first = max(1, int(0.9 * low))
    return first, first + step * math.ceil((1.05 * high - first) / step), step


def draw_shares(rows: Sequence[Row], caption: str) -> Figure:
    """Share of right answers with Wilson's interval, one line a file; the dashed line is chance with four choices."""
    fig, ax = plots.figure(caption, height=1.4 + 0.42 * len(rows))
    for at, row in enumerate(rows):
        ax.plot([100 * row["low"], 100 * row["high"]], [at, at], color=plots.BLUE, lw=2)
        ax.plot(100 * row["accuracy"], at, "o", color=plots.BLUE, ms=7)
    ax.axvline(100 * rows[0]["chance"], color="0.4", ls="--", lw=1, label="chance")
    ax.set_yticks(range(len(rows)), [f"{r['label']} ({r['group']})" for r in rows])
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("right answers, in % (with 95 % interval)")
    ax.legend(frameon=False, loc="lower left")
    return fig


def _colours(rows: Sequence[Row]) -> Any:
    from matplotlib import cm, colors

    rates = [r["tokens_per_s"]["median"] for r in rows if r.get("tokens_per_s")]
    return cm.ScalarMappable(colors.Normalize(0.95 * min(rates), max(rates)), "cividis") if rates else None


def _colour(row: Row, colours: Any) -> Any:
    return colours.to_rgba(row["tokens_per_s"]["median"]) if colours and row.get("tokens_per_s") else plots.BLUE


def _value(row: Mapping[str, Any], figure: str) -> float:
    return max(FLOOR, row[figure]) if figure == "kl_mean" else float(row[figure])


def _point(ax: Axes, row: Row, figure: str, cost: str, colours: Any) -> float:
    """A point and its interval; the height at which a label's line may end."""
    value = _value(row, figure)
    low, high = compare.interval(row, figure)
    low = max(low, 0.3 * value)  # a bar that reaches 0 has no end on a log scale
    ax.plot([row[cost], row[cost]], [low, high], color="0.35", lw=1.2)
    ax.plot(row[cost], value, "o", color=_colour(row, colours), ms=8, mec=plots.BLACK, mew=0.6)
    return float(high)


def _labels(ax: Axes, labels: Sequence[tuple[float, float, str]]) -> None:
    """Upright names above the panel, each with a thin line to its (x, y); rungs that crowd are spread apart."""
    low, high = (math.log(x) for x in ax.get_xlim())
    ordered = sorted(labels)
    gap = 14 / (ax.bbox.width * 72 / ax.figure.dpi)  # 14 points a label
    places = spread([(math.log(x) - low) / (high - low) for x, _, _ in ordered], gap)
    line = {"arrowstyle": "-", "lw": 0.5, "color": "0.7", "shrinkA": 0, "shrinkB": 3}
    for place, (x, y, said) in zip(places, ordered, strict=True):
        ax.annotate(
            said,
            (x, y),
            xytext=(place, 1.03),
            textcoords="axes fraction",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=8,
            arrowprops=line,
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Rising numbers moved apart until neighbours are `gap` apart, each as little as its neighbours allow."""
    moved = list(places)
    for _ in range(500):
        for at in range(len(moved) - 1):
            short = gap - (moved[at + 1] - moved[at])
            if short > 0:
                moved[at] -= short / 2
                moved[at + 1] += short / 2
    return moved


def _ties(ax: Axes, rows: Sequence[Row], figure: str, cost: str) -> None:
    for n, (a, b) in enumerate(compare.tied_neighbours(rows, figure)):
        said = "tied: closer than their error bars" if n == 0 else None
        at = [a[cost], b[cost]], [_value(a, figure), _value(b, figure)]
        ax.plot(*at, color="0.75", lw=6, solid_capstyle="round", zorder=0.5, label=said)


def _bits(ax: Axes, cost: str, values: Sequence[float]) -> None:
    """The size axis: logarithmic, since most rungs crowd at its low end, with room for the last label."""
    from matplotlib.ticker import NullLocator

    ax.set_xscale("log")
    ax.set_xlim(0.88 * min(values), 1.3 * max(values))
    if cost == "bits_per_weight":
        ax.set_xticks([n for n in (2, 3, 4, 5, 6, 8, 12, 16) if 0.88 * min(values) <= n <= 1.3 * max(values)])
        ax.xaxis.set_minor_locator(NullLocator())
    _plain(ax.xaxis)
    ax.set_xlabel(
        {"bits_per_weight": "bits per weight (log scale)", "memory_mb": "memory, in MB (log scale)"}.get(cost, f"{cost} (log scale)")
    )


def _plain(axis: Axis) -> None:
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("{x:g}")
    axis.set_tick_params(which="both", labelsize=8)


def _wrapped(text: str, width: int = 105) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
