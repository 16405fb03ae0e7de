"""The pictures of lab 19: rows of watch_rows.py in, figures out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.learn import plots
from labkit.learn import watch_sums as sums
from labkit.scale.observe import CATALOGUE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
COLUMNS = 3
_STATES = {"inactive": 0, "pending": 1, "firing": 2}


def kinds(rows: Rows, kind: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


def draw_dashboard(rows: Rows, caption: str) -> Figure:
    """The catalogue's queries as panels, as a Grafana dashboard would show them; the busy times are grey."""
    series: dict[str, list[Mapping[str, Any]]] = {}
    for row in kinds(rows, "series"):
        series.setdefault(row["query"], []).append(row)
    height = -(-len(series) // COLUMNS)
    fig, axes = plots.figure(caption, width=11.5, height=2.1 * height + 0.4, columns=COLUMNS, rows=height)
    for ax, (name, some) in zip(np.ravel(axes), series.items(), strict=False):
        query = CATALOGUE[name]
        for row, colour, style in zip(some, plots.COLOURS, ("-", "--", "-.", ":") * 2, strict=False):
            ax.plot(row["at_s"], row["values"], style, color=colour, lw=1.5, label=row["series"] or None)
        ax.set_title(query.title, fontsize=9)
        ax.set_ylabel(query.unit, fontsize=8)
        ax.set_ylim(0, max(ax.get_ylim()[1], 1e-3))
        ax.tick_params(labelsize=8)
        if len(some) > 1:
            ax.legend(frameon=False, fontsize=7)
        _shade(ax, rows)
    for ax in np.ravel(axes)[len(series) :]:
        ax.remove()
    for ax in np.ravel(axes)[max(0, len(series) - COLUMNS) : len(series)]:
        ax.set_xlabel("seconds", fontsize=8)
    return fig


def _shade(ax: Axes, rows: Rows) -> None:
    for phase in kinds(rows, "phase"):
        if phase["name"] == "busy":
            ax.axvspan(phase["begin_s"], phase["end_s"], color="0.9", lw=0)


def first_to_move(rows: Rows, times: float = 2.0) -> list[tuple[str, float]]:
    """(title, seconds after the busy time began) at which a panel first showed `times` its highest quiet value; the quickest first."""
    quiet, busy = (next(row for row in kinds(rows, "phase") if row["name"] == name) for name in ("quiet", "busy"))
    found = []
    for row in kinds(rows, "series"):
        pairs = list(zip(row["at_s"], row["values"], strict=True))
        before = max((v for t, v in pairs if t <= quiet["end_s"]), default=0.0)
        after = [t for t, v in pairs if busy["begin_s"] < t <= busy["end_s"] and v > max(times * before, 1e-9)]
        if after and not row["series"]:
            found.append((CATALOGUE[row["query"]].title, after[0] - busy["begin_s"]))
    return sorted(found, key=lambda pair: pair[1])


def draw_rates(rows: Rows, window_s: float, caption: str) -> Figure:
    """The counter of tokens as it stands, and its rate over a window."""
    (counter,) = kinds(rows, "counter")
    samples = list(zip(counter["at_s"], counter["values"], strict=True))
    fig, (left, right) = plots.figure(caption, width=9, height=3.2, columns=2)
    left.plot(counter["at_s"], counter["values"], ".-", color=plots.BLUE, ms=4)
    left.set_ylabel("tokens made since the start")
    found = sums.rates(samples, window_s)
    right.plot([t for t, _ in found], [v for _, v in found], color=plots.BLUE)
    right.set_ylabel(f"tokens/s over the last {window_s:g} s")
    right.set_ylim(bottom=0)
    for ax in (left, right):
        ax.set_xlabel("seconds")
        _shade(ax, rows)
    return fig


def draw_alert(rows: Rows, guess_s: float, bounds: tuple[float, float], caption: str) -> Figure:
    """Replicas up and the alert's state by time, with the events; the guess and the computed span count from the kill."""
    fig, (top, below) = plots.figure(caption, width=10, height=5.4, rows=2)
    looks = kinds(rows, "look")
    at = [row["at_s"] for row in looks]
    top.step(at, [row["up"] if row["up"] is not None else np.nan for row in looks], where="post", color=plots.BLUE)
    top.set_ylabel("replicas up")
    top.set_ylim(0, 2.4)
    below.step(at, [_STATES[row["state"]] for row in looks], where="post", color=plots.RED)
    below.set_yticks(range(3), list(_STATES))
    below.set_ylim(-0.2, 3.4)
    events = {row["what"]: row["at_s"] for row in kinds(rows, "event")}
    for number, (what, when) in enumerate(events.items()):
        for ax in (top, below):
            ax.axvline(when, color="0.6", lw=0.8, ls=":")
        below.annotate(f"{what} ", (when, 3.2 - 0.32 * (number % 3)), ha="right", va="center", fontsize=8)
    killed = events["killed"]
    below.axvspan(killed + bounds[0], killed + bounds[1], ymin=0.0, ymax=0.08, color=plots.SKY, label="told: computed span")
    below.plot([killed + guess_s], [0], "D", color=plots.PINK, ms=8, label="told: your guess")
    below.plot([events["somebody is told"]], [2], "o", color=plots.BLACK, label="told: measured")
    below.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    below.set_xlabel("seconds")
    for ax in (top, below):
        ax.set_xlim(0, max(at[-1], *events.values()) * 1.02)
    return fig


def line_of(rows: Rows, request_id: str) -> dict[str, Any]:
    """What the balancer wrote of that request."""
    return dict(next(json.loads(row["line"]) for row in kinds(rows, "line") if request_id in row["line"]))


def draw_lines(rows: Rows, limit_ms: float, caption: str) -> Figure:
    """Each log line of the balancer as a point: when its request came, and how long it took; a mark a replica."""
    fig, ax = plots.figure(caption, width=8.5, height=3.6)
    found = [(row["at_s"], json.loads(row["line"])) for row in kinds(rows, "line")]
    for server, colour, mark in zip(sorted({told["server"] for _, told in found}), plots.COLOURS, "ovs^DP", strict=False):
        mine = [(at, told["total_ms"] / 1e3) for at, told in found if told["server"] == server]
        ax.plot([at for at, _ in mine], [s for _, s in mine], mark, color=colour, alpha=0.8, label=f"replica {server}")
    ax.axhline(limit_ms / 1e3, color="0.5", ls=":", label="limit of the search")
    ax.set_yscale("log")
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]
    ax.set_yticks([tick for tick in ticks if ax.get_ylim()[0] <= tick <= ax.get_ylim()[1]])
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.minorticks_off()
    ax.set_xlabel("the request came at, s")
    ax.set_ylabel("to its end, s (logarithmic)")
    ax.legend(frameon=False, fontsize=8)
    return fig


def draw_quantiles(rows: Rows, guess_s: float, caption: str) -> Figure:
    """The mean and three quantiles of the same requests, as their clients saw them and as the log has them."""
    fig, ax = plots.figure(caption, width=7.5, height=3.4)
    (mean,) = kinds(rows, "mean")
    found = kinds(rows, "quantile")
    names = ["mean", *({0.5: "p50", 0.95: "p95", 1.0: "slowest"}[row["share"]] for row in found)]
    at = np.arange(len(names))
    ax.bar(at - 0.2, [mean["clients_s"], *(row["clients_s"] for row in found)], 0.38, color=plots.BLUE, label="the clients' own times")
    ax.bar(at[1:] + 0.2, [row["logs_s"] for row in found], 0.38, color=plots.ORANGE, hatch="//", edgecolor="white", label="from the log")
    ax.plot([-0.2], [guess_s], "D", color=plots.RED, ms=8, label="your guess: the mean")
    ax.set_xticks(at, names)
    ax.set_ylabel(f"whole request, s (n={mean['n']})")
    ax.legend(frameon=False, fontsize=8)
    return fig
