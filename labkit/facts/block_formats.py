"""Statements about block formats, decided by block sizes and by the errors that lab 05 computed.

Each function returns what was seen of one claim of the ledger: confirmed, refuted, or not-run where the rows cannot decide.

>>> half_a_byte()["shown"]
'confirmed'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labkit.facts.claims import in_words, row
from labkit.quant import blocks

__all__ = ["half_a_byte", "in_words", "requantized", "superblocks"]

Rows = Sequence[Mapping[str, Any]]
_FOUR = ("Q4_0", "Q4_1", "Q4_K")
_SIXTEEN = ("F32", "F16", "BF16")  # a tensor of these types was not quantized


def half_a_byte(weights: float = 7e9, bits_per_weight: Callable[[str], float] = blocks.bits_per_weight) -> dict[str, Any]:
    """`quant-int4-half-a-byte`: what do llama.cpp's 4-bit formats take, by their block sizes?"""
    bits = {kind: bits_per_weight(kind) for kind in _FOUR}
    why = ", ".join(f"{kind} {b:g} bits, {weights * b / 8e9:.2f} GB" for kind, b in bits.items())
    return row("quant-int4-half-a-byte", "confirmed" if min(bits.values()) > 4 else "refuted", why)


def superblocks(rows: Rows) -> dict[str, Any]:
    """`quant-kquant-same-size`: was Q4_K closer than Q4_0 on every tensor that took both? Only tensors that came with 16 bits or more."""
    id = "quant-kquant-same-size"
    found = {(r["tensor"], r["kind"]): r["relative_error"] for r in rows if r["source"] in _SIXTEEN}
    pairs = [(error, found[tensor, "Q4_0"]) for (tensor, kind), error in found.items() if kind == "Q4_K" and (tensor, "Q4_0") in found]
    if not pairs:
        return row(id, "not-run", "no tensor came with 16 bits and rows of a multiple of 256")
    better = sum(k < plain for k, plain in pairs)
    share = sorted(k / plain for k, plain in pairs)[len(pairs) // 2]
    why = f"closer on {better} of {len(pairs)} matrices; the median error is {share:.2f} times Q4_0's"
    return row(id, "confirmed" if better == len(pairs) else "refuted", why)


def requantized(rows: Rows) -> dict[str, Any]:
    """`quant-requantize`: did a detour through another 4-bit format make the error clearly larger? Rows: `twice_rows`."""
    id, found = "quant-requantize", {r["via"]: r["relative_error"] for r in rows if r["source"] in _SIXTEEN}
    four = [kind for kind in _FOUR if kind in found]
    if "F16" not in found or not four or not found["F16"]:
        return row(id, "not-run", "it takes weights of 16 bits, their own way and one through 4 bits")
    worst = max(four, key=lambda kind: found[kind])
    times = found[worst] / found["F16"]
    return row(id, "confirmed" if times > 1.02 else "refuted", f"made from {worst} the error is {times:.2f} times that of the direct way")
