"""The pictures of lab 18: rows of vllm_rows.py in, figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.learn import plots, vllm_view
from labkit.learn import vllm_metrics as metrics
from labkit.learn import vllm_sums as sums
from labkit.measure.load import Slo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]


def draw_start(rows: Sequence[Row], guess_s: float, guess_gb: float, caption: str) -> Figure:
    """Seconds until ready and memory of vLLM and of llama-server, on logarithmic axes, with the learner's guesses for vLLM."""
    fig, axes = plots.figure(caption, width=9, height=3.2, columns=2)
    for ax, key, scale, unit, guess in zip(
        axes, ("start_s", "memory_bytes"), (1, 1e9), ("seconds from nothing to ready", "memory after an answer (GB)"), (guess_s, guess_gb),
        strict=True,
    ):  # fmt: skip
        values = [row[key] / scale for row in rows]
        ax.barh(range(len(rows)), values, 0.55, color=[plots.BLUE, plots.GREEN][: len(rows)])
        for y, value in enumerate(values):
            ax.annotate(f" {value:.3g}", (value, y), va="center", fontsize=9)
        ax.plot([guess], [0], "D", color=plots.RED, ms=8, label="your guess for vLLM")
        ax.set_yticks(range(len(rows)), [row["server"] for row in rows])
        ax.invert_yaxis()
        ax.set_xscale("log")
        ax.set_xlim(min([*values, guess]) / 3, max([*values, guess]) * 3)
        ax.set_xlabel(unit)
        ax.grid(axis="y", visible=False)
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    return fig


def draw_places(lengths: Sequence[int], slots: int, continuous: bool, caption: str) -> Figure:
    """Which request has which place of the batch at which step. Computed: one token a step and request."""
    places = sums.schedule(lengths, slots, continuous)
    total = max(place.end for place in places)
    fig, ax = plots.figure(caption, width=8.5, height=0.35 * slots + 1.9)
    for number, place in enumerate(places):
        colour = plots.COLOURS[number % 6]
        ax.barh(place.slot, place.end - place.begin, 0.8, left=place.begin, color=colour, edgecolor="white")
        ax.annotate(str(number), ((place.begin + place.end) / 2, place.slot), ha="center", va="center", fontsize=8, color="white")
    busy = sum(lengths) / (slots * total)
    ax.set_title(f"{'continuous' if continuous else 'static'} batching: {total} steps, places busy {busy:.0%} of the time", fontsize=10)
    ax.set_yticks(range(slots), [f"place {slot + 1}" for slot in range(slots)])
    ax.invert_yaxis()
    ax.set_xlim(0, max(total, sums.static_steps(lengths, slots)))
    ax.set_xlabel("decode steps; the numbers are requests")
    ax.grid(axis="y", visible=False)
    return fig


def draw_batching(rows: Sequence[Row], guess: float, caption: str) -> Figure:
    """Throughput, TPOT and TTFT against the number of clients: every run a dot, the median a line."""
    fig, axes = plots.figure(caption, width=11, height=3.6, columns=3)
    groups = vllm_view.by(rows, "clients")
    at = sorted(groups)
    for ax, key, unit in zip(axes, ("tokens_per_s", "tpot_s", "ttft_s"), ("tokens/s, all clients", "TPOT (s)", "TTFT (s)"), strict=True):
        ax.plot(at, [vllm_view.median(groups[n], key) for n in at], color=plots.BLUE, lw=1.5, label="measured")
        ax.plot([row["clients"] for row in rows], [row[key] for row in rows], "o", color=plots.BLUE, alpha=0.6, ms=5)
        ax.set_ylabel(unit)
        ax.set_xlabel("clients at once")
        ax.set_xscale("log", base=2)
        ax.set_xticks(at, [str(n) for n in at])
        ax.minorticks_off()
    one = vllm_view.median(groups[at[0]], "tokens_per_s")
    axes[0].plot(at, [one * n / at[0] for n in at], ":", color="0.5", label="as if batching were free")
    axes[0].plot([at[-1]], [one * guess], "D", color=plots.RED, ms=8, label="your guess")
    axes[0].set_ylim(0, 1.3 * max([one * guess, *(row["tokens_per_s"] for row in rows)]))
    axes[0].legend(frameon=False, fontsize=8)
    for ax in axes[1:]:
        ax.set_ylim(bottom=0)
    return fig


def draw_computed(rows: Sequence[Row], caption: str) -> Figure:
    """Throughput as computed from TTFT and TPOT next to the measured one."""
    fig, ax = plots.figure(caption, width=7.5, height=3.6)
    groups = vllm_view.by(rows, "clients")
    names = [f"{n} client{'s' if n > 1 else ''}" for n in sorted(groups)]
    measured = [vllm_view.median(groups[n], "tokens_per_s") for n in sorted(groups)]
    plots.predicted_measured(ax, names, [vllm_view.computed(groups[n]) for n in sorted(groups)], measured, "tokens/s, all clients")
    return fig


def draw_burst(rows: Sequence[Row], slots: int, caption: str) -> Figure:
    """Above: each request's wait and its answer. Below: how many were running and waiting, as /metrics said meanwhile."""
    asked, seen = ([row for row in rows if row["kind"] == kind] for kind in ("request", "sample"))
    fig, (top, below) = plots.figure(caption, width=9, height=6, rows=2)
    order = sorted(asked, key=lambda row: row["first_s"])
    for y, row in enumerate(order):
        top.barh(
            y, row["first_s"] - row["start_s"], 0.7, left=row["start_s"], color=plots.ORANGE, label=None if y else "until the first token"
        )
        top.barh(y, row["last_s"] - row["first_s"], 0.7, left=row["first_s"], color=plots.BLUE, label=None if y else "answer")
        top.annotate(f" {row['output_tokens']}", (row["last_s"], y), va="center", fontsize=7)
    top.set_ylabel("request (number: its tokens)")
    top.invert_yaxis()
    top.legend(frameon=False, fontsize=8, loc="upper right")
    times = [row["at_s"] for row in seen]
    below.step(times, [row["running"] for row in seen], where="post", color=plots.BLUE, label="running")
    below.step(times, [row["waiting"] for row in seen], where="post", color=plots.RED, ls="--", label="waiting")
    below.axhline(slots, color="0.5", ls=":", lw=1, label="--max-num-seqs")
    below.set_ylabel("requests")
    below.set_xlabel("seconds since all were sent")
    below.legend(frameon=False, fontsize=8)
    for ax in (top, below):
        ax.set_xlim(0, 1.06 * max(row["last_s"] for row in asked))
    return fig


def draw_prefix(rows: Sequence[Row], caption: str) -> Figure:
    """TTFT of each request by kind, and cached tokens: computed, and as the counters grew."""
    fig, (left, right) = plots.figure(caption, width=10, height=3.8, columns=2)
    kinds = vllm_view.by([row for row in rows if row["kind"] != "first"], "kind")
    names = [vllm_view.KINDS[kind] for kind in kinds]
    plots.points(
        left, dict(zip(names, [[row["ttft_s"] for row in some] for some in kinds.values()], strict=True)), "time to first token (s)"
    )
    predicted = [sum(row["predicted_tokens"] for row in some) for some in kinds.values()]
    hits = [sum(row["hits"] for row in some) for some in kinds.values()]
    at = np.arange(len(names))
    right.bar(at - 0.2, predicted, 0.38, color=plots.SKY, hatch="//", edgecolor="white", label="computed from the block size")
    right.bar(at + 0.2, hits, 0.38, color=plots.BLUE, label="prefix_cache_hits_total grew by")
    for x, count in zip(at, hits, strict=True):
        right.annotate(f"{count:,.0f}", (x + 0.2, count), ha="center", va="bottom", fontsize=8)
    right.set_xticks(at, names)
    right.set_ylabel("tokens from the cache")
    right.margins(y=0.3)
    right.legend(frameon=False, fontsize=8)
    return fig


def draw_open(rows: Sequence[Row], slo: Slo, guess_s: float, caption: str) -> Figure:
    """Median and p95 of the TTFT against the rate, and which share of the requests met the target."""
    fig, (left, right) = plots.figure(caption, width=9.5, height=3.6, columns=2)
    rates = [row["rate"] for row in rows]
    left.plot(rates, [row["ttft_s"] for row in rows], "o-", color=plots.BLUE, label="median")
    left.plot(rates, [row["ttft_p95_s"] for row in rows], "s--", color=plots.RED, label="p95")
    left.axhline(slo.ttft_s or 0, color="0.5", ls=":", label="target")
    left.plot([rates[-1]], [guess_s], "D", color=plots.PINK, ms=8, label="your guess for p95")
    left.set_ylabel("time to first token (s)")
    left.set_yscale("log")
    shares = [row["goodput_per_s"] / row["rate"] for row in rows]
    right.plot(rates, shares, "o-", color=plots.GREEN)
    for row, share in zip(rows, shares, strict=True):
        right.annotate(f"{row['goodput_per_s']:.3g}/s", (row["rate"], share), xytext=(0, 6), textcoords="offset points", fontsize=8)
    right.set_ylabel("goodput, share of the rate")
    right.set_ylim(0, 1.15)
    left.legend(frameon=False, fontsize=8)
    for ax in (left, right):
        ax.set_xlabel("requests that arrive per second")
    return fig


def draw_buckets(row: Row, caption: str) -> Figure:
    """The server's histogram of TTFT, its p95 by interpolation, and the client's p95 of the same requests."""
    buckets = metrics.from_rows(row["ttft_buckets"])
    fig, ax = plots.figure(caption, width=8.5, height=3.4)
    edges = [edge for edge, _ in buckets[:-1]]
    counts = np.diff([0.0, *(count for _, count in buckets)])
    shown = [n for n, count in enumerate(counts) if count] or [0]
    low, high = max(0, shown[0] - 1), min(len(edges) - 1, shown[-1] + 1)
    for n in range(low, high + 1):
        left = edges[n - 1] if n else edges[0] / 2
        ax.bar(left, counts[n], edges[n] - left, align="edge", color=plots.SKY, edgecolor="white")
    ax.axvline(sums.quantile(buckets, 0.95) or 0, color=plots.BLUE, lw=2, label="p95 out of the buckets")
    ax.axvline(row["ttft_p95_s"], color=plots.RED, ls="--", lw=2, label="p95 of the client's own times")
    ax.set_xscale("log")
    ax.set_xlabel("time to first token (s); each bar is a bucket")
    ax.set_ylabel("requests")
    ax.legend(frameon=False, fontsize=8)
    return fig


def draw_bracket(rows: Sequence[Row], guess: float, caption: str) -> Figure:
    """Throughput and TTFT on each server of the bracket, in the order of their starts: the two outer ones have the same setting."""
    fig, axes = plots.figure(caption, width=9, height=3.5, columns=2)
    turns = vllm_view.by(rows, "turn")
    names = [f"start {turn + 1}:\n{some[0]['max_num_seqs']}" for turn, some in turns.items()]
    for ax, key, unit in zip(axes, ("tokens_per_s", "ttft_s"), ("tokens/s, all clients", "median TTFT (s)"), strict=True):
        groups = dict(zip(names, [[row[key] for row in some] for some in turns.values()], strict=True))
        plots.points(ax, groups, unit)
        ax.set_xlabel("--max-num-seqs")
    outer = np.mean([row["tokens_per_s"] for row in rows if row["turn"] != 1])
    axes[0].plot([1], [guess * outer], "D", color=plots.RED, ms=8, label="your guess")
    axes[0].legend(frameon=False, fontsize=8)
    return fig


def draw_preempt(rows: Sequence[Row], guess: float, caption: str) -> Figure:
    """Blocks that all requests need at their end against those there are, preemptions, and throughput."""
    fig, axes = plots.figure(caption, width=10, height=3.5, columns=3)
    levels = vllm_view.by(rows, "clients")
    names = [str(n) for n in levels]
    axes[0].bar(
        names, [vllm_view.median(some, "blocks_needed") for some in levels.values()], 0.5, color=plots.SKY, hatch="//", edgecolor="white"
    )
    room = rows[0]["blocks"] - 1  # vLLM keeps one for itself (its null block)
    axes[0].axhline(room, color=plots.RED, ls=":", lw=2)
    axes[0].annotate("for requests", (0, room), va="bottom", ha="center", fontsize=8, color=plots.RED)
    axes[0].set_ylabel("blocks needed (computed)")
    axes[0].margins(y=0.2)
    plots.points(
        axes[1], {name: [row["preemptions"] for row in some] for name, some in zip(names, levels.values(), strict=True)}, "preemptions"
    )
    axes[1].plot([len(names) - 1], [guess], "D", color=plots.RED, ms=8, label="your guess")
    axes[1].set_ylim(0, max(axes[1].get_ylim()[1], 1.1 * guess))
    axes[1].legend(frameon=False, fontsize=8, loc="upper left")
    groups = {name: [row["tokens_per_s"] for row in some] for name, some in zip(names, levels.values(), strict=True)}
    plots.points(axes[2], groups, "tokens/s, all clients")
    for ax in axes:
        ax.set_xlabel("clients at once")
    return fig


def draw_compare(rows: Sequence[Row], guesses: Sequence[str], caption: str) -> Figure:
    """Throughput of each server at each number of clients: every run a dot, the median a bar. guesses: the winner of each."""
    levels = vllm_view.by(rows, "clients")
    fig, axes = plots.figure(caption, width=4.6 * len(levels), height=3.8, columns=len(levels))
    for ax, guess, (clients, some) in zip(np.atleast_1d(axes), guesses, levels.items(), strict=True):
        sides = {name.replace(", ", "\n"): [row["tokens_per_s"] for row in mine] for name, mine in vllm_view.by(some, "server").items()}
        plots.points(ax, sides, "tokens/s, all clients")
        ax.set_title(f"{clients} client{'s' if clients > 1 else ''}; your guess: {guess}", fontsize=10)
    return fig
