"""The arithmetic of lab 19, apart from any server: the rate of a counter, the states of an alert, the budget of an objective.

The rate is Prometheus' own but for the ends of its window, to which Prometheus extends what it saw (promql/functions.go,
extrapolatedRate); an alert's states are those of its rules (rules/alerting.go).

>>> rate([(0, 100), (10, 150)]), rate([(0, 100), (5, 120), (10, 10)])   # the second server was restarted
(5.0, 3.0)
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence

Sample = tuple[float, float]


def rate(samples: Sequence[Sample]) -> float:
    """Growth per second of a counter between the first and the last sample (time in s, value). A fall is a restart: it began at 0."""
    grown = sum(b - a if b >= a else b for (_, a), (_, b) in itertools.pairwise(samples))
    return grown / (samples[-1][0] - samples[0][0])


def rates(samples: Sequence[Sample], window_s: float) -> list[Sample]:
    """The rate over the last `window_s` at each sample that has at least one other in its window."""
    found = []
    for at, (now, _) in enumerate(samples):
        inside = [one for one in samples[: at + 1] if one[0] >= now - window_s]
        if len(inside) > 1:
            found.append((now, rate(inside)))
    return found


def states(values: Sequence[Sample], limit: float, hold_s: float) -> list[str]:
    """inactive, pending or firing at each look (time in s, value): above the limit, and for how long without a break."""
    since, found = None, []
    for now, value in values:
        since = None if value <= limit else now if since is None else since
        found.append("inactive" if since is None else "firing" if now - since >= hold_s else "pending")
    return found


def slow(lines: Iterable[str], limit_ms: float) -> list[str]:
    """Ids of the requests that took longer than the limit, the slowest first."""
    rows = [json.loads(line) for line in lines]
    return [row["request_id"] for row in sorted(rows, key=lambda row: -row["total_ms"]) if row["total_ms"] > limit_ms]


def budget_used(good: int, total: int, objective: float) -> float:
    """Share of the error budget that is used: 1 - objective may fail; 1.0: all of it, more: the objective is missed."""
    return (total - good) / total / (1 - objective)
