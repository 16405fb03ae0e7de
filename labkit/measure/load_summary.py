"""What a load run comes to: counts by status, percentiles with intervals, throughput, goodput.

A percentile of n requests is a guess at the percentile of all that could have been sent. Its 95 % interval comes from order
statistics: the number of values below the true q-quantile is Binomial(n, q), so two of the sorted values enclose it. Where n is too
small for that, as for a p99 of 50 requests, that end of the interval is None. It takes requests to be independent; those that
queue behind each other are not, and the true interval is then wider.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from labkit.core import machine
from labkit.core.records import Record
from labkit.measure.load_plans import STATUSES, Outcome, Plan

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
Interval = tuple[float | None, float | None]


class Quantiles(Record):
    """p50, p95, p99 of n values with their 95 % intervals; None where nothing is known."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    n: int = 0
    intervals: dict[str, Interval] = Field(default_factory=dict)


class Summary(Record):
    """One load run. Latencies and rates are those of requests that ended ok; times in seconds.

    latency_from: "scheduled" in open loop, "sent" in a closed one. duration_s: from the first request due to the last end.
    tokens_per_s: output tokens over that duration; None where the server counts none. not_sent: part of `error`; the client's
    own bound was reached, so the load was less than planned. lateness_s: sent - scheduled.
    """

    ok: int
    refused: int
    error: int
    cut: int
    timeout: int
    n: int
    not_sent: int
    ttft_s: Quantiles
    tpot_s: Quantiles
    itl_s: Quantiles
    e2e_s: Quantiles
    lateness_s: Quantiles
    latency_from: Literal["scheduled", "sent"]
    duration_s: float
    requests_per_s: float | None
    tokens_per_s: float | None
    goodput_per_s: float | None
    prompt_tokens: int | None
    output_tokens: int | None
    plan: Plan
    machine: dict[str, Any]


def summarize(outcomes: Sequence[Outcome], plan: Plan) -> Summary:
    """The figures of a run."""
    ok = [outcome for outcome in outcomes if outcome.status == "ok"]
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in STATUSES}
    duration = (max(o.ended_ns for o in outcomes) - min(o.scheduled_ns for o in outcomes)) / 1e9 if outcomes else 0.0
    output = _total(o.output_tokens for o in ok)

    def rate(count: float | None) -> float | None:
        return None if count is None or not duration else count / duration

    return Summary(
        **counts,
        n=len(outcomes),
        not_sent=sum(o.sent_ns is None for o in outcomes),
        ttft_s=quantiles(o.ttft_s for o in ok),
        tpot_s=quantiles(o.tpot_s for o in ok),
        itl_s=quantiles(gap for o in ok for gap in o.itl_s),
        e2e_s=quantiles(o.e2e_s for o in ok),
        lateness_s=quantiles(o.lateness_s for o in outcomes),
        latency_from="sent" if plan.kind == "closed" else "scheduled",
        duration_s=duration,
        requests_per_s=rate(len(ok)),
        tokens_per_s=rate(output),
        goodput_per_s=rate(sum(o.meets(plan.slo) for o in outcomes)),
        prompt_tokens=_total(o.prompt_tokens for o in ok),
        output_tokens=output,
        plan=plan,
        machine=machine.fingerprint(),
    )


def quantiles(values: Iterable[float | None], seed: int = 0) -> Quantiles:
    """Of the known values; linear between neighbours, as numpy has it."""
    known = np.sort(np.array([value for value in values if value is not None], dtype=float))
    n = len(known)
    if not n:
        return Quantiles()
    rng, intervals = np.random.default_rng(seed), {}
    for name, q in QUANTILES.items():
        low, high = np.percentile(rng.binomial(n, q, 4_000), [2.5, 97.5]).astype(int)
        # sorted value number r (from 1) lies above the quantile when fewer than r values are below it
        intervals[name] = (float(known[low - 1]) if low >= 1 else None, float(known[high]) if high < n else None)
    points = {name: float(np.quantile(known, q)) for name, q in QUANTILES.items()}
    return Quantiles(**points, n=n, intervals=intervals)


def table(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """One row an outcome for a data frame: `number status due_s lateness_s ttft_s tpot_s e2e_s output_tokens http_status error`.

    due_s and ended_s count from the first request due.
    """
    some = list(outcomes)
    start = min((o.scheduled_ns for o in some), default=0)
    return [
        {"number": o.number, "status": o.status, "due_s": (o.scheduled_ns - start) / 1e9, "ended_s": (o.ended_ns - start) / 1e9}
        | {key: getattr(o, key) for key in ("lateness_s", "ttft_s", "tpot_s", "e2e_s", "output_tokens", "http_status", "error")}
        for o in some
    ]


def _total(counts: Iterable[int | None]) -> int | None:
    """The sum; None where one of them is unknown."""
    known = list(counts)
    return None if any(count is None for count in known) else sum(count or 0 for count in known)
