"""Exercises of lab 00: from prompt to token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong, close

_VOCABULARY = 12  # tokens of the toy model that greedy_loop runs on
_PATIENCE = 200  # how often a loop may ask it for scores


# -- softmax(logits, temperature)


def _softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    weights = np.exp((logits - logits.max()) / temperature)
    return np.asarray(weights / weights.sum())


def _scores(draw: np.random.Generator) -> np.ndarray:
    return draw.normal(0, 2, int(draw.integers(4, 9)))


def _plain_softmax(answer: Any, draw: np.random.Generator) -> str | None:
    logits = _scores(draw)
    got, right = np.asarray(answer(logits.tolist(), 1.0), dtype=float), _softmax(logits, 1.0)
    if got.shape != right.shape:
        return "Give back one probability for each score, in the same order."
    if close(got, right):
        return None
    if not close(got.sum(), 1.0):
        return "Probabilities sum to 1. Divide each value by the sum of them all."
    return "Take exp() of every score first. Then divide each by the sum of them all."


def _with_temperature(answer: Any, draw: np.random.Generator) -> str | None:
    logits, temperature = _scores(draw), float(draw.choice([0.4, 0.6, 1.4, 2.5]))
    got, right = np.asarray(answer(logits.tolist(), temperature), dtype=float), _softmax(logits, temperature)
    if close(got, right):
        return None
    if close(got, _softmax(logits, 1.0)):
        return "The temperature changes nothing in your result. Divide the scores by it."
    if close(got, _softmax(logits, 1 / temperature)):
        return "You multiply the scores by the temperature. Divide them by it: a high temperature makes them more alike."
    if close(got, _softmax(logits, 1.0) / temperature) or close(got, _softmax(logits, 1.0) * temperature):
        return "The temperature comes before exp(): divide the scores by it, not the probabilities."
    return "Divide every score by the temperature before exp(). The rest stays the same."


def _large_scores(answer: Any, draw: np.random.Generator) -> str | None:
    logits = _scores(draw) + float(draw.integers(900, 2000))
    got = np.asarray(answer(logits.tolist(), 0.5), dtype=float)
    if close(got, _softmax(logits, 0.5)):
        return None
    if not np.all(np.isfinite(got)):
        return "exp() of a large score is too large for a computer. Subtract the largest score from all first: the result stays the same."
    return "With scores near 1,000 the result is wrong. Subtract the largest score from all of them before exp()."


_NORMED = "weights = np.exp(scores - scores.max())\nreturn weights / weights.sum()"

softmax = Exercise(
    "softmax",
    "Scores become probabilities",
    (
        Part(1, "temperature 1", _plain_softmax),
        Part(1, "other temperatures", _with_temperature),
        Part(1, "large scores", _large_scores),
    ),
    wrong=(
        Wrong("return np.exp(np.array(logits) / temperature)", "sum to 1", "forgets to divide by the sum"),
        Wrong("scores = np.array(logits) * temperature\n" + _NORMED, "multiply", "multiplies by the temperature"),
        Wrong("scores = np.array(logits)\n" + _NORMED, "changes nothing", "ignores the temperature"),
        Wrong("scores = np.array(logits)\n" + _NORMED + " / temperature", "before exp()", "divides the probabilities"),
        Wrong(
            "weights = np.exp(np.array(logits) / temperature)\nreturn weights / weights.sum()",
            "Subtract the largest",
            "overflows for large scores",
        ),
        Wrong("scores = np.array(logits) / temperature\nreturn scores / scores.sum()", "exp()", "leaves out exp()"),
    ),
)


# -- top_p_keep(probabilities, p)


def _top_p_case(draw: np.random.Generator) -> tuple[np.ndarray, float, int]:
    """Probabilities, best first, none far from the others; a p between two sums; how many tokens stay (2 to half of them)."""
    weights = np.sort(draw.uniform(0.3, 1.0, int(draw.integers(6, 9))))[::-1]
    probabilities = weights / weights.sum()
    stay = int(draw.integers(2, len(weights) // 2 + 1))
    sums = np.cumsum(probabilities)
    return probabilities, float((sums[stay - 2] + sums[stay - 1]) / 2), stay


def _top_p_hint(got: Any, probabilities: np.ndarray, p: float, stay: int) -> str | None:
    order = np.argsort(-probabilities)
    given = list(got)
    if any(isinstance(one, (bool, np.bool_)) for one in given):
        return "Give back positions such as [0, 2], not True and False."
    if any(float(one) != int(one) for one in given):
        return "Give back the positions of the tokens that stay (0 is the first), not their probabilities."
    found, right = sorted(int(one) for one in given), sorted(int(i) for i in order[:stay])
    if found == right:
        return None
    if found == sorted(int(i) for i in order[: stay - 1]):
        return "The token that takes the sum to p, or beyond it, stays too. You stop one token early."
    if found == [i for i, one in enumerate(probabilities) if one >= p]:
        return "p is no limit for one token. Add up the probabilities, best token first, until the sum together reaches p."
    if found == list(range(len(found))) and order[0] != 0:
        return "The list is not sorted. Begin with the most likely token, wherever it stands."
    if len(found) < len(order) and found == sorted(int(i) for i in order[::-1][: len(found)]):
        return "You begin with the least likely token. Begin with the most likely one."
    if len(found) > stay:
        return "Too many tokens stay. Stop as soon as the sum reaches p."
    return "Begin with the most likely token, add up, and stop as soon as the sum reaches p."


def _sorted_list(answer: Any, draw: np.random.Generator) -> str | None:
    probabilities, p, stay = _top_p_case(draw)
    return _top_p_hint(answer(probabilities.tolist(), p), probabilities, p, stay)


def _mixed_list(answer: Any, draw: np.random.Generator) -> str | None:
    probabilities, p, stay = _top_p_case(draw)
    # the least likely token stands first, so that a list taken as it comes always gives a wrong set
    mixed = np.concatenate([probabilities[-1:], draw.permutation(probabilities[:-1])])
    return _top_p_hint(answer(mixed.tolist(), p), mixed, p, stay)


_STOP = "    total += probabilities[i]\n    if total >= p:\n        break\n"
_ADD_UP = "kept, total = [], 0.0\nfor i in order:\n    kept.append(i)\n" + _STOP + "return kept"
_BEST_FIRST = "order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])\n"

top_p_keep = Exercise(
    "top_p_keep",
    "Which tokens stay?",
    (Part(1, "a sorted list", _sorted_list), Part(1, "a mixed list", _mixed_list)),
    wrong=(
        Wrong(
            _BEST_FIRST + "kept, total = [], 0.0\nfor i in order:\n" + _STOP + "    kept.append(i)\nreturn kept",
            "stays too",
            "drops the token that reaches p",
        ),
        Wrong("return [i for i, one in enumerate(probabilities) if one >= p]", "together", "takes p as a limit for each token"),
        Wrong("order = range(len(probabilities))\n" + _ADD_UP, "not sorted", "takes the tokens in the order of the list"),
        Wrong(_BEST_FIRST.replace("-prob", "prob") + _ADD_UP, "least likely", "sorts the wrong way round"),
        Wrong(_BEST_FIRST + _ADD_UP.replace("append(i)", "append(probabilities[i])"), "positions", "gives probabilities back"),
    ),
)


# -- greedy_loop(scores_of, prompt, max_tokens, end)


class _Toy:
    """A toy model: its scores depend on the last three tokens and on how many there are."""

    def __init__(self, draw: np.random.Generator) -> None:
        self.key = int(draw.integers(1 << 31))
        self.calls = 0
        self.end_after: int | None = None  # from this length on, the end token has the highest score

    def __call__(self, tokens: Sequence[int]) -> list[float]:
        self.calls += 1
        if self.calls > _PATIENCE:
            raise RuntimeError(f"the loop asked for scores more than {_PATIENCE} times: it never ends")
        ids = [int(token) for token in tokens]
        scores = np.random.default_rng([self.key, len(ids), *ids[-3:]]).normal(0, 1, _VOCABULARY)
        at_end = self.end_after is not None and len(ids) == self.end_after
        scores[0] = scores.max() + 1 if at_end else scores.min() - 1  # token 0 is the end token
        return [float(score) for score in scores]


def _run_toy(toy: Callable[[Sequence[int]], list[float]], prompt: list[int], max_tokens: int) -> list[int]:
    ids, new = list(prompt), list[int]()
    while len(new) < max_tokens:
        best = int(np.argmax(toy(ids)))
        if best == 0:
            break
        ids.append(best)
        new.append(best)
    return new


def _loop(answer: Any, draw: np.random.Generator, max_tokens: int, end_after: int | None) -> str | None:
    prompt = [int(token) for token in draw.integers(1, _VOCABULARY, 4)]
    toy = _Toy(draw)
    toy.end_after = None if end_after is None else len(prompt) + end_after
    right = _run_toy(toy, prompt, max_tokens)
    toy.calls = 0
    first = int(np.argmax(toy(prompt)))
    got = list(answer(toy, list(prompt), max_tokens, 0))
    if got == right:
        return None
    if any(float(one) != int(one) for one in got):
        return "Keep the position of the highest score, not the score itself. The position is the token's id."
    if got[: len(prompt)] == prompt:
        return "Give back the new tokens only, without the prompt."
    if got[: len(right)] == right and len(got) > len(right):
        return _too_long(got, right, end_after)
    if len(got) > 1 and set(got) == {first}:
        return "The same token comes again and again. Append each new token to what the model reads next."
    if got == right[: len(got)]:
        return f"Too few tokens: {len(got)} instead of {len(right)}. Go on until there are max_tokens of them."
    return "Give the model the whole text so far (the prompt and all new tokens), and take the token with the highest score."


def _too_long(got: list[Any], right: list[int], end_after: int | None) -> str:
    if end_after is None:
        return f"Too many tokens: {len(got)} instead of {len(right)}. Stop when there are max_tokens of them."
    if got == [*right, 0]:
        return "The end token says 'I have finished'. It is no part of the answer: stop before you keep it."
    return "Stop as soon as the end token has the highest score."


_READ = "new = []\nfor _ in range(max_tokens):\n    scores = scores_of(prompt + new)\n    best = scores.index(max(scores))\n"
_END = "    if best == end:\n        break\n"
_KEEP = "    new.append(best)\n"

greedy_loop = Exercise(
    "greedy_loop",
    "The loop that writes",
    (
        Part(1, "one token", lambda answer, draw: _loop(answer, draw, 1, None)),
        Part(1, "several tokens", lambda answer, draw: _loop(answer, draw, int(draw.integers(4, 9)), None)),
        Part(1, "the end token", lambda answer, draw: _loop(answer, draw, 12, int(draw.integers(2, 7)))),
    ),
    wrong=(
        Wrong(_READ.replace("prompt + new", "prompt") + _END + _KEEP + "return new", "Append each new", "never reads what it wrote"),
        Wrong(_READ + _KEEP + "return new", "as soon as the end token", "does not stop at the end token"),
        Wrong(_READ + _KEEP + _END + "return new", "no part of the answer", "keeps the end token"),
        Wrong(
            _READ.replace("scores.index(max(scores))", "max(scores)") + _KEEP + "return new",
            "not the score itself",
            "takes the score for the token",
        ),
        Wrong(_READ + _END + _KEEP + "return prompt + new", "without the prompt", "gives the prompt back too"),
        Wrong(
            _READ.replace("prompt + new", "(new or prompt)[-1:]") + _END + _KEEP + "return new",
            "whole text so far",
            "reads only the last token",
        ),
        Wrong(
            _READ.replace("max_tokens)", "max_tokens + 1)") + _END + _KEEP + "return new", "Too many tokens", "writes one token too many"
        ),
    ),
)


# -- tokens_to_compute(cached, prompt)


def _reuse_hint(got: Any, cached: list[int], prompt: list[int]) -> str | None:
    same = 0
    while same < min(len(cached), len(prompt)) and cached[same] == prompt[same]:
        same += 1
    right = max(1, len(prompt) - same)
    if close(got, right):
        return None
    if same == len(prompt) and close(got, 0):
        return "At least one token must be read: without reading one, the model gives no new scores."
    if close(got, same):
        return "That is how many tokens the cache saves. The question is how many are left to compute."
    if close(got, max(1, len(prompt) - sum(a == b for a, b in zip(cached, prompt, strict=False)))):
        return "Only the beginning counts. Stop at the first token that differs: everything after it must be computed again."
    if close(got, max(1, sum(token not in cached for token in prompt))):
        return "A token counts as cached only at the same position, after the same beginning. Compare one place after the other."
    if close(got, len(prompt) - len(cached)):
        return "The cache may hold another text. Find the first place where the two lists differ."
    return "Count how many tokens the two lists share from the start. The prompt's other tokens must be computed."


def _cached(draw: np.random.Generator) -> list[int]:
    return [int(token) for token in draw.integers(0, 50, int(draw.integers(24, 60)))]


def _longer_prompt(answer: Any, draw: np.random.Generator) -> str | None:
    cached = _cached(draw)
    known, new = draw.choice(cached, int(draw.integers(2, 9))), draw.integers(50, 99, 3)
    prompt = cached + [int(token) for token in (*known, *new)]
    return _reuse_hint(answer(list(cached), list(prompt)), cached, prompt)


def _changed_prompt(answer: Any, draw: np.random.Generator) -> str | None:
    cached = _cached(draw)
    at = int(draw.integers(10, len(cached) - 6))
    # one token differs in the middle; what follows is the same again, and then five known tokens more
    prompt = [*cached[:at], cached[at] + 50, *cached[at + 1 :], *(int(token) for token in draw.choice(cached, 5))]
    return _reuse_hint(answer(list(cached), list(prompt)), cached, prompt)


def _same_prompt(answer: Any, draw: np.random.Generator) -> str | None:
    cached = _cached(draw)
    return _reuse_hint(answer(list(cached), list(cached)), cached, cached)


_COMPARE = "same = 0\nwhile same < min(len(cached), len(prompt)) and cached[same] == prompt[same]:\n    same += 1\n"

tokens_to_compute = Exercise(
    "tokens_to_compute",
    "What the KV cache saves",
    (
        Part(1, "a longer prompt", _longer_prompt),
        Part(1, "a prompt that differs in the middle", _changed_prompt),
        Part(1, "the same prompt again", _same_prompt),
    ),
    wrong=(
        Wrong("return max(1, len(prompt) - len(cached))", "first place where", "takes for granted that the cache fits"),
        Wrong(
            "return max(1, len(prompt) - sum(a == b for a, b in zip(cached, prompt)))",
            "Only the beginning counts",
            "goes on after the first difference",
        ),
        Wrong("return max(1, len([token for token in prompt if token not in cached]))", "same position", "looks for tokens anywhere"),
        Wrong(_COMPARE + "return same", "left to compute", "gives what is saved"),
        Wrong(_COMPARE + "return len(prompt) - same", "At least one", "computes nothing for the same prompt"),
    ),
)
