"""Statements about MLX, decided by lab 08's own rows: converted folders, a run, and what mlx-lm said.

>>> four_bits([{"bits": 4, "dtype": "float16", "bits_per_weight": 4.506}])["shown"]
'confirmed'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.facts.claims import Shown, row

Rows = Sequence[Mapping[str, Any]]


def four_bits(rows: Rows) -> dict[str, Any]:
    """`mlx-4-bits-are-4-bits`: bits per weight of the folders that were converted to 4 bits."""
    found = [r["bits_per_weight"] for r in rows if r["bits"] == 4]
    if not found:
        return row("mlx-4-bits-are-4-bits", "not-run", "nothing was converted to 4 bits")
    why = f"a folder of 4 bits has {min(found):.2f} to {max(found):.2f} bits for each weight"
    return row("mlx-4-bits-are-4-bits", "confirmed" if min(found) > 4.1 else "refuted", why)


def same_bits_same_error(rows: Rows) -> dict[str, Any]:
    """`mlx-4bit-equals-q4`: errors of the formats that take 4.5 bits per weight, on the same weights."""
    found = {r["name"]: r["error"] for r in rows if r["bits_per_weight"] == 4.5}
    if len(found) < 2:
        return row("mlx-4bit-equals-q4", "not-run", "it takes two formats of 4.5 bits to see it")
    why = "errors at 4.5 bits per weight: " + ", ".join(f"{name} {error:.1%}" for name, error in found.items())
    return row("mlx-4bit-equals-q4", "confirmed" if max(found.values()) > 1.05 * min(found.values()) else "refuted", why)


def only_on_a_mac(rows: Rows) -> dict[str, Any]:
    """`mlx-only-on-macs`: did MLX give tokens on another system? `system` in a row is what `platform.system()` said."""
    made = [r for r in rows if r["engine"] == "mlx" and r["output_tokens"] and r["system"] != "Darwin"]
    if not made:
        return row("mlx-only-on-macs", "not-run", "it takes a run on another system to see it")
    return row(
        "mlx-only-on-macs",
        "confirmed",
        f"{sum(r['output_tokens'] for r in made)} tokens on {made[0]['system']}, device {made[0]['device']}",
    )


def temperature(rows: Rows) -> dict[str, Any]:
    """`mlx-generate-temperature`: what mlx_lm.generate said to `temperature=`."""
    found = [r for r in rows if r["way"].startswith("temperature=")]
    if not found:
        return row("mlx-generate-temperature", "not-run", "it was not tried")
    shown: Shown = "confirmed" if found[0]["result"] == "TypeError" else "refuted"
    return row("mlx-generate-temperature", shown, " ".join(f"{found[0]['result']} {found[0]['said']}".split())[:160])
