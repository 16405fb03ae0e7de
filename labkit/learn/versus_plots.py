"""The pictures of lab 12: latencies with their intervals, throughput against parallel requests, memory and load time, quality
against size, and the copies that a number of people would need. Rows in, figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.learn import plots, versus_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
COLOURS = {"llamacpp": plots.BLUE, "ollama": plots.ORANGE, "ortgenai": plots.GREEN, "foundry": plots.PINK, "openai": plots.SKY}
MARKERS = {"llamacpp": "o", "ollama": "s", "ortgenai": "^", "foundry": "D", "openai": "v"}


def _names(rows: Sequence[Row]) -> list[str]:
    return [versus_view.title(row["engine"]) + ("\n(over HTTP)" if row.get("includes_http") else "") for row in rows]


def _three_digits(value: float) -> str:
    """Three digits that count, and never a power of ten: 0.632, 26.1, 1030."""
    return f"{float(f'{value:.3g}'):.6g}"


def _colours(rows: Sequence[Row]) -> list[str]:
    return [COLOURS.get(row["engine"], plots.BLACK) for row in rows]


def _bars(ax: Axes, rows: Sequence[Row], values: Sequence[float], unit: str, colour: Any = None, **more: Any) -> None:
    ax.barh(range(len(rows)), values, more.pop("height", 0.6), color=colour or _colours(rows), **more)
    ax.set_yticks(range(len(rows)), _names(rows), fontsize=8)
    ax.set_xlabel(unit)
    ax.set_xlim(0, 1.22 * max([*values, *([ax.get_xlim()[1] / 1.22])]))
    ax.grid(axis="y", visible=False)


def draw_latency(rows: Sequence[Row], guess: str, caption: str) -> Figure:
    """TTFT and TPOT of each engine, median and 95 % interval, in milliseconds; the engine that was guessed is marked."""
    fig, axes = plots.figure(caption, width=9, height=0.7 * len(rows) + 1.6, columns=2)
    for ax, key, words in zip(axes, ("ttft_s", "tpot_s"), ("time to first token", "time per output token"), strict=True):
        known = [row for row in rows if row[key] is not None]
        for y, row in enumerate(known):
            middle, low, high = (1e3 * row[name] for name in (key, f"{key}_low", f"{key}_high"))
            colour, marker = COLOURS.get(row["engine"], plots.BLACK), MARKERS.get(row["engine"], "x")
            ax.errorbar(middle, y, xerr=[[middle - low], [high - middle]], fmt=marker, color=colour, ms=8, capsize=5, lw=2)
            ax.annotate(_three_digits(middle), (middle, y), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8)
            if row["engine"] == guess:
                ax.annotate(
                    "your guess", (middle, y), xytext=(0, -16), textcoords="offset points", ha="center", fontsize=8, color=plots.RED
                )
        ax.set_yticks(range(len(known)), _names(known), fontsize=8)
        ax.set_ylim(len(known) - 0.4, -0.7)
        ax.set_xlim(0, 1.15 * max([1e3 * row[f"{key}_high"] for row in known], default=1))
        ax.set_xlabel(f"{words}, ms")
        ax.grid(axis="x", alpha=0.25)
    axes[1].set_yticklabels([])
    return fig


def draw_parallel(rows: Sequence[Row], caption: str) -> Figure:
    """All output tokens per second, and the longest wait for a first token, against requests at once."""
    fig, axes = plots.figure(caption, width=9, columns=2)
    for ax, key, words in zip(
        axes, ("tokens_per_s", "ttft_s_max"), ("output tokens per second, in all", "longest wait for the first token, s"), strict=True
    ):
        for name in dict.fromkeys(row["engine"] for row in rows):
            mine = sorted((row for row in rows if row["engine"] == name), key=lambda row: row["parallel"])
            look = {"marker": MARKERS.get(name, "x"), "color": COLOURS.get(name, plots.BLACK)}
            alone = "--" if mine[0]["sessions"] == max(row["sessions"] for row in mine) == 1 and len(mine) > 1 else "-"
            label = versus_view.title(name) + (" (one at a time)" if alone == "--" else "")
            ax.plot([row["parallel"] for row in mine], [row[key] for row in mine], ls=alone, ms=7, label=label, **look)
        levels = sorted({row["parallel"] for row in rows})
        ax.set_xscale("log", base=2)
        ax.set_xticks(levels, [str(level) for level in levels])
        ax.set_xlabel("requests at once")
        ax.set_ylabel(words)
        ax.set_ylim(0, None)
    axes[0].legend(frameon=False, fontsize=8)
    return fig


def draw_start(rows: Sequence[Row], caption: str) -> Figure:
    """Left: time from nothing to the first token, split where the model is loaded, and to load again. Right: memory with all processes."""
    fig, axes = plots.figure(caption, width=9, height=0.7 * len(rows) + 1.8, columns=2)
    at = np.arange(len(rows))
    ready, first, again = ([row[key] for row in rows] for key in ("ready_s", "first_token_s", "again_s"))
    axes[0].barh(at - 0.2, ready, 0.36, color=_colours(rows))
    axes[0].barh(at - 0.2, np.subtract(first, ready), 0.36, left=ready, color=_colours(rows), alpha=0.55)
    axes[0].barh(at + 0.2, again, 0.36, color=_colours(rows), alpha=0.45, hatch="//", edgecolor="white")
    for y, values in ((-0.2, first), (0.2, again)):
        for x, value in zip(at, values, strict=True):
            axes[0].annotate(f" {value:.2g}", (value, x + y), va="center", fontsize=8)
    axes[0].set_yticks(at, _names(rows), fontsize=8)
    axes[0].set_xlim(0, 1.2 * max([*first, *again]))
    axes[0].set_xlabel("from nothing to the first token, s\n(dark: until the model is loaded; hatched: loaded again)")
    megabytes = [row["memory_bytes"] / 1e6 for row in rows]
    _bars(axes[1], rows, megabytes, "memory after an answer, MB\n(all processes)")
    for y, value in enumerate(megabytes):
        axes[1].annotate(f" {value:.0f}", (value, y), va="center", fontsize=8)
    axes[1].set_yticklabels([])
    for ax in axes:
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return fig


def draw_quality(rows: Sequence[Row], caption: str) -> Figure:
    """Size against KL divergence with its 95 % interval, on a logarithmic axis: GGUF files round, the ONNX folder a triangle."""
    fig, ax = plots.figure(caption, width=7.5)
    for row in rows:
        onnx = row["format"] != "gguf"
        half = 1.96 * row["kl_stderr"]
        look = {"fmt": "^" if onnx else "o", "color": plots.GREEN if onnx else plots.BLUE}
        ax.errorbar(row["bytes"] / 1e6, row["kl_mean"], yerr=[[min(half, 0.9 * row["kl_mean"])], [half]], ms=9, capsize=4, lw=1.5, **look)
        words = f"{row['name']}\nperplexity {row['perplexity']:.1f}"
        ax.annotate(words, (row["bytes"] / 1e6, row["kl_mean"]), xytext=(9, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlim(0, 1.3 * max(row["bytes"] for row in rows) / 1e6)
    ax.set_xlabel("size on disk, MB")
    ax.set_ylabel("KL divergence from the 16-bit copy, nats")
    ax.margins(y=0.12)
    return fig


def draw_copies(rows: Sequence[Row], people: int, tokens_per_s_each: float, memory_gb: float, caption: str) -> Figure:
    """Memory for the copies of each engine that so many people would need, against the memory there is. Computed from measurements."""
    fig, ax = plots.figure(f"computed from figures {caption}", width=8.5, height=0.6 * len(rows) + 1.8)
    found = [versus_view.deployment(row, people, tokens_per_s_each) for row in rows]
    sizes = [(one["memory_bytes"] or 0) / 1e9 for one in found]
    ax.barh(range(len(rows)), sizes, 0.6, color=_colours(rows))
    for bar, one in zip(ax.patches, found, strict=True):
        fits = one["memory_bytes"] is not None and one["memory_bytes"] / 1e9 <= memory_gb
        bar.set(alpha=1.0 if fits else 0.4, hatch="" if fits else "xx", edgecolor="white")
    for y, (one, size) in enumerate(zip(found, sizes, strict=True)):
        ax.annotate(f" {one['how']}", (size, y), va="center", fontsize=9)
    ax.axvline(memory_gb, color=plots.RED, ls=":", lw=2)
    ax.set_yticks(range(len(rows)), [versus_view.title(row["engine"]) for row in rows], fontsize=9)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.4 * max([*sizes, memory_gb]))
    ax.set_xlabel("memory for all copies, GB (dotted: what there is; hatched: does not fit)")
    ax.set_title(f"{people} people, {tokens_per_s_each:g} tokens/s for each", fontsize=10)
    ax.grid(axis="y", visible=False)
    return fig
