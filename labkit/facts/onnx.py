"""Statements about ONNX and Olive, decided by lab 07's own rows.

>>> four_bits([{"recipe": "int4", "bits_per_weight": 12.3}])["shown"]
'confirmed'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.facts.claims import row

Rows = Sequence[Mapping[str, Any]]


def four_bits(rows: Rows) -> dict[str, Any]:
    """`onnx-int4-four-bits`: bits per weight of the folders that were made with 4-bit codes."""
    found = {r["recipe"]: r["bits_per_weight"] for r in rows if "int4" in r["recipe"] or "rtn" in r["recipe"]}
    if not found:
        return row("onnx-int4-four-bits", "not-run", "nothing was converted to int4")
    why = "bits for each weight: " + ", ".join(f"{name} {bits:.2f}" for name, bits in found.items())
    return row("onnx-int4-four-bits", "confirmed" if min(found.values()) > 4.1 else "refuted", why)


def exit_code(rows: Rows) -> dict[str, Any]:
    """`olive-exit-code`: a run that made no model, and the exit code that it ended with."""
    failed = [r for r in rows if not r["model_made"]]
    if not failed:
        return row("olive-exit-code", "not-run", "every run here made a model")
    why = f"no model was made ({failed[0]['said'][:80]}), and the exit code was {failed[0]['exit_code']}"
    return row("olive-exit-code", "confirmed" if failed[0]["exit_code"] == 0 else "refuted", why)


def same_bits_same_quality(rows: Rows) -> dict[str, Any]:
    """`onnx-int4-equals-q4`: divergences of files of about 5 bits per weight on the same tokens."""
    found = {f"{r['family']} {r['name']}": r for r in rows if 4.4 <= r["bits_per_weight"] <= 5.6}
    if len({r["family"] for r in found.values()}) < 2:
        return row("onnx-int4-equals-q4", "not-run", "it takes two formats of about that size to see it")
    low, high = (pick(found, key=lambda name: found[name]["kl_mean"]) for pick in (min, max))
    why = f"KL divergence {found[low]['kl_mean']:.4f} ({low}) to {found[high]['kl_mean']:.4f} ({high}) nats"
    apart = found[high]["kl_mean"] > 1.2 * found[low]["kl_mean"]
    return row("onnx-int4-equals-q4", "confirmed" if apart else "refuted", why)
