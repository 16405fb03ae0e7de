"""The exercises of lab 06: a matrix made ternary, five trits in a byte and out again, and a format's bits per weight."""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong, close, likely_mistake

# -- a matrix made ternary


def _matrix(rng: Any) -> np.ndarray:
    """Rows and columns differ in size, and so do the rows' spreads: a scale for each row is then seen to be wrong."""
    rows, columns = int(rng.integers(3, 7)), int(rng.integers(8, 20))
    return rng.normal(rng.normal() * 0.01, 0.05, (rows, columns)) * rng.uniform(0.3, 3, (rows, 1))


def _absmean(w: np.ndarray) -> tuple[np.ndarray, float]:
    scale = float(np.abs(w).mean())
    return np.clip(np.round(w / scale), -1, 1), scale


def _pair(given: Any) -> tuple[Any, Any] | str:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        return "Return two things: the matrix of values, and the scale."
    if np.ndim(given[0]) == 0 and np.ndim(given[1]) == 2:
        return "The other way round: first the matrix of values, then the scale."
    return given[0], given[1]


def _scale(answer: Any, rng: Any) -> str | None:
    w = _matrix(rng)
    pair = _pair(answer(w.copy()))
    if isinstance(pair, str):
        return pair
    given, (_, right) = pair[1], _absmean(w)
    if np.ndim(given):
        return "BitNet b1.58 has one scale for the whole matrix: the mean over all of it."
    if close(given, right):
        return None
    if close(given, np.abs(w).max()):
        return "That is the largest magnitude (absmax). The scale here is the mean of the magnitudes."
    if close(given, w.mean()) or close(given, abs(w.mean())):
        return "Positive and negative weights cancel. Take the magnitudes first, then the mean."
    if close(given, 1 / right):
        return "That is turned over: the scale is what a value is multiplied by to get the weight back."
    return "The scale is the mean of the magnitudes of all weights."


def _values(answer: Any, rng: Any) -> str | None:
    w = _matrix(rng)
    pair = _pair(answer(w.copy()))
    if isinstance(pair, str):
        return pair
    given, (right, scale) = pair[0], _absmean(w)
    if np.shape(given) != w.shape:
        return f"The values have the shape of the matrix, {w.shape}."
    if close(given, right):
        return None
    values = np.asarray(given, float)
    if not np.isin(values, (-1, 0, 1)).all():
        if close(values, right * scale):
            return "Return the values -1, 0 and 1 themselves; the scale is handed over apart."
        if close(values, np.round(w / scale)):
            return "Weights of more than 1.5 scales became 2 or more. Cut the values off at -1 and 1."
        return "Only -1, 0 and 1 are allowed: divide, round, then cut off."
    if close(values, np.sign(w)):
        return "Those are the signs. Small weights must become 0: divide by the scale and round."
    return "Divide each weight by the scale, round it, and cut it off at -1 and 1."


ternarise = Exercise(
    "ternarise",
    "A matrix made ternary",
    (Part(1, "the scale", _scale), Part(2, "the values", _values)),
    (
        Wrong(
            "scale = np.abs(weights).mean()\nreturn np.round(weights / scale), scale",
            "Cut the values off",
            "forgets that large weights must become 1, too",
        ),
        Wrong(
            "scale = np.abs(weights).max()\nreturn np.clip(np.round(weights / scale), -1, 1), scale",
            "largest magnitude",
            "takes absmax, as for activations",
        ),
        Wrong("scale = np.abs(weights).mean()\nreturn np.sign(weights), scale", "Small weights must become 0", "makes a binary matrix"),
        Wrong(
            "scale = np.abs(weights).mean()\nreturn scale, np.clip(np.round(weights / scale), -1, 1)",
            "other way round",
            "hands the two over in the other order",
        ),
        Wrong(
            "scale = np.abs(weights).mean(axis=1, keepdims=True)\nreturn np.clip(np.round(weights / scale), -1, 1), scale",
            "one scale for the whole matrix",
            "takes a scale for each row",
        ),
        Wrong(
            "scale = np.abs(weights).mean()\nreturn np.clip(np.round(weights / scale), -1, 1) * scale, scale",
            "handed over apart",
            "multiplies the scale in",
        ),
    ),
)


# -- five trits in a byte


def _trits(rng: Any) -> list[int]:
    """Five values; no palindrome, so that the order shows, and not all in range without the shift."""
    while True:
        trits = [int(t) for t in rng.integers(-1, 2, 5)]
        if trits != trits[::-1] and sum(t * 3**n for n, t in enumerate(trits[::-1])) < 0:
            return trits


def _number(trits: list[int], base: int = 3, shift: int = 1) -> int:
    value = 0
    for t in trits:
        value = value * base + t + shift
    return value


def _packed(answer: Any, rng: Any) -> str | None:
    trits = _trits(rng)
    given, right = answer(list(trits)), _number(trits)
    if close(given, right):
        return None
    for value, hint in (
        (_number(trits, shift=0), "A byte holds no negative number: add 1 to each value first, so that the digits are 0, 1, 2."),
        (_number(trits[::-1]), "The first value is the most significant digit: start with it."),
        (_number(trits, base=4), "That takes two bits for each value, and ten bits are no byte. The base is 3."),
        (_number(trits, base=2), "With base 2 the digit 2 overlaps its neighbour. The base is 3."),
    ):
        if close(given, value):
            return hint
    return "Start with 0; for each value multiply by 3 and add the digit (the value plus 1). The result is 0 to 242."


pack = Exercise(
    "pack",
    "Five trits in a byte",
    (Part(2, "five values", _packed),),
    (
        Wrong("number = 0\nfor t in trits:\n    number = number * 3 + t\nreturn number", "no negative number", "does not shift the values"),
        Wrong(
            "number = 0\nfor t in reversed(trits):\n    number = number * 3 + t + 1\nreturn number",
            "most significant",
            "starts at the wrong end",
        ),
        Wrong("number = 0\nfor t in trits:\n    number = number * 4 + t + 1\nreturn number", "ten bits", "packs two bits for each value"),
    ),
)


def _unpacked(answer: Any, rng: Any) -> str | None:
    trits = _trits(rng)
    given = answer(_number(trits))
    try:
        values = [int(v) for v in given]
    except (TypeError, ValueError):
        return "Return a list of five whole numbers."
    if values == trits:
        return None
    if len(values) != 5:
        return f"There are always five values; you returned {len(values)}. Zeros in front count, too."
    if values == trits[::-1]:
        return "The values are right, their order is turned round: the remainder of the first division is the last digit."
    if values in ([t + 1 for t in trits], [t + 1 for t in trits[::-1]]):
        return "Those are the digits 0, 1, 2. Take 1 away from each to get the values."
    return "Five times: the remainder of dividing by 3 is a digit, the quotient goes on. Digits minus 1 are the values."


unpack = Exercise(
    "unpack",
    "A byte into five trits",
    (Part(2, "five values", _unpacked),),
    (
        Wrong(
            "trits = []\nfor _ in range(5):\n    trits.append(number % 3 - 1)\n    number //= 3\nreturn trits",
            "turned round",
            "leaves the last digit in front",
        ),
        Wrong(
            "trits = []\nfor _ in range(5):\n    trits.append(number % 3)\n    number //= 3\nreturn trits[::-1]",
            "Take 1 away",
            "returns the digits",
        ),
        Wrong(
            "trits = []\nfor _ in range(4):\n    trits.append(number % 3 - 1)\n    number //= 3\nreturn trits[::-1]",
            "always five",
            "stops too early",
        ),
    ),
)


# -- bits per weight


def _whole(answer: Any, rng: Any) -> str | None:
    return _layout(answer, rng, int(rng.choice([1, 2, 4])))


def _not_full(answer: Any, rng: Any) -> str | None:
    """Five or seven weights a byte: no block below is a whole number of them."""
    return _layout(answer, rng, int(rng.choice([5, 7])))


def _layout(answer: Any, rng: Any, per_byte: int) -> str | None:
    block = int(rng.choice([64, 128, 192, 256]))
    scale_bytes = int(rng.choice([1, 2, 4]))
    weights_bytes = -(-block // per_byte)
    right = 8 * (weights_bytes + scale_bytes) / block
    values = (
        (8 * weights_bytes / block, "The scale is stored as well: add its bytes."),
        ((weights_bytes + scale_bytes) / block, "That is bytes a weight. Eight bits make a byte."),
        (8 * (weights_bytes + scale_bytes), "That is the whole block's bits. Divide by the number of weights in it."),
        (8 * (block / per_byte + scale_bytes) / block, "A byte is stored whole, also when its last places stay empty: round up."),
        (8 * (block // per_byte + scale_bytes) / block, "The last weights need a byte as well, even if it is not full: round up."),
        (1 / right, "That is weights a bit. Turn it over."),
    )
    otherwise = "Bytes of the weights (rounded up) plus bytes of the scale, times 8, divided by the weights in a block."
    return likely_mistake(answer(block, per_byte, scale_bytes), right, otherwise, values=values)


bits_per_weight = Exercise(
    "bits_per_weight",
    "Bits per weight from a block's layout",
    (Part(1, "some layouts", _whole), Part(1, "a last byte that is not full", _not_full)),
    (
        Wrong("return 8 * math.ceil(block / per_byte) / block", "add its bytes", "forgets the scale"),
        Wrong("return (math.ceil(block / per_byte) + scale_bytes) / block", "Eight bits", "answers in bytes"),
        Wrong("return 8 * (math.ceil(block / per_byte) + scale_bytes)", "Divide by the number of weights", "answers for the whole block"),
        Wrong("return 8 * (block / per_byte + scale_bytes) / block", "round up", "stores parts of a byte"),
    ),
)
