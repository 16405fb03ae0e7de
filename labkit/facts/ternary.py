"""Statements about ternary models, decided by lab 06's own rows or by arithmetic on the formats.

>>> energy_factor()["shown"]
'confirmed'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labkit.facts.claims import row
from labkit.quant import energy

Rows = Sequence[Mapping[str, Any]]


def trained_in(rows: Rows) -> dict[str, Any]:
    """`bitnet-trained-in`: does the small model that is ternary from its first step end within 10 % of the full-precision loss?"""
    ends = {(r["form"], r["seed"]): r["loss"] for r in rows if r["kind"] == "final"}
    apart = [loss / ends["full precision", seed] - 1 for (form, seed), loss in ends.items() if form == "ternary, trained in"]
    if not apart:
        return row("bitnet-trained-in", "not-run", "no model was trained")
    why = f"loss {min(apart):+.1%} to {max(apart):+.1%} against full precision ({len(apart)} seed(s), a million weights)"
    within = [a <= 0.1 for a in apart]
    return row("bitnet-trained-in", "confirmed" if all(within) else "not-run" if any(within) else "refuted", why)


def file_bits(rows: Rows) -> dict[str, Any]:
    """`ternary-file-bits`: does a ternary file take log2(3) bits for each weight? From the files that the lab wrote."""
    found = [r["bits_per_weight"] for r in rows if r["type"] in energy.TERNARY]
    if not found:
        return row("ternary-file-bits", "not-run", "no ternary file was written")
    why = f"the file has {min(found):.2f} bits for each weight, three values carry {energy.LOG2_3:.2f}"
    return row("ternary-file-bits", "confirmed" if min(found) > 1.02 * energy.LOG2_3 else "refuted", why)


def energy_factor(per_weight: Callable[[str], energy.Energy] = energy.per_weight) -> dict[str, Any]:
    """`ternary-energy-71-times`: arithmetic alone against arithmetic with reading the weights. Computed, not measured."""
    sixteen, ternary = per_weight("F16"), per_weight("TQ2_0")
    alone, all_of_it = sixteen.arithmetic_pj / ternary.arithmetic_pj, sixteen.total_pj / ternary.total_pj
    why = f"by arithmetic: operations alone {alone:.0f} times, with reading the weights {all_of_it:.1f} times (45 nm)"
    return row("ternary-energy-71-times", "confirmed" if all_of_it < 71.4 / 2 else "refuted", why)
