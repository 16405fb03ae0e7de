"""A model's scores for the next token, in blocks of bounded size, and what can be said of them.

>>> for block in blocks(session, tokens, start=255):    # float32 [positions, vocabulary], positions 255, 256, …
...     surprise = -log_softmax(block)
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_BLOCK_VALUES = 1 << 22  # scores worked on at once: 32 MB in float64


def blocks(session: Any, tokens: Sequence[int], start: int = 0) -> Iterator[np.ndarray]:
    """Logits from position `start` on; a scorer that cannot leave the others out computes them for nothing."""
    if "start" in inspect.signature(session.logits).parameters:
        positions = iter(session.logits(tokens, start=start))
    else:
        positions = itertools.islice(session.logits(tokens), start, None)
    for first in positions:
        yield np.stack([first, *itertools.islice(positions, rows(len(first)) - 1)])


def rows(vocabulary: int) -> int:
    """Positions in a block."""
    return max(1, _BLOCK_VALUES // vocabulary)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """ln of the probabilities, row by row, in float64: x - max - ln(sum(exp(x - max)))."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x


def divergence(reference: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """KL divergence in nats, row by row, of log probabilities from a reference's: sum p_ref (ln p_ref - ln p)."""
    p = np.exp(reference)
    terms = np.zeros_like(p)
    np.multiply(p, reference - logs, out=terms, where=p > 0)
    return np.asarray(terms.sum(axis=1))


def mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error as llama.cpp's tool has it: sqrt((mean of squares - square of mean) / (n - 1))."""
    return float(values.mean()), float(values.std() / np.sqrt(max(1, len(values) - 1)))
