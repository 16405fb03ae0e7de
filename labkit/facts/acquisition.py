"""Statements about getting models, decided by lab 03's own rows.

>>> open_weights([{"licence": "Gemma Terms of Use", "plain": False}])["shown"]
'confirmed'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.facts.claims import row

Rows = Sequence[Mapping[str, Any]]


def only_numbers(imports: Sequence[str]) -> dict[str, Any]:
    """`weights-are-only-numbers`: what a file of weights asks Python to import when it is loaded."""
    if not imports:
        return row("weights-are-only-numbers", "refuted", "the pickle that was read here asks for no import")
    return row("weights-are-only-numbers", "confirmed", f"the pickle asks Python for {', '.join(imports)}, and calls it with a text")


def checksum_is_safety(rows: Rows) -> dict[str, Any]:
    """`checksum-means-safe`: rows of pulls; was a file refused although its checksum agreed?"""
    disguised = [r for r in rows if r["result"] == "refused" and "whatever its name says" in r["why"]]
    if not rows:
        return row("checksum-means-safe", "not-run", "nothing was pulled")
    if not disguised:
        return row("checksum-means-safe", "refuted", "every file whose checksum agreed was what its name said")
    return row(
        "checksum-means-safe", "confirmed", f"the file of {disguised[0]['repository']} arrived with the published checksum, and is a pickle"
    )


def open_weights(rows: Rows) -> dict[str, Any]:
    """`open-weights-any-use`: models of the catalogue whose licence sets conditions on use."""
    bound = [r for r in rows if not r["plain"]]
    why = f"{len(bound)} of {len(rows)} models in the catalogue come under a licence with conditions on use"
    return row("open-weights-any-use", "confirmed" if bound else "refuted", why)


def always_resumed(rows: Rows) -> dict[str, Any]:
    """`hub-downloads-resume`: calls of the official client; where did the second one begin?"""
    if len(rows) < 2 or rows[0]["ended"] == "complete":
        return row("hub-downloads-resume", "not-run", "no download broke for good")
    second = rows[1]
    start = "at byte 0 again" if second["first_from_byte"] == 0 else f"at byte {second['first_from_byte']}"
    why = f"huggingface_hub {second['version']} resumed inside one call ({rows[0]['requests']} requests); a new call began {start}"
    return row("hub-downloads-resume", "confirmed" if second["first_from_byte"] == 0 else "refuted", why)
