"""The lab's own controller: it asks Prometheus, applies the formula of Kubernetes' autoscaler or of KEDA, and resizes a pool.

It is neither of the two. The formula is theirs, to the letter (autoscale.py); the loop around it is this short one, so that it can be
read, and what it saw and decided is kept, row by row.

>>> ask = controller.asks(watching.url, observe.query("in_flight"))  # doctest: +SKIP
>>> with controller.run(replicas, ask, Keda(trigger), every_s=1) as rows:  # doctest: +SKIP
...     ...
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from labkit.core.loop import Loop
from labkit.scale.pool import Pool
from labkit.servers import prometheus


class Formula(Protocol):
    def step(self, now: float, current: int, value: float, /) -> int: ...


class Look(NamedTuple):
    """One turn of the loop. at_s: time.monotonic(). value: what the query gave; None: nothing, and then nothing is changed."""

    at_s: float
    value: float | None
    current: int
    wanted: int


def asks(url: str, promql: str) -> Callable[[], float | None]:
    """What a Prometheus answers to a query of one value, None where it has none."""

    def ask() -> float | None:
        rows = prometheus.query(url, promql)
        return rows[0]["value"] if len(rows) == 1 and not math.isnan(rows[0]["value"]) else None

    return ask


@contextmanager
def run(pool: Pool, ask: Callable[[], float | None], formula: Formula, every_s: float, start: int = 1) -> Iterator[list[Look]]:
    """The loop in the background; it gives the rows that it adds to. Raises at the end what went wrong in it.

    current, for the formula, is the number of replicas that it wanted last, as Kubernetes reads it from the scale's spec.
    """
    rows: list[Look] = []

    def turn() -> None:
        current = rows[-1].wanted if rows else start
        now, value = time.monotonic(), ask()
        wanted = current if value is None else formula.step(now, current, value)
        rows.append(Look(now, value, current, wanted))
        pool.resize(wanted)

    pool.resize(start)
    loop = Loop(turn, every_s, "controller")
    try:
        yield rows
    finally:
        loop.stop()
    loop.check()
