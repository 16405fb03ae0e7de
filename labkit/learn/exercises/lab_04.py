"""The exercises of lab 04: bits per weight, perplexity, KL divergence, and a rung under a budget with ties."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong, factor, likely_mistake
from labkit.learn.exercises.lab_04_choice import choose_rung

__all__ = ["bits_per_weight", "choose_rung", "kl_divergence", "perplexity"]

# -- bits per weight

_BLOCKS = {"F16": (1, 2), "Q8_0": (32, 34), "Q5_0": (32, 22), "Q4_0": (32, 18), "Q4_1": (32, 20)}  # weights and bytes a block


def _tensors(rng: Any) -> list[dict[str, Any]]:
    """A small model's tensor table: matrices in several formats, and norms with one dimension in F32."""
    width = 32 * int(rng.integers(4, 20))
    rows = []
    for n in range(int(rng.integers(4, 9))):
        kind = str(rng.choice(list(_BLOCKS)))
        shape = (width, 32 * int(rng.integers(3, 60)))
        block, size = _BLOCKS[kind]
        rows.append({"name": f"blk.{n}.weight", "type": kind, "shape": shape, "bytes": math.prod(shape) // block * size})
        rows.append({"name": f"blk.{n}.norm", "type": "F32", "shape": (width,), "bytes": 4 * width})
    return rows


def _bits(answer: Any, rng: Any) -> str | None:
    rows = _tensors(rng)
    weights, stored = [math.prod(r["shape"]) for r in rows], [r["bytes"] for r in rows]
    right = 8 * sum(stored) / sum(weights)
    matrices = [(w, b) for w, b, r in zip(weights, stored, rows, strict=True) if len(r["shape"]) > 1]
    likely = (
        (right / 8, "That is bytes per weight. A byte has eight bits."),
        (1 / right, "That is turned over: the bits go on top, the weights below."),
        (
            float(np.mean([8 * b / w for w, b in zip(weights, stored, strict=True)])),
            "Every tensor counts the same in a plain mean. Add up all bits and all weights first, then divide once.",
        ),
        (8 * sum(stored) / sum(r["shape"][0] for r in rows), "shape[0] is the length of one row. A tensor has the product of its shape."),
        (8 * sum(b for _, b in matrices) / sum(w for w, _ in matrices), "The tensors with one dimension are in the file as well."),
        (8 * sum(stored) / len(rows), "Divide by the number of weights, not by the number of tensors."),
    )
    return likely_mistake(answer([dict(r) for r in rows]), right, "All bits of the file divided by all its weights.", values=likely)


bits_per_weight = Exercise(
    "bits_per_weight",
    "Bits per weight of a whole file",
    (Part(2, "some tensor tables", _bits),),
    (
        Wrong(
            'return sum(8 * t["bytes"] / math.prod(t["shape"]) for t in tensors) / len(tensors)',
            "plain mean",
            "averages over the tensors, so that a tiny norm weighs as much as the largest matrix",
        ),
        Wrong(
            'return sum(t["bytes"] for t in tensors) / sum(math.prod(t["shape"]) for t in tensors)',
            "eight bits",
            "answers in bytes per weight",
        ),
        Wrong(
            'return 8 * sum(t["bytes"] for t in tensors) / sum(t["shape"][0] for t in tensors)', "product", "takes one side of each matrix"
        ),
        Wrong('return 8 * sum(t["bytes"] for t in tensors) / len(tensors)', "number of tensors", "divides by the tensors"),
    ),
)


# -- perplexity


def _logprobs(low: int, high: int) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        logs = -rng.exponential(2.5, size=int(rng.integers(low, high)))
        mean = float(np.mean(logs))
        given, right = answer(logs.tolist()), math.exp(-mean)
        if (ratio := factor(given, 1.0)) is None and not isinstance(given, (list, dict, str)):
            return "The result is not finite: so many probabilities multiplied are too small for a computer. Add their logarithms instead."
        if ratio == 0.0 and right > 0:
            return "The result is 0: so many probabilities multiplied are too small for a computer. Add their logarithms instead."
        likely = (
            (math.exp(mean), "That is below 1. A logarithm of a probability is negative: there is a minus missing."),
            (-mean, "That is the mean loss. Perplexity is exp of it."),
            (float(np.mean(np.exp(-logs))), "That is the mean of exp. Take the mean of the logarithms first, and exp of that mean."),
            (1 / float(np.mean(np.exp(logs))), "That averages the probabilities. Average their logarithms."),
            (2**-mean, "These are natural logarithms, so the base is e, not 2."),
        )
        return likely_mistake(given, right, "exp of minus the mean of the logarithms.", values=likely)

    return test


perplexity = Exercise(
    "perplexity",
    "Perplexity from log-probabilities",
    (Part(1, "a short text", _logprobs(3, 9)), Part(1, "a long text", _logprobs(3000, 6000))),
    (
        Wrong("return math.exp(sum(logprobs) / len(logprobs))", "minus missing", "forgets the sign"),
        Wrong("return sum(math.exp(-x) for x in logprobs) / len(logprobs)", "mean of exp", "averages after exp instead of before"),
        Wrong("return -sum(logprobs) / len(logprobs)", "mean loss", "stops at the mean loss"),
        Wrong(
            "import numpy as np\nreturn np.prod(np.exp(logprobs)) ** (-1 / len(logprobs))",
            "Add their logarithms",
            "multiplies the probabilities, which are soon too small for a float",
        ),
        Wrong("return 2 ** (-sum(logprobs) / len(logprobs))", "base is e", "takes another base than the logarithms have"),
    ),
)


# -- KL divergence


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def _divergence(spread: float, shift: float) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        reference = rng.normal(shift, spread, size=int(rng.integers(50, 400)))
        other = reference + rng.normal(0.3 * shift, 0.4, size=len(reference))
        log_p, log_q = _log_softmax(reference), _log_softmax(other)
        p, q = np.exp(log_p), np.exp(log_q)
        given, right = answer(reference.copy(), other.copy()), float((p * (log_p - log_q)).sum())
        if np.size(given) > 1:
            return "The result is one number: the sum over the vocabulary."
        if factor(given, 1.0) is None:
            return "The result is not finite: exp of a large logit overflows. Subtract the maximum of the logits first."
        likely = (
            (float((q * (log_q - log_p)).sum()), "That is the other way round: the reference's probabilities do the weighting."),
            (-right, "The sign is turned: it is log p minus log q, and the result is never negative."),
            (right / len(p), "That is the mean over the vocabulary. It is a sum: the probabilities are the weights already."),
            (right / math.log(2), "That is in bits. Use the natural logarithm, as llama.cpp does."),
            (-float((p * log_q).sum()), "That is the cross-entropy. Subtract the entropy of the reference: use log p minus log q."),
            (
                float((p * (reference - other)).sum()),
                "Logits are no logarithms of probabilities yet: subtract log of the sum of exp from each.",
            ),
            (float(np.abs(p - q).sum()), "That adds up differences of probabilities. KL weights the difference of their logarithms."),
        )
        return likely_mistake(given, right, "The sum of p * (log p - log q) over the vocabulary.", values=likely)

    return test


kl_divergence = Exercise(
    "kl_divergence",
    "KL divergence of two sets of logits",
    (Part(2, "ordinary logits", _divergence(2.0, 1.0)), Part(1, "large logits", _divergence(3.0, 900.0))),
    (
        Wrong(
            "p, q = np.exp(reference), np.exp(other)\np, q = p / p.sum(), q / q.sum()\nreturn float((p * np.log(p / q)).sum())",
            "Subtract the maximum",
            "takes exp of the logits as they are, which overflows",
        ),
        Wrong(
            "p, q = reference - reference.max(), other - other.max()\n"
            "log_p, log_q = p - np.log(np.exp(p).sum()), q - np.log(np.exp(q).sum())\n"
            "return float((np.exp(log_q) * (log_q - log_p)).sum())",
            "other way round",
            "swaps the two models",
        ),
        Wrong(
            "p, q = reference - reference.max(), other - other.max()\n"
            "log_p, log_q = p - np.log(np.exp(p).sum()), q - np.log(np.exp(q).sum())\n"
            "return float((np.exp(log_p) * (log_p - log_q)).mean())",
            "It is a sum",
            "takes the mean over the vocabulary",
        ),
        Wrong(
            "p = np.exp(reference - reference.max())\np = p / p.sum()\nreturn float((p * (reference - other)).sum())",
            "Logits are no logarithms",
            "takes logits for logarithms of probabilities",
        ),
    ),
)
