"""Outcomes of a load run in, Axes out: how long people waited, what became of each request and when, what more users bring.

>>> fig, ax = plots.figure(lab.caption())
>>> load_plots.waits(ax, {"5 requests/s": outcomes}, "ttft_s", target_s=0.5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from labkit.learn import plots
from labkit.measure.load import STATUSES, Outcome, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Figure = Literal["ttft_s", "tpot_s", "e2e_s", "lateness_s"]
WORDS: dict[Figure, str] = {
    "ttft_s": "time to first token, s",
    "tpot_s": "time per output token, s",
    "e2e_s": "end-to-end latency, s",
    "lateness_s": "sent later than due, s",
}
# a shape and a colour for each way to end: colour alone would not tell them apart for everybody
LOOKS = {
    "ok": ("o", plots.BLUE),
    "refused": ("v", plots.ORANGE),
    "error": ("X", plots.RED),
    "cut": ("D", plots.PINK),
    "timeout": ("s", plots.BLACK),
}
LINES = ("-", "--", "-.", ":")


def waits(ax: Axes, runs: Mapping[str, Sequence[Outcome]], figure: Figure = "ttft_s", target_s: float | None = None) -> Axes:
    """Share of the answered requests that took at most so long, a step line a run; p50, p95 and p99 are marked where n bears them.

    A p99 of fewer than 100 requests is the slowest one under another name: it is left out, and so is a p95 of fewer than 20.
    """
    for number, (name, outcomes) in enumerate(runs.items()):
        found = (getattr(outcome, figure) for outcome in outcomes if outcome.status == "ok")
        values = np.sort([value for value in found if value is not None])
        if not len(values):
            continue
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        share = np.arange(1, len(values) + 1) / len(values)
        ax.step(values, share, where="post", color=colour, ls=LINES[number % 4], lw=1.8, label=f"{name} (n={len(values)})")
        for q in (0.5, 0.95, 0.99):
            if len(values) >= 1 / (1 - q):
                ax.plot([np.quantile(values, q)], [q], "o", color=colour, ms=6)
    if target_s is not None:
        ax.axvline(target_s, color=plots.RED, lw=1, ls=":")
        ax.annotate("target", (target_s, 0.02), xytext=(3, 0), textcoords="offset points", fontsize=8, color=plots.RED)
    ax.set_yticks([0, 0.5, 0.95, 1], ["0", "p50", "p95", "1"])
    ax.set_ylim(0, 1.02)
    ax.set_xlim(0, None)
    ax.set_xlabel(WORDS[figure])
    ax.set_ylabel("share of answered requests")
    if ax.lines:
        ax.legend(frameon=False, fontsize=8, loc="lower right")
    return ax


def fates(ax: Axes, outcomes: Sequence[Outcome]) -> Axes:
    """When each request was due, how long it took to its end, and which end that was. Seconds from the first one due."""
    start = min((outcome.scheduled_ns for outcome in outcomes), default=0)
    for status in STATUSES:
        mine = [outcome for outcome in outcomes if outcome.status == status]
        if mine:
            marker, colour = LOOKS[status]
            x = [(outcome.scheduled_ns - start) / 1e9 for outcome in mine]
            ax.plot(x, [o.e2e_s for o in mine], marker, color=colour, ms=5, alpha=0.75, label=f"{status} ({len(mine)})")
    ax.set_xlabel("due, s from the start")
    ax.set_ylabel("until its end, s")
    ax.set_ylim(0, None)
    if outcomes:
        ax.legend(frameon=False, fontsize=8, ncols=len(STATUSES), loc="upper center", bbox_to_anchor=(0.5, 1.14))
    return ax


def growth(ax: Axes, summaries: Sequence[Summary]) -> Axes:
    """Tokens a second of all users together against users at once (closed loop), with the line of one user times so many."""
    known = sorted((s.plan.concurrency, s.tokens_per_s) for s in summaries if s.plan.concurrency is not None and s.tokens_per_s is not None)
    users, rates = [n for n, _ in known], [rate for _, rate in known]
    ax.plot(users, rates, "o-", color=plots.BLUE, ms=7, label="measured")
    if known:
        ax.plot(users, [rates[0] / users[0] * n for n in users], ":", color="0.5", label="if each got as much as the first")
        ax.legend(frameon=False, fontsize=8)
    ax.set_xscale("log", base=2)
    ax.set_xticks(users, [str(n) for n in users])
    ax.set_xlabel("users at once")
    ax.set_ylabel("output tokens per second, in all")
    ax.set_ylim(0, None)
    return ax
