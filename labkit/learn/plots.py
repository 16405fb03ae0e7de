"""Records in, Axes out. Colours are Okabe and Ito's, which colour-blind readers can tell apart; units on every axis;
the machine, or the word RECORDED, under every plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.measure import compare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK, YELLOW)


def figure(caption: str, width: float = 7.5, height: float = 4.2, columns: int = 1, rows: int = 1) -> tuple[Figure, Any]:
    """A figure with its caption (where and how it was measured) below. One Axes, or an array of `rows` by `columns`."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained")
    fig.supxlabel(caption, fontsize=8, color="0.35")
    for ax in np.atleast_1d(axes).flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.25)
    return fig, axes


def predicted_measured(
    ax: Axes,
    names: Sequence[str],
    predicted: Sequence[float],
    measured: Sequence[float],
    unit: str,
    labels: tuple[str, str] = ("predicted", "measured"),
) -> Axes:
    """Pairs of bars, prediction hatched, measurement solid, with the ratio above each pair."""
    at = np.arange(len(names))
    ax.bar(at - 0.2, predicted, 0.38, color=SKY, hatch="//", edgecolor="white", label=labels[0])
    ax.bar(at + 0.2, measured, 0.38, color=BLUE, label=labels[1])
    for x, p, m in zip(at, predicted, measured, strict=True):
        if m:
            ax.annotate(f"×{p / m:.2f}", (x, max(p, m)), ha="center", va="bottom", fontsize=8)
    ax.set_xticks(at, names, rotation=20 if len(names) > 4 else 0, ha="right" if len(names) > 4 else "center")
    ax.set_ylabel(unit)
    ax.margins(y=0.15)
    ax.legend(frameon=False)
    return ax


def points(ax: Axes, groups: Mapping[str, Sequence[float]], unit: str, colour: str = BLUE) -> Axes:
    """Every repeat as a dot and the median as a bar, one column a group: shows the spread that a mean hides."""
    for x, (_, values) in enumerate(groups.items()):
        jitter = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0]
        ax.plot(x + np.asarray(jitter), values, "o", color=colour, alpha=0.6, ms=5)
        if len(values):
            ax.hlines(float(np.median(values)), x - 0.25, x + 0.25, color=BLACK, lw=2)
    ax.set_xticks(range(len(groups)), list(groups))
    ax.set_ylabel(unit)
    ax.set_ylim(0, max([ax.get_ylim()[1], *(1.08 * v for values in groups.values() for v in values)]))
    ax.set_xlim(-0.6, len(groups) - 0.4)
    return ax


def timeline(ax: Axes, measurements: Sequence[Any], labels: Sequence[str]) -> Axes:
    """One row a request: the wait for the first token as a bar, then a tick for every token. Time in seconds."""
    for y, (m, _) in enumerate(zip(measurements, labels, strict=True)):
        ax.barh(y, m.ttft_s or 0, 0.5, color=ORANGE, label="prefill: waiting for the first token" if y == 0 else None)
        marks = [(t - m.marks_ns.start) / 1e9 for t in (m.token_marks_ns or ())]
        ax.plot(marks, [y] * len(marks), "|", color=BLUE, ms=11, label="decode: a token" if y == 0 else None)
    ax.set_yticks(range(len(labels)), list(labels))
    ax.invert_yaxis()
    ax.set_xlabel("seconds since the request")
    ax.grid(axis="y", visible=False)
    ax.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 1.18), ncols=2)
    return ax


def stacked(ax: Axes, names: Sequence[str], parts: Mapping[str, Sequence[float]], unit: str) -> Axes:
    """Stacked bars, one a name, a colour and a hatch a part."""
    at, bottom = np.arange(len(names)), np.zeros(len(names))
    for (label, values), colour, hatch in zip(parts.items(), COLOURS, ("", "//", "..", "xx", "\\\\", "--"), strict=False):
        ax.bar(at, values, 0.6, bottom=bottom, color=colour, hatch=hatch, edgecolor="white", label=label)
        bottom = bottom + np.asarray(values)
    ax.set_xticks(at, names, rotation=20 if len(names) > 4 else 0, ha="right" if len(names) > 4 else "center")
    ax.set_ylabel(unit)
    ax.legend(frameon=False)
    return ax


def pareto(ax: Axes, rows: Sequence[Mapping[str, Any]], x: str, y: str, xlabel: str, ylabel: str) -> list[str]:
    """Points of (cost x, benefit y) and the front of those that nothing beats in both. Returns the front's names, cheap first."""
    front = [kept["row"] for kept in compare.front([{"row": r, "cost": r[x], "loss": -r[y]} for r in rows], "cost", "loss")]
    ax.plot([r[x] for r in rows], [r[y] for r in rows], "o", color="0.65", ms=6)
    ax.step([r[x] for r in front], [r[y] for r in front], where="post", color=BLUE, lw=1)
    ax.plot([r[x] for r in front], [r[y] for r in front], "D", color=BLUE, ms=7, label="nothing is better in both")
    for r in rows:
        ax.annotate(r["name"], (r[x], r[y]), xytext=(4, 4), textcoords="offset points", fontsize=8)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend(frameon=False, loc="lower right")
    return [str(r["name"]) for r in front]
