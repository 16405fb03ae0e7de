"""The last exercise of lab 04: the rung under a budget, with ties.

The ties of its cases are drawn so that each wrong rule for a tie chooses another rung.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong


def _tied(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return abs(a["kl"] - b["kl"]) <= math.hypot(a["error"], b["error"])


def _rung(n: int, memory_mb: float, kl: float, share: float) -> dict[str, Any]:
    """A rung whose error bar is `share` of its KL."""
    return {"type": f"type-{chr(97 + n)}", "memory_mb": round(memory_mb, 1), "kl": kl, "error": share * kl}


def _clear(rng: Any) -> tuple[list[dict[str, Any]], float]:
    """Rungs far apart, in mixed order; the budget is the memory of one of the middle ones, exactly."""
    memory, kl = float(rng.uniform(30, 90)), float(rng.uniform(0.4, 0.9))
    rungs = []
    for n in range(7):
        rungs.append(_rung(n, memory, kl, 0.05))
        memory, kl = memory * float(rng.uniform(1.15, 1.4)), kl * float(rng.uniform(0.3, 0.6))
    budget = rungs[int(rng.integers(3, 6))]["memory_mb"]
    return [rungs[i] for i in rng.permutation(7)], budget


def _with_ties(rng: Any) -> tuple[list[dict[str, Any]], float]:
    """As `_clear`, with two rungs above the smallest fitting ones whose error bars reach each other."""
    memory, kl = float(rng.uniform(30, 90)), float(rng.uniform(0.1, 0.3))
    far, near = _rung(0, memory, 6 * kl, 0.05), _rung(1, memory * 1.3, 2.5 * kl, 0.05)
    twin, best = (
        _rung(2, memory * 1.6, kl * float(rng.uniform(1.02, 1.06)), 0.08),
        _rung(3, memory * float(rng.uniform(1.9, 2.2)), kl, 0.08),
    )
    large = _rung(4, memory * 3, kl / 9, 0.05)
    budget = best["memory_mb"] + float(rng.uniform(0, 5))
    return [[far, near, twin, best, large][i] for i in rng.permutation(5)], budget


def _nearly(rng: Any) -> tuple[list[dict[str, Any]], float]:
    """Differences between one error and the sum of two: only the root of the summed squares says which are ties.

    By memory: `near` is not tied, though it would be if errors were added up; `own` is tied, though its difference from the best
    exceeds either error alone; `wide` is tied, has the largest KL of them, and is not the smallest.
    """
    memory, kl = float(rng.uniform(30, 90)), float(rng.uniform(0.1, 0.3))
    error = kl * float(rng.uniform(0.06, 0.09))
    sizes = memory * np.cumprod([1.0, 1.2, 1.2, 1.2, float(rng.uniform(1.1, 1.3))])
    # (difference from the best, error), both in errors of the best one
    kinds: tuple[tuple[float, float], ...] = ((9.0, 1.0), (float(rng.uniform(1.6, 1.8)), 1.0), (1.35, 1.2), (1.9, 2.0), (0.0, 1.0))
    rungs: list[dict[str, Any]] = [
        {"type": f"type-{chr(97 + n)}", "memory_mb": round(float(size), 1), "kl": kl + gap * error, "error": own * error}
        for n, (size, (gap, own)) in enumerate(zip(sizes, kinds, strict=True))
    ]
    return [rungs[i] for i in rng.permutation(5)], rungs[-1]["memory_mb"] + float(rng.uniform(0, 5))


def _right(rungs: list[dict[str, Any]], budget: float) -> str:
    fits = [r for r in rungs if r["memory_mb"] <= budget]
    best = min(fits, key=lambda r: r["kl"])
    return str(min((r for r in fits if _tied(r, best)), key=lambda r: r["memory_mb"])["type"])


def _choice(draw: Callable[[Any], tuple[list[dict[str, Any]], float]]) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        rungs, budget = draw(rng)
        given, right = answer([dict(r) for r in rungs], budget), _right(rungs, budget)
        if given == right:
            return None
        if isinstance(given, dict):
            return "Return the type of the rung, not its whole row."
        named = {r["type"]: r for r in rungs}
        if given == "none":
            return "Some rungs fit here. Drop those over the budget first, then look for the best of what is left."
        if given not in named:
            return "Return the type of one of the rungs, as it stands in its row."
        if given == _right([r for r in rungs if r["memory_mb"] < budget], budget):
            return "A rung that needs exactly budget_mb fits: 'at most' includes the budget itself."
        row, best = named[given], min((r for r in rungs if r["memory_mb"] <= budget), key=lambda r: r["kl"])
        if row["memory_mb"] > budget:
            return "The rung you chose does not fit into the budget."
        if _tied(row, best):
            return "That one fits, but a smaller rung is tied with the best: its difference is within the error of the two together."
        if abs(row["kl"] - best["kl"]) <= row["error"] + best["error"]:
            return "That rung is not tied with the best. Two errors do not simply add up: take the root of the sum of their squares."
        if row["memory_mb"] < named[right]["memory_mb"]:
            return "That one fits, but a rung within the budget is clearly closer to the reference."
        return "That one fits, but the best within the budget has a clearly lower KL divergence."

    return test


def _nothing(answer: Any, rng: Any) -> str | None:
    rungs, _ = _clear(rng)
    budget = min(r["memory_mb"] for r in rungs) / 2
    return None if answer([dict(r) for r in rungs], budget) == "none" else 'Nothing fits here: return "none".'


_CHOOSE = """fits = [r for r in rungs if r["memory_mb"] <= budget_mb]
if not fits:
    return "none"
best = min(fits, key=lambda r: r["kl"])
tied = [r for r in fits if abs(r["kl"] - best["kl"]) {tied}]
return min(tied, key=lambda r: {take})["type"]"""

choose_rung = Exercise(
    "choose_rung",
    "The rung under a budget, with ties",
    (
        Part(1, "no ties", _choice(_clear)),
        Part(1, "ties", _choice(_with_ties)),
        Part(1, "nearly tied", _choice(_nearly)),
        Part(1, "nothing fits", _nothing, empty='Nothing fits here: return the text "none".'),
    ),
    (
        Wrong('return min(rungs, key=lambda r: r["kl"])["type"]', "does not fit", "takes the best and ignores the budget"),
        Wrong(
            'fits = [r for r in rungs if r["memory_mb"] <= budget_mb]\nreturn min(fits, key=lambda r: r["kl"])["type"] if fits else "none"',
            "is tied with the best",
            "ignores the error bars",
        ),
        Wrong(
            'fits = [r for r in rungs if r["memory_mb"] <= budget_mb]\n'
            'return min(fits, key=lambda r: r["memory_mb"])["type"] if fits else "none"',
            "clearly closer",
            "takes the smallest",
        ),
        Wrong(
            'fits = [r for r in rungs if r["memory_mb"] < budget_mb]\n'
            "if not fits:\n"
            '    return "none"\n'
            'best = min(fits, key=lambda r: r["kl"])\n'
            'tied = [r for r in fits if abs(r["kl"] - best["kl"]) <= math.hypot(r["error"], best["error"])]\n'
            'return min(tied, key=lambda r: r["memory_mb"])["type"]',
            "includes the budget",
            "leaves out the rung that meets the budget exactly",
        ),
        Wrong(_CHOOSE.format(tied='<= r["error"] + best["error"]', take='r["memory_mb"]'), "do not simply add up", "adds the errors up"),
        Wrong(_CHOOSE.format(tied='<= best["error"]', take='r["memory_mb"]'), "the two together", "asks only the best one's error"),
        Wrong(
            _CHOOSE.format(tied='<= math.hypot(r["error"], best["error"])', take='-r["kl"]'),
            "a smaller rung is tied",
            "takes the worst of those tied",
        ),
        Wrong(
            _CHOOSE.format(tied='<= math.hypot(r["error"], best["error"])', take='r["memory_mb"]').replace('return "none"', "return None"),
            'the text "none"',
            "returns nothing where nothing fits",
        ),
        Wrong(
            'best = min(rungs, key=lambda r: r["kl"])\nreturn best["type"] if best["memory_mb"] <= budget_mb else "none"',
            "Drop those over the budget first",
            "looks for the best before it looks at the budget",
        ),
    ),
)
