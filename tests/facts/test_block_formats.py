"""Claims about block formats: verdicts that can go both ways."""

from __future__ import annotations

import pytest

from labkit.facts import block_formats


def errors(k, source="F16", tensors=("a", "b")):
    return [{"tensor": t, "kind": kind, "source": source, "relative_error": e} for t in tensors for kind, e in (("Q4_0", 0.1), ("Q4_K", k))]


def test_four_bits_take_more_than_half_a_byte():
    found = block_formats.half_a_byte()
    assert found["shown"] == "confirmed"
    assert "Q4_0 4.5 bits, 3.94 GB" in found["why"]


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        (errors(0.08), "confirmed"),
        (errors(0.12), "refuted"),
        (errors(0.08) + errors(0.12, tensors=("c",)), "refuted"),
        (errors(0.02, source="Q4_1"), "not-run"),
        (errors(0.08)[::2], "not-run"),
        ([], "not-run"),
    ],
)
def test_superblocks(rows, shown):
    assert block_formats.superblocks(rows)["shown"] == shown


@pytest.mark.parametrize(
    ("via", "shown"),
    [
        ({"F16": 0.086, "Q8_0": 0.0865, "Q4_1": 0.115}, "confirmed"),
        ({"F16": 0.086, "Q4_1": 0.0861}, "refuted"),
        ({"F16": 0.086, "Q8_0": 0.1}, "not-run"),
        ({"Q4_1": 0.1}, "not-run"),
        ({"F16": 0.0, "Q4_1": 0.1}, "not-run"),
    ],
)
def test_requantized(via, shown):
    rows = [{"source": "F16", "via": k, "relative_error": e} for k, e in via.items()]
    assert block_formats.requantized(rows)["shown"] == shown
    assert block_formats.requantized([{**r, "source": "Q4_1"} for r in rows])["shown"] == "not-run"
