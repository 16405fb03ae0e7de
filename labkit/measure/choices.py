"""Multiple choice by likelihood: which ending does the model find likeliest? No text is generated or parsed.

An item is `{"id": …, "context": "The capital of France is", "choices": [" Paris", " Rome"], "answer": 0}`; a choice
brings its own space or line break. What is compared is ln p(choice | context), as a sum, which favours short choices,
and per byte of the choice, which does not. Where tokens run across the border between context and choice, all of an
item's choices are scored from the last token that they have in common.

A few dozen items separate only large differences: `accuracy` gives the interval (Wilson's) and the level of chance.

>>> rows = choices(session, items)
>>> accuracy(rows).low, accuracy(rows).chance
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from labkit.core.errors import BadInput
from labkit.measure import compare, logits

_FORM = 'an item is {"id": …, "context": "…", "choices": ["…", "…"], "answer": 0}'


class Accuracy(NamedTuple):
    """Share of right answers, its 95 % interval, and what guessing would get."""

    right: int
    n: int
    accuracy: float
    low: float
    high: float
    chance: float


def choices(session: Any, items: Iterable[dict[str, Any]], progress: bool = True) -> list[dict[str, Any]]:
    """One row an item: `id answer picked picked_per_byte right right_per_byte log_likelihoods per_byte chance`.

    `picked` goes by the sum of ln p (nats), `picked_per_byte` by that sum over the choice's UTF-8 bytes.
    Raises BadInput: an item of another form, or longer than the session's context.
    """
    checked = [_item(item, number) for number, item in enumerate(items, 1)]
    return [_row(session, item) for item in tqdm(checked, desc="choices", unit="item", leave=False, disable=not progress)]


def accuracy(rows: Sequence[dict[str, Any]], key: str = "right") -> Accuracy:
    """`key` is "right" or "right_per_byte". Raises BadInput for no rows."""
    if not rows:
        raise BadInput("there are no answers to count", _FORM)
    right, n = sum(bool(row[key]) for row in rows), len(rows)
    low, high = wilson(right, n)
    return Accuracy(right, n, right / n, low, high, float(np.mean([row["chance"] for row in rows])))


def wilson(right: int, n: int, z: float = compare.Z) -> tuple[float, float]:
    """Interval of a share, sound also near 0 and 1 (Wilson 1927): (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)."""
    if not 0 <= right <= n or n < 1:
        raise BadInput(f"{right} of {n} is no share", "count the right answers again")
    p, scale = right / n, 1 + z * z / n
    middle, half = (p + z * z / (2 * n)) / scale, z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def log_likelihoods(session: Any, context: str, endings: Sequence[str]) -> list[float]:
    """ln p(ending | context) of each ending, in nats."""
    bos = getattr(session, "bos", None)
    front = [] if bos is None else [bos]
    whole = [front + list(session.tokenize(context + ending)) for ending in endings]
    common = _common([front + list(session.tokenize(context)), *whole])
    common = min(common, *(len(ids) - 1 for ids in whole))  # each has a token of its own to be judged by
    if common < 1:
        raise BadInput(f"nothing comes before {endings[0]!r}, and this model has no token for the start of a text", "give a context")
    longest, limit = max(map(len, whole)) - 1, getattr(session, "context", None)
    if limit and longest > limit:
        raise BadInput(f"an item has {longest} tokens, the context holds {limit}", f"load the model with context={longest}")
    found = []
    for ids in whole:
        logs = [logits.log_softmax(block) for block in logits.blocks(session, ids[:-1], start=common - 1)]
        targets = np.asarray(ids[common:])
        found.append(float(np.concatenate(logs)[np.arange(len(targets)), targets].sum()))
    return found


def _row(session: Any, item: dict[str, Any]) -> dict[str, Any]:
    sums = log_likelihoods(session, item["context"], item["choices"])
    per_byte = [value / len(choice.encode()) for value, choice in zip(sums, item["choices"], strict=True)]
    picked, fair = int(np.argmax(sums)), int(np.argmax(per_byte))
    return {
        "id": item["id"],
        "answer": item["answer"],
        "picked": picked,
        "picked_per_byte": fair,
        "right": picked == item["answer"],
        "right_per_byte": fair == item["answer"],
        "log_likelihoods": sums,
        "per_byte": per_byte,
        "chance": 1 / len(sums),
    }


def _item(item: dict[str, Any], number: int) -> dict[str, Any]:
    lacking = [key for key in ("id", "context", "choices", "answer") if key not in item]
    if lacking:
        raise BadInput(f"item {number} has no {lacking[0]}", _FORM)
    offered, answer = item["choices"], item["answer"]
    if not isinstance(offered, list) or len(offered) < 2 or not all(isinstance(c, str) and c for c in offered):
        raise BadInput(f"item {item['id']} needs two or more choices, each a text", _FORM)
    if not isinstance(answer, int) or not 0 <= answer < len(offered):
        raise BadInput(f"item {item['id']}: its answer {answer!r} is not one of 0 to {len(offered) - 1}", _FORM)
    return item


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all start with."""
    count = 0
    for tokens in zip(*rows, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count
