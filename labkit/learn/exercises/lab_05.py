"""The exercises of lab 05: bits per weight, Q8_0 and Q4_0 to the byte, and the relative error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong, likely_mistake
from labkit.learn.exercises.lab_05_codecs import decode_q8_0, encode_q4_0, encode_q8_0

__all__ = ["bits_per_weight", "decode_q8_0", "encode_q4_0", "encode_q8_0", "relative_error"]


# -- bits per weight


def _bits(answer: Any, rng: Any) -> str | None:
    weights, bits, extra = int(rng.choice([16, 32, 64, 128, 256])), int(rng.integers(2, 9)), int(rng.choice([2, 4, 6, 10, 16, 20]))
    return likely_mistake(
        answer(weights, bits, extra),
        bits + 8 * extra / weights,
        "Add up all bits of the block, and divide by the number of its weights.",
        values=(
            (bits, "The shared bytes are missing: a block also stores its scales. (Or did you divide with //, which rounds them away?)"),
            (bits + 8 * extra // weights, "Do not round: bits per weight need not be a whole number. Divide with /, not with //."),
            (bits + extra / weights, "The shared part is given in bytes; a byte has 8 bits."),
            (weights * bits + 8 * extra, "Those are the bits of the whole block. Divide by its weights."),
            ((weights * bits / 8 + extra) / weights, "That is bytes per weight. A byte has 8 bits."),
            (bits + 8 * extra, "The block's weights share those bytes: divide them by the number of weights."),
        ),
    )


bits_per_weight = Exercise(
    "bits_per_weight",
    "Bits per weight of a block format",
    (Part(1, "some formats", _bits),),
    (
        Wrong("return (weights * bits + 8 * shared_bytes) // weights", "//", "rounds down to whole bits"),
        Wrong("return bits", "also stores its scales", "takes a 4-bit format for 4 bits a weight"),
        Wrong("return bits + shared_bytes / weights", "a byte has 8 bits", "adds bytes to bits"),
        Wrong("return weights * bits + 8 * shared_bytes", "Divide by its weights", "stops at the block"),
        Wrong("return (weights * bits / 8 + shared_bytes) / weights", "bytes per weight", "answers in bytes"),
    ),
)


# -- the error


def _error(small: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        weights = rng.normal(size=96) * (rng.uniform(0.001, 0.1) if small else rng.uniform(2, 9))
        back = weights + rng.normal(size=96) * rng.uniform(0.01, 0.2) * np.abs(weights).max()
        squared, size = np.mean((weights - back) ** 2), np.mean(weights**2)
        return likely_mistake(
            answer(weights.copy(), back.copy()),
            float(np.sqrt(squared / size)),
            "Root of the mean squared error, divided by the root of the mean squared weight.",
            values=(
                (squared / size, "That is the square of it: take the root."),
                (np.sqrt(squared), "That is the error alone. Divide by the RMS of the weights, or two tensors cannot be compared."),
                (np.mean(np.abs(weights - back)) / np.mean(np.abs(weights)), "RMS means: square, take the mean, take the root."),
                (np.sqrt(squared) / np.abs(weights).max(), "Divide by the RMS of the weights, not by the largest one."),
                (np.sqrt(np.sum((weights - back) ** 2)) / np.sqrt(size), "The error wants its mean too, not its sum."),
                (np.sqrt(squared / np.mean(back**2)), "Compare with the weights as they were, not with those that came back."),
            ),
        )

    return test


relative_error = Exercise(
    "relative_error",
    "The error, as a share of the weights",
    (Part(1, "small weights", _error(True)), Part(1, "large weights", _error(False))),
    (
        Wrong("import numpy as np\nreturn np.mean((weights - back) ** 2) / np.mean(weights ** 2)", "take the root", "forgets the root"),
        Wrong(
            "import numpy as np\nreturn np.sqrt(np.mean((weights - back) ** 2))", "Divide by the RMS", "forgets to compare with the weights"
        ),
        Wrong("import numpy as np\nreturn np.mean(np.abs(weights - back)) / np.mean(np.abs(weights))", "RMS means", "uses mean magnitudes"),
        Wrong(
            "import numpy as np\nreturn np.sqrt(np.mean((weights - back) ** 2)) / np.abs(weights).max()",
            "not by the largest",
            "uses the largest weight",
        ),
    ),
)
