"""The exercises of lab 07: bits per weight of an int4 ONNX model, the passes of a footprint, the range of dynamic quantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong, close, likely_mistake, same_order

# -- bits per weight of a whole model


def _bits(with_table: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        block = int(rng.choice([16, 32, 64, 128, 256]))
        matrices = int(rng.integers(50, 400)) * 1024
        table = int(matrices * rng.uniform(0.1, 0.4)) if with_table else 0
        given, right = answer(matrices, table, block), (matrices * (4 + 32 / block) + 32 * table) / matrices
        likely = (
            (4, "That is the code alone. Each block also stores a scale of 32 bits, and the table is there in 32 bits."),
            ((matrices * 4 + 32 * table) / matrices, "Each block of weights also stores a scale of 32 bits: its share is 32 / block_size."),
            (
                (matrices * (4 + 16 / block) + 32 * table) / matrices,
                "The model builder's scales have 32 bits on a processor, not 16.",
            ),
            (4 + 32 / block, "The embedding table is stored as well, in 32 bits a number, beside its 4-bit copy."),
            (
                (matrices * (4 + 32 / block) + 32 * table) / (matrices + table),
                "Divide by the model's weights, each counted once: the table's are among matrix_weights already.",
            ),
            (
                ((matrices - table) * (4 + 32 / block) + 32 * table) / matrices,
                "The table is stored twice: to multiply with, in 4 bits too.",
            ),
            ((matrices * (4 + 32 / block) + 4 * table) / matrices, "The copy that is looked up is not quantized: 32 bits a number."),
            (right * matrices, "Those are the bits of the whole model. Divide by its weights."),
            (right / 8, "That is in bytes. The answer is wanted in bits."),
        )
        return likely_mistake(
            given, right, "Add the bits of the codes, of the scales and of the table; divide by matrix_weights.", values=likely
        )

    return test


int4_bits = Exercise(
    "int4_bits",
    "Bits per weight of an int4 ONNX model",
    (Part(1, "codes and scales", _bits(False)), Part(1, "with the embedding table", _bits(True))),
    (
        Wrong("return 4", "code alone", "takes the name for the size"),
        Wrong("return (4 * matrix_weights + 32 * table_weights) / matrix_weights", "scale of 32 bits", "forgets the scales"),
        Wrong("return 4 + 32 / block_size", "embedding table", "forgets the table"),
        Wrong(
            "return (matrix_weights * (4 + 32 / block_size) + 32 * table_weights) / (matrix_weights + table_weights)",
            "each counted once",
            "divides by the stored weights",
        ),
        Wrong("return (matrix_weights * (4 + 16 / block_size) + 32 * table_weights) / matrix_weights", "not 16", "16-bit scales"),
    ),
)


# -- the passes of a footprint

_NAMES = (
    "modelbuilder",
    "onnxconversion",
    "graphsurgeries",
    "ortransformersoptimization",
    "onnxdynamicquantization",
    "dynamictofixedshape",
)


def _footprint(rng: Any, branches: bool) -> tuple[dict[str, Any], str, list[str]]:
    """(footprint, the last model's id, the names of the passes that led to it); the entries in no helpful order."""
    ids = [f"{n:08x}" for n in rng.choice(2**32 - 1, 8, replace=False)]
    names = [str(name) for name in rng.permutation(_NAMES)]
    length = int(rng.integers(3, 5))
    entries: dict[str, dict[str, str | None]] = {ids[0]: {"parent_model_id": None, "from_pass": None}}
    for n in range(length):
        entries[ids[n + 1]] = {"parent_model_id": ids[n], "from_pass": names[n]}
    if branches:
        entries[ids[6]] = {"parent_model_id": ids[1], "from_pass": names[4]}
        entries[ids[7]] = {"parent_model_id": ids[6], "from_pass": names[5]}
    chain = ids[1 : length + 1]
    order = chain
    while [one for one in order if one in chain] in (chain, chain[::-1]):
        order = [str(one) for one in rng.permutation(list(entries))]
    return {one: entries[one] for one in order}, ids[length], names[:length]


def _passes(branches: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        footprint, last, right = _footprint(rng, branches)
        given = answer(footprint, last)
        if not isinstance(given, list | tuple):
            return f"A list of names is wanted; you return {type(given).__name__}."
        given = list(given)
        if same_order(given, right):
            return None
        if same_order(given, right[::-1]):
            return "These are the right passes from the wrong end: the first pass comes first."
        if None in given:
            return "The input model came from no pass: leave its None out."
        if same_order(given, right[:-1]) or same_order(given, right[:-1][::-1]):
            return "The pass that made the last model is missing: take its name before you go to its parent."
        if same_order(given, right[-1:]):
            return "That is the last pass alone. Go on to the parent, and to its parent, until there is none."
        if set(given) > set(right):
            return "Some of these passes made other models. Follow parent_model_id from the last model back to the input."
        if set(given) == set(right):
            return "The right passes in the order of the file. Follow parent_model_id: the file's order means nothing."
        return "Start at last; note its from_pass, go to its parent_model_id, and so on until there is no parent. Then turn the list round."

    return test


passes_of = Exercise(
    "passes_of",
    "The passes that led to a model",
    (Part(1, "one chain", _passes(False)), Part(1, "a footprint with branches", _passes(True))),
    (
        Wrong(
            "names = []\nwhile footprint[last]['parent_model_id']:\n    names.append(footprint[last]['from_pass'])\n"
            "    last = footprint[last]['parent_model_id']\nreturn names",
            "wrong end",
            "forgets to turn the list round",
        ),
        Wrong(
            "names = []\nwhile last:\n    names.append(footprint[last]['from_pass'])\n"
            "    last = footprint[last]['parent_model_id']\nreturn names[::-1]",
            "no pass",
            "takes the input's entry along",
        ),
        Wrong("return [footprint[last]['from_pass']]", "last pass alone", "does not follow the parents"),
        Wrong(
            "return [one['from_pass'] for one in footprint.values() if one['from_pass']]",
            "parent_model_id",
            "reads the file from top to bottom",
        ),
    ),
)


# -- dynamic quantization


def _range(sign: str) -> Callable[[Any, Any], str | None]:
    """Numbers of both signs, or far from zero on one side."""

    def test(answer: Any, rng: Any) -> str | None:
        values = rng.normal(0, 1, 24) * float(rng.uniform(0.5, 3))
        if sign == "positive":
            values = np.abs(values) + float(rng.uniform(0.8, 2))
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
        scale = (high - low) / 255
        zero = min(255, max(0, round(-low / scale)))
        given = answer([float(v) for v in values])
        if not isinstance(given, list | tuple) or len(given) != 2:
            return "Return two numbers: scale, zero_point."
        given_scale, given_zero = float(given[0]), float(given[1])
        if close(given_scale, scale):
            if given_zero == zero:
                return None
            if given_zero == -zero != zero:
                return "The sign of the zero point is wrong: it is the code, from 0 to 255, that stands for 0."
            if given_zero != round(given_zero):
                return "The zero point is a code, a whole number: round it."
            return "The zero point is the number of steps from the smallest value up to 0: -low / scale, rounded."
        narrow = float(values.max() - values.min()) / 255
        for value, hint in (
            (narrow, "The range must hold 0, or 0 itself could not be coded: take min(0, smallest) and max(0, largest)."),
            ((high - low) / 256, "256 codes have 255 steps between them."),
            (float(np.abs(values).max()) / 127, "That is the symmetric rule with signed codes. Here the codes go from 0 to 255."),
            ((high - low) / 15, "That is the number of steps of 4 bits. Activations get 8 bits: 255 steps."),
        ):
            if close(given_scale, value):
                return hint
        return "scale = (high - low) / 255, where low = min(0, smallest value) and high = max(0, largest value)."

    return test


dynamic_range = Exercise(
    "dynamic_range",
    "Scale and zero point of activations",
    (Part(1, "values of both signs", _range("both")), Part(1, "values far from zero", _range("positive"))),
    (
        Wrong(
            "low, high = min(values), max(values)\nscale = (high - low) / 255\nreturn scale, round(-low / scale)",
            "must hold 0",
            "does not stretch the range to zero",
        ),
        Wrong(
            "low, high = min(0, min(values)), max(0, max(values))\nscale = (high - low) / 256\nreturn scale, round(-low / scale)",
            "255 steps",
            "divides by the codes instead of the steps",
        ),
        Wrong(
            "low, high = min(0, min(values)), max(0, max(values))\nscale = (high - low) / 255\nreturn scale, round(low / scale)",
            "sign of the zero point",
            "turns the zero point's sign round",
        ),
        Wrong("return max(abs(v) for v in values) / 127, 0", "symmetric", "takes the rule for weights"),
        Wrong(
            "low, high = min(0, min(values)), max(0, max(values))\nscale = (high - low) / 255\nreturn scale, -low / scale",
            "whole number",
            "does not round the zero point",
        ),
    ),
)
