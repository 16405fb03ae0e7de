"""What lab 07 draws: bits of ONNX folders, their parts, their nodes before and after, and the formats at equal size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.learn import plots
from labkit.measure import compare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]

_ROLES = {"codes": "codes", "scales": "scales", "zero_points": "zero points", "unquantized": "unquantized", "tables": "tables of sines"}
# colour, marker, and where the name stands, so that neighbours do not write over each other
_FAMILIES = {
    "GGUF": (plots.ORANGE, "D", (7, -12), "left"),
    "ONNX": (plots.BLUE, "o", (9, -4), "left"),
    "MLX": (plots.GREEN, "^", (-8, -11), "right"),
}


def draw_bits(rows: Sequence[Row], guess: float, caption: str) -> Figure:
    """Predicted and counted bits per weight of the recipes, with the learner's guess for the first one."""
    fig, ax = plots.figure(caption, width=8.5)
    names = [f"{r['recipe']}\n({r['tool']})" for r in rows]
    plots.predicted_measured(
        ax, names, [r["predicted"] for r in rows], [r["bits_per_weight"] for r in rows], "bits per weight", ("predicted", "counted")
    )
    ax.plot([-0.45, 0.45], [guess, guess], color=plots.RED, ls=":", lw=2, label="your guess for the first")
    ax.set_ylim(0, 1.25 * max(ax.get_ylim()[1], guess))
    ax.legend(frameon=False, loc="upper right", ncols=3)
    return fig


def draw_parts(rows: Sequence[Row], caption: str) -> Figure:
    """What the bytes of each folder are for, stacked, in MB."""
    fig, ax = plots.figure(caption, width=8.5)
    parts = {label: [r[f"{key}_bytes"] / 1e6 for r in rows] for key, label in _ROLES.items()}
    plots.stacked(ax, [r["recipe"] for r in rows], parts, "MB")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def node_table(rows: Sequence[Row]) -> list[Row]:
    """One row a kind of node, the recipes as columns; kinds that all have equally often come last."""
    kinds = dict.fromkeys(kind for r in rows for kind in r["nodes"])
    table: list[Row] = [{"node": kind, **{r["recipe"]: r["nodes"].get(kind, 0) for r in rows}} for kind in kinds]
    return sorted(table, key=lambda t: (len({t[r["recipe"]] for r in rows}) == 1, -max(t[r["recipe"]] for r in rows)))


def draw_nodes(rows: Sequence[Row], caption: str, most: int = 9) -> Figure:
    """How often each kind of node is in the graphs: the first recipe is the graph before."""
    fig, ax = plots.figure(caption, width=8.5, height=4.8)
    table = node_table(rows)[:most]
    at = np.arange(len(table))
    for n, r in enumerate(rows):
        place = at + (n - (len(rows) - 1) / 2) * 0.8 / len(rows)
        counts = [t[r["recipe"]] for t in table]
        hatch = ("", "//", "..", "xx")[n % 4]
        ax.barh(place, counts, 0.75 / len(rows), color=plots.COLOURS[n], hatch=hatch, edgecolor="white", label=r["recipe"])
        for y, count in zip(place, counts, strict=True):
            ax.annotate(f" {count}", (count, y), va="center", fontsize=7)
    ax.set_yticks(at, [t["node"] for t in table], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("nodes in the graph")
    ax.grid(axis="y", visible=False)
    ax.legend(frameon=False, loc="lower right")
    return fig


def draw_equal(rows: Sequence[Row], caption: str, at_most: float | None = None) -> Figure:
    """Bits per weight against KL divergence from the 16-bit file (logarithmic), with 95 % intervals; `at_most` marks the best below it."""
    fig, ax = plots.figure(caption, width=8.5, height=4.8)
    shown = [r for r in rows if r["bits_per_weight"] < 15]
    for family, (colour, marker, place, side) in _FAMILIES.items():
        mine = [r for r in shown if r["family"] == family]
        if not mine:
            continue
        x, y = [r["bits_per_weight"] for r in mine], [r["kl_mean"] for r in mine]
        low = [min(compare.Z * r["kl_stderr"], 0.9 * r["kl_mean"]) for r in mine]
        ax.errorbar(x, y, [low, [compare.Z * r["kl_stderr"] for r in mine]], fmt=marker, color=colour, ms=7, capsize=3, label=family)
        for r in mine:
            ax.annotate(r["name"], (r["bits_per_weight"], r["kl_mean"]), xytext=place, ha=side, textcoords="offset points", fontsize=8)
    if at_most is not None:
        ax.axvline(at_most, color=plots.RED, ls=":", lw=1.5)
        if best := best_below(shown, at_most):
            ax.plot([best["bits_per_weight"]], [best["kl_mean"]], "o", ms=17, mfc="none", mec=plots.RED, mew=2)
            ax.set_title(f"at most {at_most:g} bits per weight: {best['family']} {best['name']} has the smallest divergence", fontsize=10)
        else:
            ax.set_title(f"nothing here takes at most {at_most:g} bits per weight", fontsize=10)
    ax.set_yscale("log")
    ax.margins(0.09)
    ax.set_xlabel("bits per weight, everything counted")
    ax.set_ylabel("KL divergence from F16, nats (logarithmic)")
    ax.legend(frameon=False)
    return fig


def best_below(rows: Sequence[Row], at_most: float) -> Row | None:
    """The row with the smallest divergence among those of at most so many bits per weight."""
    fitting = [r for r in rows if r["bits_per_weight"] <= at_most]
    return min(fitting, key=lambda r: r["kl_mean"]) if fitting else None


def says_equal(rows: Sequence[Row]) -> list[str]:
    """Of rows in order, best first: which neighbours these tokens do not separate. KL divergences with their 95 % intervals."""
    told = []
    for a, b in itertools.pairwise(rows):
        link = "is not told apart from" if compare.tied(a, b) else "is closer to the original than"
        told.append(f"{a['family']} {a['name']} {link} {b['family']} {b['name']}")
    return told


def origin(rows: Sequence[Row]) -> str:
    """One sentence on what the files were made from: it decides what their figures mean."""
    source = rows[0]["source_type"] if rows else ""
    if source in ("F16", "F32", "BF16"):
        return f"All files were made from {source} weights, so every difference from F16 is the format's."
    return (
        f"All files stem from a file in {source}: 'F16' here holds the {source} values, no original. A format with the same grid"
        f" ({source} itself) loses nothing more, and the others look worse beside it than they would from an original."
    )
