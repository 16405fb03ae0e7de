"""What lab 16 tells and draws: a container from both sides, layers, a cache, limits, a stack. Rows in, figures out; nothing is run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.core import paths
from labkit.learn import plots
from labkit.models import footprint
from labkit.models.inspect import Gguf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
MB = 1e6
MIB = 1 << 20  # what the m of a limit stands for
PROGRAM_BYTES = 80_000_000  # Ollama's two processes beside the model, as the lab measured them on one machine
# how a container ended under a limit: what it is called, its colour and its sign
ENDS = {
    "answered": ("answered", plots.GREEN, "o"),
    "model killed": ("the model's process was killed, the server lives", plots.ORANGE, "X"),
    "container killed": ("the container was killed", plots.RED, "s"),
}


def short(command: str, length: int = 46) -> str:
    """What made a layer, as its line in a Containerfile would begin."""
    text = " ".join(command.split())
    text = re.sub(r"^/bin/sh -c #\(nop\)\s*", "", text)
    text = re.sub(r"^(\|\d+ )?(\S+=\S+ )*/bin/sh -c ", "RUN ", text)
    text = re.sub(r"(file|dir|multi):[0-9a-f]+( in)?", "…", text)
    return text if len(text) <= length else text[: length - 1] + "…"


def spread(values: Sequence[float]) -> str:
    """ "0.31 s (0.28 to 0.35, n = 5)" """
    return f"{float(np.median(values)):.2f} s ({min(values):.2f} to {max(values):.2f}, n = {len(values)})"


def middle(rows: Rows, key: str) -> float:
    """The median of a figure."""
    return float(np.median([row[key] for row in rows]))


def recipe() -> str:
    """The stack's Containerfile, as it is."""
    return paths.labs("stacks", "ollama", "Containerfile").read_text(encoding="utf-8")


def shared_bytes(rows: Rows) -> int:
    """What a machine fetches for all variants: what is not the model once, and each model."""
    return int(rows[0]["image_bytes"] - rows[0]["model_bytes"] + sum(r["model_bytes"] for r in rows))


def draw_start(rows: Rows, guess: float, caption: str) -> Figure:
    """Every start as a dot: seconds until it answers, with the guess of the container's; and memory with the model loaded."""
    fig, (left, right) = plots.figure(caption, width=9, columns=2)
    kinds = list(dict.fromkeys(r["way"] for r in rows))
    plots.points(left, {kind: [r["start_s"] for r in rows if r["way"] == kind] for kind in kinds}, "seconds until it answers")
    process = middle([r for r in rows if r["way"] == "process"], "start_s")
    x = kinds.index("container")
    left.plot([x - 0.35, x + 0.35], [process + guess] * 2, color=plots.RED, ls=":", lw=2.5, label="your guess")
    left.set_ylim(0, max(left.get_ylim()[1], 1.1 * (process + guess)))
    left.legend(frameon=False, loc="upper left")
    memory = {kind: [r["memory_bytes"] / MB for r in rows if r["way"] == kind] for kind in kinds}
    plots.points(right, memory, "memory with the model loaded (MB)", plots.GREEN)
    return fig


def draw_layers(rows: Rows, caption: str) -> Figure:
    """Layers with bytes, the first at the bottom as they lie on each other."""
    kept = [r for r in rows if r["bytes"]]
    fig, ax = plots.figure(caption, width=9, height=0.6 + 0.42 * max(len(kept), 3))
    at = np.arange(len(kept))
    ax.barh(at, [r["bytes"] / MB for r in kept], 0.65, color=plots.BLUE)
    for y, r in zip(at, kept, strict=True):
        ax.annotate(f" {r['bytes'] / MB:,.1f}", (r["bytes"] / MB, y), va="center", fontsize=8)
    ax.set_yticks(at, [short(r["command"]) for r in kept], fontsize=8)
    ax.set_xlabel("size of the layer (MB)")
    ax.margins(x=0.12)
    ax.grid(axis="y", visible=False)
    return fig


def draw_cache(rows: Rows, caption: str) -> Figure:
    """For each change: bytes of layers from the cache and made anew, and how long the build took."""
    fig, (left, right) = plots.figure(caption, width=10, columns=2, height=3.6)
    names = [r["change"] for r in rows]
    at = np.arange(len(rows))
    same, new = ([r[key] / MB for r in rows] for key in ("kept_bytes", "new_bytes"))
    left.barh(at, same, 0.6, color=plots.SKY, label="from the cache")
    left.barh(at, new, 0.6, left=same, color=plots.ORANGE, hatch="//", edgecolor="white", label="made anew")
    left.set_xlabel("layers of the image (MB)")
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=2, fontsize=8)
    right.barh(at, [r["seconds"] for r in rows], 0.6, color=plots.BLUE)
    right.set_xlabel("seconds of the build")
    for ax in (left, right):
        ax.set_yticks(at, names if ax is left else [""] * len(rows), fontsize=8)
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return fig


def draw_ways(rows: Rows, caption: str) -> Figure:
    """What each way to bring the model stores, moves for a new model, and waits for."""
    fig, axes = plots.figure(caption, width=10, columns=3, height=3.6)
    names, at = [r["way"] for r in rows], np.arange(len(rows))
    plots.stacked(
        axes[0], names, {"image": [r["image_bytes"] / MB for r in rows], "volume": [r["volume_bytes"] / MB for r in rows]}, "stored (MB)"
    )
    axes[1].bar(at, [r["update_bytes"] / MB for r in rows], 0.6, color=plots.ORANGE)
    axes[1].set_ylabel("to move for a new model (MB)")
    axes[2].bar(at, [r["healthy_s"] for r in rows], 0.6, color=plots.GREEN)
    axes[2].set_ylabel("seconds from start to healthy")
    for ax in axes:
        ax.set_xticks(at, names, rotation=0, ha="center", fontsize=8)
    axes[0].legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2, fontsize=8)
    return fig


def draw_limits(rows: Rows, guess: float, caption: str) -> Figure:
    """What happened at each memory limit, the computed need, and the learner's guess of the smallest that will do."""
    fig, ax = plots.figure(caption, width=9, height=3.2)
    for end, (label, colour, sign) in ENDS.items():
        found = [r["limit_mib"] for r in rows if r["end"] == end]
        ax.plot(found, [0] * len(found), sign, color=colour, ms=12, label=label, ls="")
    need = rows[0]["predicted_mib"]
    ax.axvline(need, color=plots.BLUE, lw=2, label=f"computed need: {need:,.0f} MiB")
    ax.axvline(guess, color=plots.BLACK, lw=1.5, ls=":", label="your guess")
    ax.set_xscale("log", base=2)
    ticks = sorted({round(r["limit_mib"]) for r in rows})
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel("memory limit (MiB)")
    ax.set_yticks([])
    ax.set_ylim(-1, 1)
    fig.legend(frameon=False, loc="outside upper center", ncols=2, fontsize=9)
    return fig


def draw_cpus(rows: Rows, caption: str) -> Figure:
    """Tokens a second at each CPU limit, and the straight line through the smallest one."""
    fig, ax = plots.figure(caption)
    limits = sorted({r["cpus"] for r in rows})
    medians = [float(np.median([r["tokens_per_s"] for r in rows if r["cpus"] == one])) for one in limits]
    line = [medians[0] * one / limits[0] for one in limits]
    ax.plot(limits, line, "--", color=plots.SKY, lw=2, label="predicted: in proportion to the limit")
    ax.plot([r["cpus"] for r in rows], [r["tokens_per_s"] for r in rows], "o", color=plots.BLUE, alpha=0.6, label="measured, each run")
    ax.plot(limits, medians, "-", color=plots.BLUE, lw=1.5, label="measured, median")
    ax.set_xlabel("--cpus")
    ax.set_ylabel("tokens per second")
    ax.set_xticks(limits)
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return fig


def draw_variants(rows: Rows, caption: str) -> Figure:
    """Size of each image, in what they share and the model that is their own; the model's, computed from bits a weight and measured."""
    fig, (left, right) = plots.figure(caption, width=9.5, columns=2)
    names = [r["variant"] for r in rows]
    shared = [(r["image_bytes"] - r["model_bytes"]) / MB for r in rows]
    plots.stacked(left, names, {"the same layers in all": shared, "the model": [r["model_bytes"] / MB for r in rows]}, "image (MB)")
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=2, fontsize=8)
    plots.predicted_measured(
        right, names, [r["predicted_bytes"] / MB for r in rows], [r["model_bytes"] / MB for r in rows], "model (MB)",
        labels=("computed from bits a weight", "measured"),
    )  # fmt: skip
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=1, fontsize=8)
    return fig


def draw_stream(rows: Rows, caption: str) -> Figure:
    """When each piece of the answer arrived through the proxy, since the request was sent."""
    fig, ax = plots.figure(caption, width=8.5, height=3.2)
    for y, row in enumerate(rows):
        ax.plot(row["arrived_s"], [y] * len(row["arrived_s"]), "|", color=plots.BLUE, ms=16, mew=1.6)
        ax.plot([row["done_s"]], [y], "D", color=plots.ORANGE, ms=6, label="the answer is complete" if y == 0 else None)
    ax.set_yticks(range(len(rows)), [row["way"] for row in rows], fontsize=9)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("seconds since the request")
    ax.set_xlim(left=0)
    ax.grid(axis="y", visible=False)
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1.0))
    return fig


def draw_workflow(rows: Rows, caption: str) -> Figure:
    """Seconds of each step that ran; a sign for those that failed, and for those that were skipped."""
    fig, ax = plots.figure(caption, width=9, height=0.8 + 0.36 * len(rows))
    at = np.arange(len(rows))
    colours = {"passed": plots.GREEN, "FAILED": plots.RED}
    ax.barh(at, [r["seconds"] for r in rows], 0.6, color=[colours.get(r["result"], "0.7") for r in rows])
    for y, r in zip(at, rows, strict=True):
        words = f"{r['seconds']:.1f} s, {r['result']}" if r["exit_code"] is not None else r["result"]
        ax.annotate(f" {words}", (r["seconds"], y), va="center", fontsize=8)
    ax.set_yticks(at, [r["step"] for r in rows], fontsize=9)
    ax.invert_yaxis()
    ax.set_xlabel("seconds")
    ax.margins(x=0.5)
    ax.grid(axis="y", visible=False)
    return fig


def need_bytes(header: Gguf, context: int, parallel: int, program_bytes: int = PROGRAM_BYTES, kv: str = "f16") -> dict[str, int]:
    """What a container with this model needs: weights, KV cache of all slots, compute buffers, and the programs themselves."""
    found = footprint.predict(header, context, kv)
    return {
        "weights_bytes": found.weights_bytes,
        "kv_cache_bytes": parallel * footprint.kv_cache_bytes(header, context, kv),
        "compute_bytes": found.compute_bytes,
        "program_bytes": program_bytes,
    }


def draw_need(header: Gguf, context: int, parallel: int, limit_mib: int, caption: str) -> Figure:
    """Computed need in its parts, beside a limit: will it do?"""
    fig, ax = plots.figure(caption, width=8.5, height=3)
    parts = need_bytes(header, context, parallel)
    names = {"weights_bytes": "weights", "kv_cache_bytes": "KV cache", "compute_bytes": "compute buffers", "program_bytes": "program"}
    left = 0.0
    for (key, size), colour, hatch in zip(parts.items(), plots.COLOURS, ("", "//", "..", "xx"), strict=False):
        ax.barh(0, size / MIB, 0.5, left=left, color=colour, hatch=hatch, edgecolor="white", label=names[key])
        left += size / MIB
    ax.axvline(limit_mib, color=plots.RED, lw=2.5, label=f"limit {limit_mib:,} MiB")
    ax.set_yticks([])
    ax.set_ylim(-0.6, 0.6)
    ax.set_xlabel("memory (MiB), computed")
    ax.set_title(f"{left:,.0f} MiB: {'it fits' if left <= limit_mib else 'it does not fit'}", fontsize=10)
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=5, fontsize=8)
    return fig
