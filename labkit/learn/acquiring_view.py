"""What lab 03 draws, and the catalogue by licence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.learn import plots
from labkit.models import catalog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[dict[str, Any]]
_PLAIN = ("Apache-2.0", "MIT", "BSD-3-Clause")  # no conditions on what a model is used for


# -- choosing by licence


def licences() -> list[dict[str, Any]]:
    """The catalogue by licence: name, parameters, size at 4.5 bits a weight, licence, and whether it is free of conditions on use."""
    rows = []
    for model in catalog.load().values():
        size = model.parameters * 4.5 / 8
        row = {"name": model.name, "parameters": model.parameters, "q4_gb": size / 1e9, "licence": model.licence}
        rows.append(row | {"plain": model.licence in _PLAIN})
    return sorted(rows, key=lambda row: row["parameters"])


def fitting(rows: Rows, licence: str, most_gb: float) -> list[str]:
    """Names of the models under a licence ("any", "no conditions on use", or its name) that take at most so many GB at 4.5 bits."""
    tests = {"any": lambda row: True, "no conditions on use": lambda row: row["plain"]}
    test = tests.get(licence, lambda row: row["licence"] == licence)
    return [row["name"] for row in rows if row["q4_gb"] <= most_gb and test(row)]


# -- drawings


def draw_cut(rows: Rows, guess_mb: float, caption: str) -> Figure:
    """What each request carried, with resuming and without; the reader's guess of the sum."""
    size = rows[0]["file_bytes"]
    fig, ax = plots.figure(caption)
    left = 0.0
    for n, row in enumerate(rows):
        width = (row["to_byte"] - row["from_byte"]) / 1e6
        ax.barh(1, width, 0.5, left=left, color=plots.COLOURS[n % 6], edgecolor="white")
        left += width
    total = left
    left = 0.0
    for n, row in enumerate(rows):
        width = row["to_byte"] / 1e6
        ax.barh(0, width, 0.5, left=left, color=plots.COLOURS[n % 6], hatch="//", edgecolor="white")
        left += width
    ax.axvline(guess_mb, color=plots.RED, ls=":", label="your guess")
    ax.set_yticks([1, 0], [f"resumed\n{total:.1f} MB sent", f"from the start each time\n{left:.1f} MB sent (computed)"])
    ax.set_xlabel(f"MB sent for a file of {size / 1e6:.1f} MB; a colour is one request")
    ax.set_xlim(0, 1.1 * max(left, guess_mb))
    ax.grid(axis="y", visible=False)
    ax.legend(frameon=False, loc="center right")
    return fig


def draw_flips(rows: Rows, guess: float, caption: str) -> Figure:
    """How many digits of the checksum stay the same after one bit was flipped."""
    same = [row["same_digits"] for row in rows]
    fig, ax = plots.figure(caption)
    ax.hist(same, bins=np.arange(-0.5, 65.5), color=plots.BLUE)
    ax.axvline(float(np.mean(same)), color=plots.BLACK, label=f"measured mean {np.mean(same):.1f}")
    ax.axvline(guess, color=plots.RED, ls=":", label="your guess")
    ax.set_xlim(-1, 65)
    ax.set_xlabel("digits of 64 that stay the same")
    ax.set_ylabel(f"flips (of {len(rows)})")
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False)
    return fig


def draw_formats(rows: Rows, caption: str) -> Figure:
    """Bytes by format: one bar a format, its weights and the rest."""
    names = list(dict.fromkeys(row["format"] for row in rows))
    weights = [sum(row["bytes"] for row in rows if row["format"] == name and row["tensors"]) / 1e6 for name in names]
    rest = [sum(row["bytes"] for row in rows if row["format"] == name and not row["tensors"]) / 1e6 for name in names]
    fig, ax = plots.figure(caption)
    plots.stacked(ax, names, {"file with the weights": weights, "configuration and tokenizer": rest}, "MB")
    for at, (size, other) in enumerate(zip(weights, rest, strict=True)):
        ax.annotate(f"{8e6 * size / rows[0]['parameters']:.1f} bits a weight", (at, size + other), ha="center", va="bottom", fontsize=9)
    ax.margins(y=0.2)
    return fig


def draw_licences(licence: str, most_gb: float) -> Figure:
    """The catalogue's models by size; those that fit are filled."""
    rows = licences()
    chosen = set(fitting(rows, licence, most_gb))
    fig, ax = plots.figure("licences from the catalogue, each with its source in data/models.toml", width=8.5, height=0.27 * len(rows) + 1)
    for at, row in enumerate(rows):
        fits = row["name"] in chosen
        ax.barh(at, row["q4_gb"], 0.7, color=plots.BLUE if fits else "0.88")
        box = {"facecolor": "white", "lw": 0, "pad": 0.5}  # or the red line runs through the words
        ax.annotate(row["licence"], (row["q4_gb"], at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, bbox=box)
    ax.axvline(most_gb, color=plots.RED, ls="--", zorder=1)
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=9)
    for label in ax.get_yticklabels():  # a small model's bar is hardly seen
        label.set_color(plots.BLUE if label.get_text() in chosen else "0.6")
    ax.set_xlabel(f"GB at 4.5 bits a weight; {len(chosen)} of {len(rows)} models are allowed and small enough")
    ax.grid(axis="y", visible=False)
    ax.margins(y=0.01)
    ax.set_xlim(0, 1.25 * max(row["q4_gb"] for row in rows))
    return fig
