"""The pictures of lab 20: rows of scaling_rows.py in, figures out. What stand-ins or the simulator say is labelled *modelled*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.learn import load_plots, plots
from labkit.scale.capacity import Plan
from labkit.scale.queueing import Queue

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]


def kinds(rows: Rows, kind: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


def draw_sides(rows: Rows, guess: float, caption: str) -> Figure:
    """Throughput, time to first token and per token of each way; every run a dot. The guess: tokens/s of two servers over one."""
    fig, axes = plots.figure(caption, width=11.5, height=3.6, columns=3)
    names = list(dict.fromkeys(row["side"] for row in rows))
    for ax, key, unit in zip(
        axes, ("tokens_per_s", "ttft_s", "tpot_s"), ("tokens/s, all users", "median TTFT, s", "median TPOT, s"), strict=True
    ):
        groups = {name.replace(", ", ",\n"): [row[key] for row in rows if row["side"] == name] for name in names}
        plots.points(ax, groups, unit)
        ax.tick_params(axis="x", labelsize=8)
    one = float(np.median([row["tokens_per_s"] for row in rows if row["side"] == names[0]]))
    axes[0].plot([len(names) - 1], [guess * one], "D", color=plots.RED, ms=8, label="your guess")
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    return fig


def draw_fit(rows: Rows, caption: str) -> Figure:
    """The two lines that a server's speed is read off: seconds per token by requests at once, and to the first token by prompt length."""
    fig, axes = plots.figure(caption, width=9, height=3.2, columns=2)
    (speed,) = kinds(rows, "speed")
    for ax, of, label, line in zip(
        axes, ("tpot_s", "ttft_s"), ("requests at once", "prompt tokens"),
        (
            lambda x: speed["base_s"] + speed["per_request_s"] * x,
            lambda x: speed["outside_s"] + speed["base_s"] + speed["per_request_s"] + speed["per_prompt_token_s"] * x,
        ),
        strict=True,
    ):  # fmt: skip
        points = [(row["x"], row["s"]) for row in kinds(rows, "point") if row["of"] == of]
        x = np.linspace(0, max(at for at, _ in points), 20)
        ax.plot([at for at, _ in points], [s for _, s in points], "o", color=plots.BLUE, label="measured (medians)")
        ax.plot(x, [line(v) for v in x], "--", color=plots.ORANGE, label="the model")
        ax.set_xlabel(label)
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("seconds per token")
    axes[1].set_ylabel("seconds to the first token")
    return fig


def draw_levels(rows: Rows, guess_s: float, caption: str) -> Figure:
    """p50 and p95 by utilisation, measured with its interval and modelled, for the first token and the whole request."""
    levels = kinds(rows, "level")
    fig, axes = plots.figure(caption, width=10, height=3.8, columns=2)
    for ax, figure in zip(axes, ("TTFT", "request"), strict=True):
        for share, colour, mark in ((0.5, plots.BLUE, "o"), (0.95, plots.RED, "s")):
            some = sorted((row for row in levels if row["figure"] == figure and row["share"] == share), key=lambda row: row["utilisation"])
            at = [row["utilisation"] for row in some]
            measured = np.array([row["measured_s"] for row in some])
            low, high = (np.array([row["measured_s"] if row[key] is None else row[key] for row in some]) for key in ("low_s", "high_s"))
            bars = [np.maximum(0, measured - low), np.maximum(0, high - measured)]
            ax.errorbar(at, measured, bars, fmt=mark, color=colour, capsize=3, label=f"p{100 * share:.0f} measured")
            ax.plot(at, [row["modelled_s"] for row in some], "--", color=colour, label=f"p{100 * share:.0f} modelled")
        ax.set_xlabel("utilisation")
        ax.set_ylabel({"TTFT": "time to first token, s", "request": "whole request, s"}[figure])
        ax.set_ylim(bottom=0)
    top = max(row["utilisation"] for row in levels)
    axes[0].plot([top], [guess_s], "D", color=plots.PINK, ms=8, label="your guess for p95")
    for ax in axes:
        ax.legend(frameon=False, fontsize=8, loc="upper left")
    return fig


def draw_queue(service_s: float, servers: int, cv: float, caption: str) -> Figure:
    """Mean wait and p95 of the wait by utilisation, by formula."""
    fig, ax = plots.figure(caption, width=8, height=3.4)
    at = np.linspace(0.05, 0.97, 60)
    queues = [Queue(rate=u * servers / service_s, service_s=service_s, servers=servers, cv=cv) for u in at]
    ax.plot(at, [queue.wait_s for queue in queues], color=plots.BLUE, label="mean wait")
    ax.plot(at, [queue.wait_quantile_s(0.95) for queue in queues], "--", color=plots.RED, label="p95 of the wait")
    ax.axhline(service_s, color="0.5", ls=":", label="one service")
    ax.set_ylim(0, 8 * service_s)
    ax.set_xlabel(f"utilisation of {servers} place{'s' if servers > 1 else ''}")
    ax.set_ylabel("seconds in the queue")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return fig


def draw_policies(rows: Rows, caption: str) -> Figure:
    """p50 and p95 of the time to first token by policy: stand-ins behind the real HAProxy, and the simulator."""
    fig, axes = plots.figure(caption, width=9.5, height=3.6, columns=2)
    for ax, share in zip(axes, (0.5, 0.95), strict=True):
        some = [row for row in rows if row["share"] == share]
        names = [row["policy"] for row in some]
        plots.predicted_measured(
            ax, names, [row["simulated_s"] for row in some], [row["standins_s"] for row in some], f"p{100 * share:.0f} of TTFT, s",
            labels=("simulated", "real HAProxy, stand-ins (modelled)"),
        )  # fmt: skip
        ax.margins(y=0.35)
        ax.legend(frameon=False, fontsize=8, loc="upper left")
    return fig


def draw_kill(rows: Rows, caption: str) -> Figure:
    """Each request by when it was due and how long it took, and its end; a line where a replica was killed. Naive above good."""
    sides = ("naive", "good")
    fig, axes = plots.figure(caption, width=9.5, height=5.6, rows=2)
    for ax, side in zip(axes, sides, strict=True):
        mine = [row for row in kinds(rows, "request") if row["side"] == side]
        for status in dict.fromkeys(row["status"] for row in mine):
            mark, colour = load_plots.LOOKS.get(status, ("D", plots.PINK))
            some = [row for row in mine if row["status"] == status]
            ax.plot(
                [row["at_s"] for row in some],
                [row["e2e_s"] for row in some],
                mark,
                color=colour,
                alpha=0.8,
                label=f"{status} ({len(some)})",
            )
        ax.axvline(
            next(row["at_s"] for row in kinds(rows, "killed") if row["side"] == side), color="0.4", ls=":", label="a replica is killed"
        )
        ax.set_title(f"{side} configuration", fontsize=10, loc="left")
        ax.set_ylabel("until its end, s")
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes[1].set_xlabel("due, s from the start")
    return fig


def draw_autoscale(rows: Rows, guess: float, caption: str) -> Figure:
    """Rate of requests, requests in flight, replicas wanted and ready, and the time to first token, over one time axis."""
    fig, axes = plots.figure(caption, width=9.5, height=7, rows=3)
    at, start = [0.0], 0.0
    for row in kinds(rows, "step"):
        start += row["seconds"]
        at.append(start)
    rates = [row["rate"] for row in kinds(rows, "step")]
    axes[0].step(at, [*rates, rates[-1]], where="post", color="0.5", label="requests/s")
    looks, counts = kinds(rows, "look"), kinds(rows, "count")
    axes[0].plot([row["at_s"] for row in looks], [row["value"] for row in looks], color=plots.BLUE, label="requests in flight")
    axes[1].step([row["at_s"] for row in looks], [row["wanted"] for row in looks], where="post", color=plots.RED, ls="--", label="wanted")
    axes[1].step([row["at_s"] for row in counts], [row["ready"] for row in counts], where="post", color=plots.BLUE, label="ready")
    axes[1].axhline(guess, color=plots.PINK, ls=":", label="your guess for the most")
    found = [row for row in kinds(rows, "request") if row["ttft_s"] is not None]
    axes[2].plot([row["at_s"] for row in found], [row["ttft_s"] for row in found], ".", color=plots.BLUE, ms=4)
    for ax, label in zip(axes, ("load", "replicas", "time to first token, s"), strict=True):
        ax.set_ylabel(label)
        ax.set_ylim(bottom=0)
        ax.set_xlim(0, max(row["at_s"] for row in looks))
    axes[2].set_xlabel("seconds")
    for ax in axes[:2]:
        ax.legend(frameon=False, fontsize=8, loc="upper right")
    return fig


def draw_capacity(plans: Sequence[Plan], caption: str) -> Figure:
    """Replicas by rate, simulated, and how busy each is: many replicas together need fewer spare ones."""
    fig, (left, right) = plots.figure(caption, width=9, height=3.4, columns=2)
    rates = [plan.rate for plan in plans]
    left.plot(rates, [plan.replicas for plan in plans], "o-", color=plots.BLUE, label="simulated")
    first = plans[0]
    left.plot(rates, [first.replicas / first.rate * rate for rate in rates], ":", color="0.5", label="as the first, times the rate")
    left.set_yscale("log")
    left.set_ylabel("replicas")
    left.legend(frameon=False, fontsize=8)
    right.plot(rates, [plan.tokens_per_s_each for plan in plans], "o-", color=plots.GREEN)
    right.set_ylabel("tokens/s of each replica")
    right.set_ylim(bottom=0)
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xlabel("requests/s")
    return fig
