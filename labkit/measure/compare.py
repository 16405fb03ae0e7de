"""Which rung of a ladder is better, which two are tied, and which one to take? Arithmetic over a ladder's rows.

A row is a mapping with at least `type`, a figure and its standard error: `kl_mean` and `kl_stderr`, or `perplexity` and
`perplexity_stderr`. Figures of rungs come from the same text, so their errors go up and down together; the rule for a tie
treats them as independent, which calls two rungs tied rather once too often than once too seldom.

>>> a = {"type": "Q5_0", "kl_mean": 0.010, "kl_stderr": 0.001}
>>> b = {"type": "Q5_1", "kl_mean": 0.011, "kl_stderr": 0.001}
>>> tied(a, b)
True
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]

Z = 1.96  # standard errors in half of a 95 % interval, for a mean of many tokens
ERRORS = {"kl_mean": "kl_stderr", "perplexity": "perplexity_stderr"}


def interval(row: Row, figure: str = "kl_mean") -> tuple[float, float]:
    """The 95 % interval of a row's figure; neither figure can be below 0."""
    half = Z * (row[ERRORS[figure]] or 0.0)
    return max(0.0, row[figure] - half), row[figure] + half


def tied(a: Row, b: Row, figure: str = "kl_mean") -> bool:
    """Is the difference of two rungs smaller than the 95 % error of a difference, `1.96 * sqrt(error_a² + error_b²)`?"""
    return bool(abs(a[figure] - b[figure]) <= Z * math.hypot(a[ERRORS[figure]] or 0.0, b[ERRORS[figure]] or 0.0))


def tied_neighbours(rows: Sequence[Row], figure: str = "kl_mean") -> list[tuple[Row, Row]]:
    """Rungs next to each other in the order of `figure` that are tied."""
    return [(a, b) for a, b in itertools.pairwise(sorted(rows, key=lambda r: r[figure])) if tied(a, b, figure)]


def front(rows: Sequence[Row], cost: str = "bytes", loss: str = "kl_mean") -> list[Row]:
    """The Pareto front: the rungs that no other beats in both cost and loss, cheapest first."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda r: (r[cost], r[loss])):
        if not kept or row[loss] < kept[-1][loss]:
            kept.append(row)
    return kept


def inversions(rows: Sequence[Row], figure: str = "kl_mean") -> list[tuple[Row, list[Row]]]:
    """Rungs that are clearly better than some with more bits: (the rung, those larger ones), fewest bits first."""
    found = []
    for row in sorted(rows, key=lambda r: r["bits_per_weight"]):
        larger = [r for r in rows if r["bits_per_weight"] > row["bits_per_weight"]]
        worse = [r for r in larger if r[figure] > row[figure] and not tied(r, row, figure)]
        if worse:
            found.append((row, sorted(worse, key=lambda r: r["bits_per_weight"])))
    return found


class Choice(NamedTuple):
    """`take` is the cheapest rung that is tied with `best`; `tied` are all that are tied with it, `best` included."""

    take: Row
    best: Row
    tied: list[Row]
    fits: list[Row]


def choose(rows: Sequence[Row], budget: float, cost: str = "bytes", figure: str = "kl_mean") -> Choice | None:
    """The rung to take when `cost` may be at most `budget`: the best that fits, or a cheaper one tied with it.

    None where no rung fits.
    """
    fits = [r for r in rows if r[cost] <= budget]
    if not fits:
        return None
    best = min(fits, key=lambda r: (r[figure], r[cost]))
    equals = [r for r in fits if tied(r, best, figure)]
    return Choice(min(equals, key=lambda r: (r[cost], r[figure])), best, equals, fits)


def smallest_within(rows: Sequence[Row], limit: float, cost: str = "bytes", figure: str = "kl_mean") -> Row | None:
    """The cheapest rung whose whole 95 % interval lies at or below `limit`; None where there is none."""
    within = [r for r in rows if interval(r, figure)[1] <= limit]
    return min(within, key=lambda r: r[cost]) if within else None


def questions_for(difference: float, share: float = 0.5) -> int:
    """How many questions it takes until a difference of two shares near `share` exceeds its 95 % error.

    From the error of a difference of two independent shares, `1.96 * sqrt(2 * share * (1 - share) / n)`.
    """
    return math.ceil(2 * share * (1 - share) * (Z / difference) ** 2)
