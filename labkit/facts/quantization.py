"""Statements about quantized files, decided by a ladder's own rows (those of lab 04, or of `labkit ladder --json`).

Each function takes rows and returns what was seen of one claim of the ledger: confirmed, refuted, or not-run where the
rows cannot decide.

>>> four_bits([{"model": "m", "type": "Q4_K_M", "label": "Q4_K_M", "bits_per_weight": 6.17}])["shown"]
'confirmed'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.facts.claims import in_words, row
from labkit.measure import compare

__all__ = ["four_bits", "four_times_as_fast", "in_words", "lossless", "more_bits", "ternary"]

Rows = Sequence[Mapping[str, Any]]


def four_bits(rows: Rows) -> dict[str, Any]:
    """`quant-q4km-four-bits`: is a Q4_K_M file a quarter of 16 bits? From the files' true bits per weight."""
    found = [r for r in rows if r["type"] == "Q4_K_M"]
    if not found:
        return row("quant-q4km-four-bits", "not-run", "no Q4_K_M file was made")
    why = ", ".join(f"{r['bits_per_weight']:.2f} bits per weight for {r['model']}" for r in found)
    return row("quant-q4km-four-bits", "confirmed" if min(r["bits_per_weight"] for r in found) > 4.4 else "refuted", why)


def lossless(rows: Rows) -> dict[str, Any]:
    """`quant-q8-lossless`: is the divergence of Q8_0 from its 16-bit file 0 within its error?"""
    found = [r for r in rows if r["type"] == "Q8_0" and r.get("kl_mean") is not None]
    if not found:
        return row("quant-q8-lossless", "not-run", "no Q8_0 rung was measured")
    lost = [r for r in found if compare.interval(r)[0] > 0]
    why = ", ".join(f"KL {r['kl_mean']:.2g} and {1 - r['top1_agreement']:.1%} other first choices for {r['model']}" for r in found)
    return row("quant-q8-lossless", "confirmed" if lost else "refuted", why)


def more_bits(rows: Rows) -> dict[str, Any]:
    """`quant-more-bits-better`: was a rung with more bits clearly further from the reference than one with fewer?"""
    if len(rows) < 3:
        return row("quant-more-bits-better", "not-run", "it takes some rungs to see it")
    found = compare.inversions(rows)
    if not found and any(r["type"] == "F16" == r.get("label") for r in rows):
        return row("quant-more-bits-better", "not-run", f"{rows[0]['model']} comes with 16 bits; it takes a quantized source")
    if not found:
        return row("quant-more-bits-better", "refuted", f"on the ladder of {rows[0]['model']} more bits were never clearly worse")
    better, worse = found[0]
    why = f"on the ladder of {rows[0]['model']} {better['type']} is closer than {', '.join(r['type'] for r in worse)}"
    return row("quant-more-bits-better", "confirmed", why)


def four_times_as_fast(rows: Rows) -> dict[str, Any]:
    """`quant-4bit-four-times-as-fast`: decode of Q4_0 against the 16-bit file of the same model, with their intervals."""
    rates = {(r["model"], r["type"]): r["tokens_per_s"] for r in rows if r["type"] in ("F16", "Q4_0") and r.get("tokens_per_s")}
    pairs = {model: (rate, rates[model, "Q4_0"]) for (model, kind), rate in rates.items() if kind == "F16" and (model, "Q4_0") in rates}
    if not pairs:
        return row("quant-4bit-four-times-as-fast", "not-run", "no model was timed both at F16 and at Q4_0")
    why = ", ".join(f"{four['median'] / sixteen['median']:.2f} times as fast for {model}" for model, (sixteen, four) in pairs.items())
    slower = [four["high"] / sixteen["low"] < 4 for sixteen, four in pairs.values()]
    faster = [four["low"] / sixteen["high"] >= 4 for sixteen, four in pairs.values()]
    if any(slower):
        return row("quant-4bit-four-times-as-fast", "confirmed", why)
    return row("quant-4bit-four-times-as-fast", "refuted" if all(faster) else "not-run", why)


def ternary(rows: Rows) -> dict[str, Any]:
    """`bitnet-post-training`: did the ternary rung keep most of the quality? A doubled perplexity is taken for 'no'."""
    known = {r["type"]: r for r in rows}
    if not {"F16", "TQ2_0"} <= known.keys():
        return row("bitnet-post-training", "not-run", "no ternary rung was measured")
    ref, found = known["F16"], known["TQ2_0"]
    if found["perplexity"] is None:
        return row("bitnet-post-training", "confirmed", "the ternary rung's perplexity is no finite number any more")
    times = found["perplexity"] / ref["perplexity"]
    why = f"perplexity {found['perplexity']:.3g} as TQ2_0 against {ref['perplexity']:.3g} at 16 bits: {times:.3g} times as much"
    return row("bitnet-post-training", "confirmed" if times > 2 else "refuted", why)
