"""Statements about scaling, decided by lab 20's own rows.

>>> twice_as_many([{"side": "1 server, 1 thread", "tokens_per_s": 50}, {"side": "2 servers, 1 thread each", "tokens_per_s": 80}])["shown"]
'confirmed'
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from labkit.facts.claims import row

Rows = Sequence[Mapping[str, Any]]


def twice_as_many(rows: Rows) -> dict[str, Any]:
    """`replicas-scale-linearly`: two servers on one machine against one."""
    rates = {
        side: [one["tokens_per_s"] for one in rows if one["side"] == side] for side in ("1 server, 1 thread", "2 servers, 1 thread each")
    }
    if not all(rates.values()):
        return row("replicas-scale-linearly", "not-run", "it takes one server and two to see it")
    one, two = (statistics.median(found) for found in rates.values())
    return row(
        "replicas-scale-linearly",
        "confirmed" if two / one < 1.9 else "refuted",
        f"two servers gave {two / one:.2f} times the tokens per second of one",
    )


def no_request_lost(rows: Rows) -> dict[str, Any]:
    """`balancer-hides-every-crash`: streams that were cut behind the good configuration when a replica was killed."""
    ends = [one["status"] for one in rows if one["kind"] == "request" and one["side"] == "good"]
    cut = sum(end.startswith("cut") for end in ends)
    refused = sum(end in ("refused", "error") for end in ends)
    if not ends or not cut + refused:
        return row("balancer-hides-every-crash", "not-run", "no answer ran on the replica when it was killed")
    return row(
        "balancer-hides-every-crash", "confirmed", f"{cut} streams were cut, {refused} requests refused, with the good configuration"
    )
