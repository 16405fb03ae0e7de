"""What lab 05 draws: a block and its grid, errors by format, by block and by block size, and the ranges of a superblock.

Functions take rows (see `blocks_rows`) and return figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.core.errors import BadInput, nearest
from labkit.learn import plots
from labkit.learn.blocks_rows import medians, ratios, relative_error, round_trip, share_of_top
from labkit.quant import blocks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# where a block's scales are; the other bytes are the weights' numbers
_HEAD = {
    "Q8_0": slice(0, 2), "Q5_0": slice(0, 2), "Q4_0": slice(0, 2), "Q4_1": slice(0, 4), "Q5_1": slice(0, 4),
    "Q4_K": slice(0, 16), "TQ2_0": slice(64, 66),
}  # fmt: skip
# what the other bytes are filled with; Q8_0 never stores -128, and the fourth two-bit number of TQ2_0 has no meaning
_FILLS = {"Q8_0": [n for n in range(256) if n != 128], "TQ2_0": [0b00000000, 0b01010101, 0b10101010]}
_DRAWN = 40  # more lines than this are a grey area


def levels(kind: str, weights: np.ndarray) -> np.ndarray:
    """All values that the first 32 of 256 weights could have been given, with the scales that the format chose for them."""
    if kind not in _HEAD:
        raise BadInput(f"no grid to draw for {kind!r} ({nearest(kind, _HEAD)})", f"one of {', '.join(_HEAD)}")
    data = blocks.encode(kind, weights)[: blocks.KINDS[kind].bytes]
    found = []
    for fill in _FILLS.get(kind, range(256)):
        filled = np.full_like(data, fill)
        filled[_HEAD[kind]] = data[_HEAD[kind]]
        found.append(blocks.decode(kind, filled)[:32])
    return np.unique(np.concatenate(found))


def with_outlier(weights: np.ndarray, times: float) -> np.ndarray:
    """A copy in which the largest of the first 32 weights is `times` as large."""
    out = np.array(weights, np.float32)
    at = np.abs(out[:32]).argmax()
    out[at] *= np.float32(times)
    return out


def draw_block(weights: np.ndarray, kind: str, caption: str, outlier: float = 1.0) -> Figure:
    """The first 32 of 256 weights, the grid that a format lays over them, and each weight's error. Values are plain numbers."""
    weights = with_outlier(weights, outlier)
    grid, back = levels(kind, weights), round_trip(kind, weights)
    fig, (left, right) = plots.figure(caption, width=9.5, height=4, columns=2)
    at = np.arange(32)
    _draw_grid(left, grid, float(np.abs(weights[:32]).max()))
    left.plot(at, weights[:32], "o", color=plots.BLUE, ms=5, label="weight")
    left.plot(at, back[:32], "x", color=plots.RED, ms=6, label="what is stored")
    left.set_title(f"{kind}: {len(grid)} values to choose from", fontsize=10)
    left.set_xlabel("position in the block")
    left.set_ylabel("value")
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    error = back[:32] - weights[:32]
    right.bar(at, error, color=plots.RED)
    others = np.arange(32) != np.abs(weights[:32]).argmax()
    share = float(np.sqrt(np.mean(error[others] ** 2) / np.mean(weights[:32][others] ** 2))) if weights[:32][others].any() else 0.0
    beyond = ""
    if len(weights) > 32:
        beyond = f"\nthe other {len(weights) - 32}, beyond this block: {relative_error(weights[32:], back[32:]):.1%}"
    right.set_title(f"the 31 smaller weights: RMS error {share:.1%} of their RMS{beyond}", fontsize=10)
    right.set_xlabel("position in the block")
    right.set_ylabel("error")
    return fig


def _draw_grid(ax: Axes, grid: np.ndarray, size: float) -> None:
    shown = grid[np.abs(grid) <= size * 1.3]
    ax.grid(visible=False)
    if len(shown) <= _DRAWN:
        for value in shown:
            ax.axhline(value, color="0.82", lw=0.8, zorder=0)
    elif len(shown):
        ax.axhspan(shown[0], shown[-1], color="0.93", zorder=0, label=f"{len(shown)} values, too close to draw")


def draw_ratio(rows: Sequence[Mapping[str, Any]], guess: float, caption: str) -> Figure:
    """Error of Q4_0 over error of Q8_0 for each tensor, the guess, and the ratio of the two steps (127 / 8)."""
    found = ratios([dict(r) for r in rows])
    fig, ax = plots.figure(caption)
    ax.plot(range(len(found)), list(found.values()), "o", color=plots.BLUE, ms=8, label="measured")
    ax.axhline(guess, color=plots.RED, ls=":", lw=2, label=f"your guess: {guess:g}")
    ax.axhline(127 / 8, color=plots.GREEN, ls="--", label="ratio of the steps: 127 / 8")
    ax.set_xticks(range(len(found)), [name.removesuffix(".weight") for name in found], rotation=20, ha="right")
    ax.set_ylabel("error of Q4_0 / error of Q8_0")
    ax.set_ylim(0, max([20.0, guess * 1.15, *(v * 1.15 for v in found.values())]))
    ax.legend(frameon=False, loc="best")
    return fig


def draw_errors(series: Mapping[str, Sequence[Mapping[str, Any]]], caption: str) -> Figure:
    """Bits per weight against the median error over tensors (log scale), a panel a model; no error at all sits on the floor.

    Formats of 16 bits are left out: beside the others they have next to no error.
    """
    found = {label: _below_16(medians([dict(r) for r in rows])) for label, rows in series.items()}
    floor = min(e for errors in found.values() for e in errors.values() if e > 0) / 3
    fig, axes = plots.figure(caption, width=5 * len(found), height=4.6, columns=len(found))
    line = np.linspace(4, 9, 20)
    for ax, (label, errors), colour in zip(np.atleast_1d(axes), found.items(), (plots.BLUE, plots.ORANGE), strict=False):
        for kind, error in errors.items():
            x, name = blocks.bits_per_weight(kind), kind if error else f"{kind}: no error"
            ax.plot(x, max(error, floor), "o" if error else "v", color=colour, ms=7)
            # a neighbour's name is above, or to the right
            dx, dy, side = {"TQ1_0": (5, -12, "left"), "Q5_0": (5, -12, "left"), "Q4_0": (-5, 5, "right"), "Q4_K": (-5, -12, "right")}.get(
                kind, (5, 5, "left")
            )
            ax.annotate(name, (x, max(error, floor)), xytext=(dx, dy), textcoords="offset points", ha=side, fontsize=8)
        anchor = errors.get("Q8_0") or errors.get("Q4_0", floor) / 16
        ax.plot(line, anchor * 2 ** (8.5 - line), color="0.6", lw=1, ls="--", label="one bit less: twice the error")
        ax.set_yscale("log")
        ax.set_ylim(floor / 1.5, 2)
        ax.set_xlim(1, 9.6)
        ax.set_title(label, fontsize=10)
        ax.set_xlabel("bits per weight")
        ax.legend(frameon=False, loc="upper right")
    np.atleast_1d(axes)[0].set_ylabel("RMS error / RMS weight (log scale)")
    return fig


def _below_16(errors: Mapping[str, float]) -> dict[str, float]:
    return {kind: error for kind, error in errors.items() if blocks.bits_per_weight(kind) < 16}


def draw_spread(rows: Sequence[Mapping[str, Any]], caption: str) -> Figure:
    """For each block: its largest weight against its RMS error under Q4_0; the line is step / √12."""
    fig, ax = plots.figure(caption)
    x = np.array([r["largest"] for r in rows])
    ax.plot(x, [r["rms_error"] for r in rows], "o", color=plots.BLUE, ms=4, alpha=0.5, label="a block of 32 weights")
    line = np.array([0, x.max()])
    ax.plot(line, line / 8 / np.sqrt(12), color=plots.RED, ls="--", label="step / √12, step = largest / 8")
    ax.set_xlabel("largest weight of the block (magnitude)")
    ax.set_ylabel("RMS error of the block")
    ax.set_title(
        f"the tenth of blocks with the largest weights has {share_of_top([dict(r) for r in rows]):.0%} of the squared error", fontsize=10
    )
    ax.legend(frameon=False, loc="upper left")
    return fig


def draw_sizes(rows: Sequence[Mapping[str, Any]], caption: str) -> Figure:
    """Block size against the error, with the bits per weight that each size costs; the last row is one scale for all."""
    fig, ax = plots.figure(caption)
    errors = [r["relative_error"] for r in rows]
    ax.plot(range(len(rows)), errors, "o-", color=plots.BLUE, ms=7)
    for at, r in enumerate(rows):
        ax.annotate(
            f"{r['bits_per_weight']:.2f} bits", (at, errors[at]), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8
        )
    ax.set_xticks(range(len(rows)), [*(str(r["block"]) for r in rows[:-1]), f"the {rows[-1]['block']:,}\nthat were read"])
    ax.set_xlabel("weights that share a scale")
    ax.set_ylabel("RMS error / RMS weight")
    ax.set_ylim(0, max(errors) * 1.2)
    return fig


def draw_superblock(weights: np.ndarray, caption: str) -> Figure:
    """Of 256 weights in groups of 32: the range that the weights take, and the ranges that Q4_0's and Q4_K's grids cover."""
    groups = np.asarray(weights, np.float32).reshape(8, 32)
    fig, ax = plots.figure(caption, width=8.5)
    ax.use_sticky_edges = False  # or the lowest bar ends at the frame
    for n, group in enumerate(groups):
        turned = np.concatenate([groups[n:], groups[:n]]).ravel()  # the same superblock, with this group in front
        spans = {"Q4_0": levels("Q4_0", group), "Q4_K": levels("Q4_K", turned)}
        ax.plot([n] * 32, group, "_", color="0.4", ms=9, label="weights" if n == 0 else None)
        for shift, (kind, grid), colour in zip((-0.25, 0.25), spans.items(), (plots.SKY, plots.ORANGE), strict=True):
            ax.bar(n + shift, grid[-1] - grid[0], 0.2, bottom=grid[0], color=colour, label=f"grid of {kind}" if n == 0 else None)
    ax.set_xticks(range(8), [f"{32 * n}-{32 * n + 31}" for n in range(8)])
    ax.set_xlabel("weights")
    ax.set_ylabel("value")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3)
    return fig
