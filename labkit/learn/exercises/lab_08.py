"""The exercises of lab 08: bits per weight of a group, codes out of a packed word, weights out of codes, codes out of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong, likely_mistake

# -- bits per weight


def _bits(scale_bits: int | None) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        bits, group = int(rng.choice([2, 3, 4, 5, 6, 8])), int(rng.choice([32, 64, 128]))
        wide = scale_bits or int(rng.choice([8, 12, 24]))  # not 32: two scales of 16 bits would look like one
        given, right = answer(bits, group, wide), bits + 2 * wide / group
        likely = (
            (bits, "That is the code alone. Each group also stores a scale and a bias."),
            (bits + wide / group, "A group stores two numbers beside its codes: a scale and a bias."),
            (bits + 2 * wide, "The scale and the bias serve the whole group: divide their bits by the weights in it."),
            (bits * group + 2 * wide, "Those are the bits of the whole group. Divide by the number of its weights."),
            (bits + 32 / group, "That holds for scales of 16 bits only. Use scale_bits."),
            (right / 8, "That is in bytes. The answer is wanted in bits."),
        )
        return likely_mistake(
            given, right, "A group has its codes, a scale and a bias. Add up their bits and divide by the number of weights.", values=likely
        )

    return test


group_bits = Exercise(
    "group_bits",
    "Bits per weight of a group",
    (Part(1, "16-bit scales", _bits(16)), Part(1, "scales of another width", _bits(None))),
    (
        Wrong("return bits", "the code alone", "forgets scale and bias"),
        Wrong("return bits + scale_bits / group_size", "two numbers", "forgets the bias"),
        Wrong("return bits * group_size + 2 * scale_bits", "whole group", "does not divide by the weights"),
        Wrong("return bits + 32 / group_size", "16 bits only", "takes every scale for a 16-bit one"),
    ),
)


# -- eight codes in a word


def _draw_codes(rng: Any) -> list[int]:
    """Eight numbers of 4 bits that are no palindrome and not all below 8, so that order and width show."""
    while True:
        codes = [int(c) for c in rng.integers(0, 16, 8)]
        if codes != codes[::-1] and max(codes) > 7 and len({c // 4 for c in codes}) > 1:
            return codes


def _word(codes: list[int]) -> int:
    return sum(code << 4 * place for place, code in enumerate(codes))


def _unpacked(answer: Any, rng: Any) -> str | None:
    codes = _draw_codes(rng)
    word = _word(codes)
    given = list(answer(word))
    if given == codes:
        return None
    if given == codes[::-1]:
        return "These are the right numbers from the wrong end: the first code lies in the lowest four bits."
    if len(given) == 32 and given == [word >> n & 1 for n in range(32)]:
        return "Those are single bits. A code takes four of them together."
    if len(given) == 4:
        return "Those are the four bytes. Each byte holds two codes of four bits."
    if len(given) != 8:
        return f"A word of 32 bits holds eight codes of four bits; you return {len(given)}."
    if given == [word >> 4 * n for n in range(8)]:
        return "Shifting brings a code to the bottom, but the codes above it are still there: keep the lowest four bits."
    if given == [word >> n & 15 for n in range(8)]:
        return "Neighbours overlap: the n-th code starts at bit 4n, not at bit n."
    if given == [word >> 4 * n & 7 for n in range(8)]:
        return "Seven keeps three bits. Four bits reach up to 15."
    return "Shift the word right by 4n bits, and keep the lowest four bits of what is left."


unpack_word = Exercise(
    "unpack_word",
    "Eight codes out of a word",
    (Part(2, "a word of eight codes", _unpacked),),
    (
        Wrong("return [word >> 4 * n & 15 for n in reversed(range(8))]", "wrong end", "reads from the high end, as one writes hexadecimal"),
        Wrong("return [word >> 4 * n for n in range(8)]", "still there", "forgets to mask"),
        Wrong("return [word >> n & 15 for n in range(8)]", "overlap", "shifts by one bit a code"),
        Wrong("return [word >> 8 * n & 255 for n in range(4)]", "four bytes", "takes bytes for codes"),
    ),
)


# -- weights out of codes


def _restored(negative: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        size = int(rng.choice([32, 64]))
        codes = [int(c) for c in rng.integers(0, 16, size)]
        scale = float(rng.uniform(0.01, 0.05)) * (-1 if negative else 1)
        bias = float(rng.uniform(0.1, 0.4)) * (1 if negative else -1)
        given, right = answer(codes, scale, bias), [scale * c + bias for c in codes]
        array = np.array(codes)
        likely = (
            (scale * array, "The bias is missing: it is added to every weight of the group."),
            (scale * (array + bias), "The bias is no code: multiply the code by the scale first, then add the bias."),
            (scale * (array - 8), "That is Q4_0's rule, where code 8 means zero. Here the bias says where the codes start."),
            (abs(scale) * array + bias, "A scale may be negative: the codes then count downwards from the bias. Take it as it is."),
            (array / scale + bias, "A code is a number of steps, and the scale is the size of a step: multiply."),
            (bias * array + scale, "Scale and bias are swapped."),
        )
        return likely_mistake(given, right, "Every weight is its code times the scale, plus the bias.", values=likely)

    return test


restore_group = Exercise(
    "restore_group",
    "Weights out of codes",
    (Part(1, "a positive scale", _restored(False)), Part(1, "a negative scale", _restored(True))),
    (
        Wrong("return [scale * code for code in codes]", "bias is missing", "forgets the bias"),
        Wrong("return [scale * (code + bias) for code in codes]", "bias is no code", "adds the bias to the code"),
        Wrong("return [scale * (code - 8) for code in codes]", "Q4_0", "applies the rule of another format"),
        Wrong("return [abs(scale) * code + bias for code in codes]", "may be negative", "takes the scale's sign away"),
    ),
)


# -- codes out of weights


def _encoded(shifted: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        bits = int(rng.choice([3, 4, 5]))
        weights = rng.normal(0, 0.05, 32) + (float(rng.uniform(0.3, 0.6)) if shifted else 0)
        low, high, top = float(weights.min()), float(weights.max()), 2**bits - 1
        step = (high - low) / top
        given, right = [round(float(c), 6) for c in answer([float(w) for w in weights], bits)], [round((w - low) / step) for w in weights]
        if given == right:
            return None
        if any(c != int(c) for c in given):
            return "A code is a whole number: round it."
        if max(given) > top:
            return f"Your codes reach {max(given):g}, and {bits} bits reach {top}: the range has 2 to the power of bits, minus one, steps."
        if min(given) < 0:
            return "A code is never below zero: count the steps from the smallest weight."
        even = 2 * float(np.abs(weights).max()) / top
        if given == [round((w - low) / even) for w in weights]:
            return "You use only a part of the codes: the range is from the smallest to the largest weight of the group."
        for value, hint in (
            (
                [int((w - low) / step) for w in weights],
                "You cut off what is behind the point. Take the nearest whole number, or the error doubles.",
            ),
            (
                [round((w - low) / (high - low) * (top - 1)) for w in weights],
                "Your highest code is one too low: the codes go from 0 up to it.",
            ),
            ([round((high - w) / step) for w in weights], "Your codes count down from the largest weight; count up from the smallest."),
        ):
            if given == value:
                return hint
        return "The step is (largest - smallest) / (2^bits - 1); a code is the number of steps from the smallest weight, rounded."

    return test


encode_group = Exercise(
    "encode_group",
    "Codes out of weights",
    (Part(1, "weights around zero", _encoded(False)), Part(1, "weights far from zero", _encoded(True))),
    (
        Wrong(
            "low, step = min(weights), (max(weights) - min(weights)) / (2**bits - 1)\nreturn [int((w - low) / step) for w in weights]",
            "nearest whole number",
            "cuts off instead of rounding",
        ),
        Wrong(
            "low, step = min(weights), (max(weights) - min(weights)) / 2**bits\nreturn [round((w - low) / step) for w in weights]",
            "minus one",
            "divides by the number of codes instead of steps",
        ),
        Wrong(
            "step = (max(weights) - min(weights)) / (2**bits - 1)\nreturn [round(w / step) for w in weights]",
            "from the smallest weight",
            "forgets to start at the smallest weight",
        ),
        Wrong(
            "low, step = min(weights), (max(weights) - min(weights)) / (2**bits - 1)\nreturn [(w - low) / step for w in weights]",
            "whole number",
            "does not round",
        ),
        Wrong(
            "low, step = min(weights), 2 * max(abs(w) for w in weights) / (2**bits - 1)\nreturn [round((w - low) / step) for w in weights]",
            "part of the codes",
            "takes the range as symmetric about zero",
        ),
    ),
)
