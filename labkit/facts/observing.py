"""Statements about watching a model server, decided by lab 19's own rows.

>>> no_percentile([{"metric": "llamacpp:tokens_predicted_total", "kind": "counter"}])["shown"]
'confirmed'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.facts.claims import row

Rows = Sequence[Mapping[str, Any]]


def no_percentile(rows: Rows) -> dict[str, Any]:
    """`llama-server-percentiles`: the kinds of metric that a llama-server has."""
    found = sorted({one["kind"] for one in rows})
    if not found:
        return row("llama-server-percentiles", "not-run", "no metric was read")
    distributions = {"histogram", "summary"} & set(found)
    return row("llama-server-percentiles", "refuted" if distributions else "confirmed", f"it has {len(rows)} metrics: {', '.join(found)}")


def mean_hides(mean_s: float, slowest_s: float, n: int) -> dict[str, Any]:
    """`mean-latency-enough`: is the slowest of n requests many times the mean?"""
    if n < 10:
        return row("mean-latency-enough", "not-run", f"{n} requests are too few")
    why = f"mean of {n} requests {mean_s:.2f} s, the slowest {slowest_s:.2f} s: {slowest_s / mean_s:.1f} times as long"
    return row("mean-latency-enough", "confirmed" if slowest_s > 3 * mean_s else "refuted", why)
