"""Arithmetic on formats, against figures worked out by hand."""

import pytest

from labkit.core.errors import BadInput
from labkit.quant import energy


@pytest.mark.parametrize(
    ("kind", "arithmetic", "memory"),
    [("F16", 1.5, 320.0), ("Q8_0", 0.3, 170.0), ("Q4_0", 0.3, 90.0), ("TQ2_0", 0.1, 41.25), ("TQ1_0", 0.1, 33.75)],
)
def test_energy_of_a_weight(kind, arithmetic, memory):
    found = energy.per_weight(kind)
    assert found == pytest.approx((arithmetic, memory))
    assert found.total_pj == pytest.approx(arithmetic + memory)


def test_bits():
    assert pytest.approx(3) == 2**energy.LOG2_3
    assert energy.weights_bytes(2_412_820_480, "TQ2_0") == 2_412_820_480 // 256 * 66


def test_unknown_kind():
    with pytest.raises(BadInput, match="TQ9"):
        energy.per_weight("TQ9")
