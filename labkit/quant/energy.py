"""Bits and energy of ternary weights: arithmetic with published figures, nothing measured.

Energies of one operation are those of Horowitz, "Computing's energy problem", ISSCC 2014 (45 nm, 0.9 V),
doi:10.1109/ISSCC.2014.6757323; the 32-bit DRAM figure as Han and others print it (EIE, 2016, arXiv:1602.01528, table I).
Newer chips need less for each; the ratios are what carries over. Left out: everything else that a processor does (fetching
instructions, caches, moving numbers about), so real savings are smaller.

>>> round(per_weight("F16").total_pj / per_weight("TQ2_0").total_pj, 1)
7.8
"""

from __future__ import annotations

import math
from typing import NamedTuple

from labkit.quant import blocks

SOURCE = "Horowitz, ISSCC 2014, 45 nm"
# picojoules of one operation
PICOJOULES = {
    "int8 add": 0.03, "int32 add": 0.1, "int8 multiply": 0.2,
    "fp16 add": 0.4, "fp16 multiply": 1.1, "fp32 add": 0.9, "fp32 multiply": 3.7,
}  # fmt: skip
DRAM_PJ_PER_BIT = 640 / 32  # 640 pJ for 32 bits from the memory outside the chip: 6,400 additions of 32-bit integers
LOG2_3 = math.log2(3)  # bits that a choice among three values carries: no format can need less where all three are as likely
TERNARY = ("TQ1_0", "TQ2_0")


class Energy(NamedTuple):
    """What one weight costs when a model writes one token: the arithmetic and the reading of the weight, in picojoules."""

    arithmetic_pj: float
    memory_pj: float

    @property
    def total_pj(self) -> float:
        return self.arithmetic_pj + self.memory_pj


def multiply_accumulate_pj(kind: str) -> float:
    """Energy of one weight's share in a dot product.

    F16: one 16-bit multiplication and one 16-bit addition. Ternary: no multiplication, one addition of an 8-bit activation
    to a 32-bit sum (the sum of many 8-bit numbers does not fit 8 bits; counted with 8-bit additions it would be 0.03).
    Other formats: an 8-bit multiplication and a 32-bit addition, as llama.cpp computes them.
    """
    if kind in ("F16", "BF16"):
        return PICOJOULES["fp16 multiply"] + PICOJOULES["fp16 add"]
    if kind in TERNARY:
        return PICOJOULES["int32 add"]
    return PICOJOULES["int8 multiply"] + PICOJOULES["int32 add"]


def per_weight(kind: str) -> Energy:
    """Arithmetic and memory for one weight and one token, each weight read once from DRAM (one request at a time).

    Raises BadInput for an unknown kind.
    """
    return Energy(multiply_accumulate_pj(kind), blocks.bits_per_weight(kind) * DRAM_PJ_PER_BIT)


def weights_bytes(parameters: int, kind: str) -> float:
    """Bytes of that many weights. Raises BadInput for an unknown kind."""
    return parameters * blocks.bits_per_weight(kind) / 8
