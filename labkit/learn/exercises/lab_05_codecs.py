"""The codecs of lab 05's exercises: Q8_0 there and back, and Q4_0, to the byte.

The referee is `labkit.quant.blocks`, which the tests hold to llama.cpp's own code, byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong, close
from labkit.quant import blocks

F32 = np.float32


def _normal(rng: Any) -> np.ndarray:
    """A block as it occurs: 32 weights of about one size."""
    return (rng.normal(size=32) * rng.uniform(0.005, 2)).astype(F32)


# -- Q8_0

_UNROUNDED = "Divide by the scale as float32; only what is stored is rounded to float16. Then multiply by 1 / d, as llama.cpp does."


def _as_bytes(given: Any, size: int) -> np.ndarray | str:
    """The answer as bytes, or a hint."""
    if not isinstance(given, np.ndarray) or given.dtype != np.uint8:
        kind = getattr(given, "dtype", type(given).__name__)
        return f"Return a NumPy array of uint8 (yours: {kind}): .view(np.uint8) shows numbers as bytes."
    if given.shape != (size,):
        return f"The block takes {size} bytes in one row; yours has the shape {given.shape}."
    return given


def _half(d: Any) -> np.ndarray:
    return np.array([d], np.float16).view(np.uint8)


def _scale8(answer: Any, rng: Any) -> str | None:
    block = _normal(rng)
    given = _as_bytes(answer(block.copy()), 34)
    if isinstance(given, str):
        return given
    top = np.abs(block).max()
    for wrong, hint in (
        (_half(top / F32(128)), "The largest weight becomes 127, the largest number that both signs have: divide by 127."),
        (_half(block.max() / F32(127)), "A negative weight may be the largest by magnitude: take the absolute values first."),
        (np.array([top / F32(127)], ">f2").view(np.uint8), "The scale's two bytes are the wrong way round: the low byte comes first."),
    ):
        if np.array_equal(given[:2], wrong) and not np.array_equal(given[:2], blocks.encode("Q8_0", block)[:2]):
            return hint
    right = np.array_equal(given[:2], blocks.encode("Q8_0", block)[:2])
    return None if right else "The first two bytes are the scale: largest magnitude / 127, as float16."


def _numbers8(answer: Any, rng: Any) -> str | None:
    block = _normal(rng)
    given, right = _as_bytes(answer(block.copy()), 34), blocks.encode("Q8_0", block)
    if isinstance(given, str):
        return given
    if np.array_equal(given[2:], right[2:]):
        return None
    scaled = block * (F32(1) / (np.abs(block).max() / F32(127)))
    if np.array_equal(given[2:].view(np.int8), np.trunc(scaled).astype(np.int8)):
        return "You cut the digits behind the point off. Round to the nearest number."
    if np.array_equal(given[2:].view(np.int8), np.floor(scaled + F32(0.5)).astype(np.int8)):
        return "Nearly: a number that lies exactly in the middle goes away from zero, on both sides."
    half = F32(np.float16(np.abs(block).max() / F32(127)))
    if np.array_equal(given[2:].view(np.int8), np.rint(block * (F32(1) / half)).astype(np.int8)):
        return _UNROUNDED
    return "Bytes 3 to 34 are the weights divided by the scale and rounded, as signed bytes (int8)."


def _middle8(answer: Any, rng: Any) -> str | None:
    """The largest weight makes the scale a power of two, so that some quotients lie exactly in the middle."""
    block = (rng.integers(-126, 126, 32) + 0.5).astype(F32)
    block[int(rng.integers(32))] = 127
    block *= F32(2.0 ** int(rng.integers(-8, 3)))
    given, right = _as_bytes(answer(block.copy()), 34), blocks.encode("Q8_0", block)
    if isinstance(given, str):
        return given
    if np.array_equal(given, right):
        return None
    if np.array_equal(given[2:].view(np.int8), np.floor(block * (F32(1) / (np.abs(block).max() / F32(127))) + F32(0.5)).astype(np.int8)):
        return "np.floor(x + 0.5) is right for positive x. A negative number in the middle goes away from zero too: -2.5 becomes -3."
    return "A quotient that lies exactly in the middle goes away from zero: 2.5 becomes 3, -2.5 becomes -3. np.round goes to the even one."


def _rounded_scale8(answer: Any, rng: Any) -> str | None:
    """A block where dividing by the rounded scale gives other numbers."""
    block = _normal(rng)
    while True:
        d = np.abs(block).max() / F32(127)
        half = F32(np.float16(d))
        if not np.array_equal(np.rint(block * (F32(1) / d)), np.rint(block / half)):
            break
        block = _normal(rng)
    given = _as_bytes(answer(block.copy()), 34)
    if isinstance(given, str):
        return given
    return None if np.array_equal(given, blocks.encode("Q8_0", block)) else _UNROUNDED


_Q8 = """import numpy as np
d = {d}
inverse = np.float32(1) / d if d else np.float32(0)
x = (block * inverse).astype(float)
q = {q}.astype(np.int8)
return np.concatenate([np.array([d], np.float16).view(np.uint8), q.view(np.uint8)])"""
_D8, _AWAY = "np.abs(block).max() / np.float32(127)", "(np.sign(x) * np.floor(np.abs(x) + 0.5))"

encode_q8_0 = Exercise(
    "encode_q8_0",
    "Q8_0, to the byte",
    (
        Part(1, "the scale", _scale8),
        Part(1, "the numbers", _numbers8),
        Part(1, "numbers in the middle", _middle8),
        Part(1, "the scale before it is rounded", _rounded_scale8),
    ),
    (
        Wrong(_Q8.format(d="np.abs(block).max() / np.float32(128)", q=_AWAY), "divide by 127", "uses 128, which only negative bytes have"),
        Wrong(_Q8.format(d="block.max() / np.float32(127)", q=_AWAY), "absolute values", "forgets that the largest may be negative"),
        Wrong(_Q8.format(d=_D8, q="np.round(x)"), "away from zero", "rounds ties to the even number, as NumPy does"),
        Wrong(_Q8.format(d=_D8, q="np.floor(x + 0.5)"), "right for positive x", "sends negative ties up"),
        Wrong(_Q8.format(d=_D8, q="x"), "cut the digits", "truncates"),
        Wrong(
            _Q8.format(d="np.float32(np.float16(np.abs(block).max() / np.float32(127)))", q=_AWAY), "as float32", "rounds the scale first"
        ),
    ),
)


# -- back again


def _decoded(shift: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        block = _normal(rng) if shift else np.abs(_normal(rng))
        data = blocks.encode("Q8_0", block)
        given, right = answer(data.copy()), blocks.decode("Q8_0", data)
        if close(given, right, rel=1e-6, absolute=0):
            return None
        d = F32(data[:2].view(np.float16)[0])
        if close(given, (data[:2].view(np.float16) * data[2:].view(np.int8)).astype(F32)):
            return "Turn the scale into float32 before you multiply: a product in float16 is rounded."
        for wrong, hint in (
            (data[2:] * d, "The numbers are signed: read the bytes as int8 (.view(np.int8)), or 255 will not mean -1."),
            (data[2:].view(np.int8), "Those are the numbers. Multiply by the scale."),
            (data[:2].view(">f2")[0].astype(F32) * data[2:].view(np.int8), "Low byte first: read the scale with .view(np.float16)."),
            (data[2:].view(np.int8) * (d / F32(127)), "The scale is largest / 127 already: multiply by it, no more."),
        ):
            if close(given, wrong):
                return hint
        return "Two bytes are the scale (float16), 32 bytes the numbers (int8). A weight is scale times number."

    return test


_READ = "import numpy as np\nd = data[:2].view(np.float16)[0].astype(np.float32)\n"

decode_q8_0 = Exercise(
    "decode_q8_0",
    "Back from Q8_0",
    (Part(1, "positive weights", _decoded(False)), Part(1, "weights of both signs", _decoded(True))),
    (
        Wrong(_READ + "return data[2:] * d", "signed", "reads unsigned bytes"),
        Wrong(
            "import numpy as np\nreturn data[:2].view(np.float16) * data[2:].view(np.int8)",
            "in float16 is rounded",
            "multiplies in float16",
        ),
        Wrong(_READ + "return data[2:].view(np.int8).astype(np.float32)", "Multiply by the scale", "forgets the scale"),
        Wrong(_READ + "return data[2:].view(np.int8) * (d / np.float32(127))", "largest / 127 already", "divides by 127 once more"),
    ),
)


# -- Q4_0


_LIMIT = "A weight of about the largest magnitude, with the other sign, would get 16, which no half byte holds: limit the numbers to 15."


def _scale4(answer: Any, rng: Any) -> str | None:
    block = _normal(rng)
    block *= -np.sign(block[np.abs(block).argmax()])  # the largest is negative: then its sign shows
    given, right = _as_bytes(answer(block.copy()), 18), blocks.encode("Q4_0", block)
    if isinstance(given, str):
        return given
    if np.array_equal(given[:2], right[:2]):
        return None
    largest = block[np.abs(block).argmax()]
    if given[1] ^ right[1] == 0x80 and given[0] == right[0]:
        return "The scale keeps a sign: the weight of the largest magnitude, with its sign, divided by -8."
    if np.array_equal(given[:2], _half(np.abs(largest) / F32(7))) or np.array_equal(given[:2], _half(largest / F32(7))):
        return "That wastes one of the 16 numbers. Q4_0 divides by -8, so that the largest weight gets the number 0."
    return "The first two bytes are the scale: the weight of the largest magnitude (with its sign) / -8, as float16."


def _numbers4(answer: Any, rng: Any) -> str | None:
    block = _normal(rng)
    given, right = _as_bytes(answer(block.copy()), 18), blocks.encode("Q4_0", block)
    if isinstance(given, str):
        return given
    q = np.concatenate([right[2:] & 15, right[2:] >> 4])
    ours = np.concatenate([given[2:] & 15, given[2:] >> 4])
    if np.array_equal(ours, q):
        return None
    if np.array_equal(given[2:], q[::2] | (q[1::2] << 4)):
        return "The numbers are right, the packing is not: byte j holds the weights j (low half) and j + 16 (high half)."
    if np.array_equal(given[2:], (q[:16] << 4) | q[16:]):
        return "The halves are swapped: the first 16 weights go into the low halves of the bytes."
    if np.array_equal(np.sort(ours), np.sort((q - 8) & 15)):
        return "A half byte has no sign. Add 8, so that the numbers run from 0 to 15."
    if (q[ours != q] == 15).all() and not ours[ours != q].any():
        return _LIMIT
    return "Each number is weight / scale + 8.5 with the digits cut off, at most 15. Two of them share a byte."


def _cap4(answer: Any, rng: Any) -> str | None:
    """A weight of the same magnitude as the largest, with the other sign, would need the number 16."""
    block = _normal(rng)
    first, second = sorted(int(n) for n in rng.choice(32, 2, replace=False))
    top = np.abs(block).max()
    block[first], block[second] = (top, -top) if rng.random() < 0.5 else (-top, top)
    given = _as_bytes(answer(block.copy()), 18)
    if isinstance(given, str):
        return given
    right = blocks.encode("Q4_0", block)
    if np.array_equal(given, right):
        return None
    if given[0] == right[0] and given[1] ^ right[1] == 0x80:
        return "Two weights are equally large, with different signs: the first of them gives the scale. np.abs(block).argmax() finds it."
    return _LIMIT


def _zeros4(answer: Any, rng: Any) -> str | None:
    del rng
    given = _as_bytes(answer(np.zeros(32, F32)), 18)
    if isinstance(given, str):
        return given
    if np.array_equal(given[2:], blocks.encode("Q4_0", np.zeros(32, F32))[2:]):  # the scale may be 0 or -0
        return None
    return "In a block of zeros every number is 8 (that stands for 0): where the scale is 0, take 0 for its inverse."


_Q4 = """import numpy as np
largest = block[np.abs(block).argmax()]
d = {d}
inverse = np.float32(1) / d if d else np.float32(0)
q = {q}.astype(np.uint8)
return np.concatenate([np.array([d], np.float16).view(np.uint8), {pack}])"""
_FIRST = "block[np.abs(block).argmax()]"
_D4, _N4, _P4 = "largest / np.float32(-8)", "np.minimum(15, block * inverse + np.float32(8.5))", "q[:16] | (q[16:] << 4)"

encode_q4_0 = Exercise(
    "encode_q4_0",
    "Q4_0, to the byte",
    (
        Part(1, "the scale", _scale4),
        Part(2, "numbers and packing", _numbers4),
        Part(1, "the limit", _cap4),
        Part(1, "a block of zeros", _zeros4),
    ),
    (
        Wrong(_Q4.format(d="np.abs(largest) / np.float32(-8)", q=_N4, pack=_P4), "with its sign", "loses the sign of the largest weight"),
        Wrong(_Q4.format(d="largest / np.float32(7)", q=_N4, pack=_P4), "wastes one", "uses 15 of the 16 numbers"),
        Wrong(_Q4.format(d=_D4, q=_N4, pack="q[::2] | (q[1::2] << 4)"), "the packing is not", "packs neighbours"),
        *(
            Wrong(
                _Q4.format(d=_D4, q=_N4, pack=_P4).replace(
                    "block[np.abs(block).argmax()]", f"block.max() if block.max() {sign} -block.min() else block.min()"
                ),
                "the first of them",
                "takes the largest by value, so that a tie goes to one sign",
            )
            for sign in (">", ">=")
        ),
        Wrong(_Q4.format(d=_D4, q=_N4, pack="(q[:16] << 4) | q[16:]"), "swapped", "swaps the halves"),
        Wrong(
            _Q4.format(d=_D4, q="(block * inverse + np.float32(8.5))", pack="(q[:16] & 15) | (q[16:] << 4)"), "limit", "forgets the limit"
        ),
        Wrong(
            _Q4.format(d=_D4, q=_N4, pack=_P4).replace("if d else np.float32(0)", ""), "take 0 for its inverse", "divides by the scale 0"
        ),
    ),
)
