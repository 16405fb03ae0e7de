"""What lab 17 draws from its rows: the matrix of probes, the loop's cost, health under load, queues, image layers, memory."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.learn import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
_COLOURS = {"naive": plots.ORANGE, "correct": plots.BLUE}
_MARKS = {"naive": "v", "correct": "o"}


def passed(rows: Rows) -> int:
    """How many probes hold."""
    return sum(bool(row["holds"]) for row in rows)


def draw_matrix(rows: Rows, guess: float | None, caption: str) -> Figure:
    """A line a probe, a column a service: a blue circle where it holds, an orange cross where not, and what was seen."""
    services = list(dict.fromkeys(row["service"] for row in rows))
    questions = list(dict.fromkeys(row["question"] for row in rows))
    fig, ax = plots.figure(caption, width=3.0 + 3.5 * len(services), height=0.45 * len(questions) + 1.3)
    for row in rows:
        x, y = services.index(row["service"]), questions.index(row["question"])
        how: dict[str, Any] = {"color": plots.BLUE, "marker": "o"} if row["holds"] else {"color": plots.RED, "marker": "X"}
        ax.plot([x], [y], ms=11, ls="", **how)
        ax.annotate("\n".join(textwrap.wrap(row["saw"], 46)[:2]), (x + 0.05, y), va="center", fontsize=8.5, color="0.25")
    counts = [f"{one}: {passed([r for r in rows if r['service'] == one])} of {len(questions)} hold" for one in services]
    ax.set_xticks(range(len(services)), counts, fontsize=10)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(questions)), questions, fontsize=9.5)
    ax.set_xlim(-0.08, len(services) - 0.05)
    for tick in ax.get_xticklabels():
        tick.set_ha("left")
    ax.set_ylim(len(questions) - 0.4, -0.6)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    if guess is not None:
        ax.set_title(f"your guess for {services[0]}: {guess:g}", fontsize=9, color=plots.RED, loc="right", pad=22)
    return fig


def draw_loop(rows: Rows, guess_s: float, caption: str, at: int = 512) -> Figure:
    """Time of one more token by the tokens before it: everything read again, or the KV cache kept. The guess is for `at` tokens."""
    fig, ax = plots.figure(caption, width=8)
    kinds = (("anew_s", "everything read again", plots.ORANGE, "v"), ("cached_s", "KV cache kept", plots.BLUE, "o"))
    before = sorted({row["tokens_before"] for row in rows})
    for key, label, colour, mark in kinds:
        ax.plot([r["tokens_before"] for r in rows], [r[key] * 1e3 for r in rows], mark, color=colour, alpha=0.6, ms=6)
        middle = [float(np.median([r[key] for r in rows if r["tokens_before"] == n])) * 1e3 for n in before]
        ax.plot(before, middle, "-", color=colour, label=label)
    ax.plot([0.9 * at, 1.1 * at], [guess_s * 1e3] * 2, color=plots.RED, ls=":", lw=2.5, label=f"your guess: read again, at {at}")
    ax.set_xlabel("tokens before (prompt and answer so far)")
    ax.set_ylabel("time for one more token, ms")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, loc="upper left")
    return fig


def whole_answer_s(rows: Rows, prompt: int, tokens: int) -> tuple[float, float]:
    """Seconds for an answer of `tokens` after `prompt`: (everything read again each time, cache kept), from the measured points."""
    before = sorted({row["tokens_before"] for row in rows})
    middle = {key: [float(np.median([r[key] for r in rows if r["tokens_before"] == n])) for n in before] for key in ("anew_s", "cached_s")}
    places = np.arange(prompt, prompt + tokens)
    anew, cached = (np.interp(places, before, middle[key]) for key in ("anew_s", "cached_s"))
    return float(anew.sum()), float(anew[0] + cached[1:].sum())


def draw_health(rows: Rows, caption: str) -> Figure:
    """Each look at a service's health while it answers one long request: when it was asked, and how long it was silent."""
    services = list(dict.fromkeys(row["service"] for row in rows))
    fig, ax = plots.figure(caption, width=8.5)
    for service in services:
        some = [r for r in rows if r["service"] == service]
        label = f"{service} (its answer took {some[0]['answer_s']:.1f} s)"
        ax.plot([r["at_s"] for r in some], [max(r["latency_s"], 1e-4) * 1e3 for r in some], ls="-", lw=0.7,
                marker=_MARKS.get(service, "s"), ms=5, color=_COLOURS.get(service, plots.GREEN), alpha=0.8, label=label)  # fmt: skip
    ax.set_yscale("log")
    ax.set_xlabel("seconds since the long request was sent")
    ax.set_ylabel("a look at its health takes, ms (logarithmic)")
    ax.legend(frameon=False)
    return fig


def draw_bound(rows: Rows, caption: str) -> Figure:
    """Left: time to first token of those who were served, by arrival. Right: how many were served and refused."""
    fig, (left, right) = plots.figure(caption, width=10, columns=2)
    bounds = list(dict.fromkeys(row["queue"] for row in rows))
    for bound, colour, mark in zip(bounds, (plots.BLUE, plots.ORANGE, plots.GREEN), "ov^", strict=False):
        some = [r for r in rows if r["queue"] == bound and r["outcome"] == "ok"]
        left.plot([r["at_s"] for r in some], [r["ttft_s"] for r in some], mark, ls="-", lw=0.7, color=colour, label=f"queue of {bound}")
    left.set_xlabel("sent at, s")
    left.set_ylabel("time to first token, s")
    left.set_ylim(bottom=0)
    left.legend(frameon=False, loc="upper left")
    names = [f"queue of {bound}" for bound in bounds]
    outcomes = [one for one in ("ok", "refused", "timeout", "cut", "error") if any(r["outcome"] == one for r in rows)]
    counts = {one: [sum(r["queue"] == b and r["outcome"] == one for r in rows) for b in bounds] for one in outcomes}
    words = {"ok": "answered", "refused": "refused (429)"}
    plots.stacked(right, names, {words.get(one, one): values for one, values in counts.items()}, "requests")
    right.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.13), ncols=len(outcomes))
    right.set_xlim(-0.6, len(bounds) - 0.4)
    return fig


def waits(rate_per_s: float, service_s: float, slots: int, bound: int, seconds: float = 60.0) -> list[tuple[float, float | None]]:
    """(arrival, wait for a place at the model; None: refused) of requests that come evenly, to a queue of `bound`, first come first served.

    Computed, with a fixed time of `service_s` for each answer and `slots` answers at a time.
    """
    free, starts = [0.0] * slots, list[float]()
    told: list[tuple[float, float | None]] = []
    for n in range(int(rate_per_s * seconds)):
        now = n / rate_per_s
        if sum(start > now for start in starts[-bound - slots - 1 :]) >= bound and min(free) > now:
            told.append((now, None))
            continue
        place = int(np.argmin(free))
        start = max(now, free[place])
        free[place] = start + service_s
        starts.append(start)
        told.append((now, start - now))
    return told


def draw_waits(rate_per_s: float, service_s: float, slots: int, bound: int, caption: str) -> Figure:
    """The waits of a minute of even arrivals, with a bound and without one."""
    fig, ax = plots.figure(caption, width=8.5)
    for limit, label, colour, mark in ((10**6, "no bound", plots.ORANGE, "v"), (bound, f"a queue of {bound}", plots.BLUE, "o")):
        told = waits(rate_per_s, service_s, slots, limit)
        served = [(at, wait) for at, wait in told if wait is not None]
        refused = len(told) - len(served)
        ax.plot([at for at, _ in served], [wait for _, wait in served], mark, ms=4, color=colour, label=f"{label}: {refused} refused")
    load = rate_per_s * service_s / slots
    ax.set_title(f"load {load:.0%} of what {slots} at a time can do; computed, not measured", fontsize=10)
    ax.set_xlabel("arrives at, s")
    ax.set_ylabel("waits, s")
    ax.set_ylim(bottom=-0.02 * ax.get_ylim()[1])
    ax.legend(frameon=False, loc="upper left")
    return fig


def draw_memory(rows: Rows, guess_mb: float, caption: str) -> Figure:
    """Memory of the container at each moment, predicted and measured, and the limit that it was given."""
    fig, ax = plots.figure(caption, width=9.5)
    names = [row["moment"] for row in rows]
    predicted, measured = ([row[key] / 1e6 for row in rows] for key in ("predicted_bytes", "measured_bytes"))
    plots.predicted_measured(ax, names, predicted, measured, "memory, MB")
    ax.axhline(rows[-1]["limit_bytes"] / 1e6, color=plots.BLACK, lw=1.5, ls="--", label="limit of the container")
    last = len(rows) - 1
    ax.plot([last - 0.45, last + 0.45], [guess_mb, guess_mb], color=plots.RED, ls=":", lw=2.5, label="your guess for the last")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return fig
