"""The exercises of lab 11: a model's id, the tokens that a conversation makes a server read, requests that share a processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong, likely_mistake
from labkit.learn.foundry_view import queued_finish, shared_finish

_WORDS = ("harbour", "phi-4-mini", "qwen2.5-0.5b", "ships_v2", "Book.Master")
_DEVICES = ("generic-cpu", "cuda-gpu", "qnn-npu")

# -- the version in an id


def _a_name(rng: Any) -> str:
    return f"{rng.choice(_WORDS)}-{rng.choice(_DEVICES)}"


def _good(answer: Any, rng: Any) -> str | None:
    name = _a_name(rng)
    for version in (int(rng.choice([3, 10, 27])), 0):
        given = answer(f"{name}:{version}")
        if isinstance(given, str):
            return "The version is a number: turn the text into an int."
        if given == -1:
            return (
                "Version 0 is a version too: Foundry Local takes it." if version == 0 else f"{name}:{version} is a good id; you refuse it."
            )
        if given != version:
            return "The version is the number behind the colon."
    return None


def _bad(answer: Any, rng: Any) -> str | None:
    name = _a_name(rng)
    for id, hint in (
        (name, "Without a colon there is no version: that id is refused."),
        (f"{name}:latest", "`latest` is no number: Foundry Local has no such version, so that id is refused."),
        (f"{name}:0{int(rng.integers(1, 9))}", "A version is written in one way only: 03 is refused, 3 is taken."),
        *((f"{name}:{sign}{int(rng.integers(2, 9))}", "A version is written with digits only: no sign before them.") for sign in "-+"),
        (f"{name}:", "Nothing after the colon: no version, so that id is refused."),
    ):
        if answer(id) != -1:
            return hint
    return None


version_of = Exercise(
    "version_of",
    "The version in a model's id",
    (Part(1, "good ids", _good), Part(1, "ids that are refused", _bad)),
    (
        Wrong('return id.partition(":")[2]', "turn the text into an int", "leaves the version as text"),
        Wrong(
            'version = id.partition(":")[2]\nreturn int(version) if version.isdigit() else -1',
            "in one way only",
            "takes a version with a leading zero",
        ),
        Wrong(
            'version = id.partition(":")[2]\nreturn int(version) if version.isdigit() and int(version) else -1',
            "Version 0",
            "takes 0 for no version",
        ),
        Wrong(
            'version = id.partition(":")[2].lstrip("+-")\n'
            "return int(version) if version.isdigit() and version == str(int(version)) else -1",
            "digits only",
            "takes a version with a sign",
        ),
        Wrong(
            'version = id.partition(":")[2]\nreturn 1 if version in ("", "latest") else int(version)',
            "there is no version",
            "takes a missing version for the first",
        ),
    ),
)


# -- tokens read in a conversation


def _read(turns: Sequence[tuple[int, int]], kept: bool) -> int:
    if kept:
        return sum(question for question, _ in turns)
    return sum(sum(q + a for q, a in turns[:n]) + turns[n][0] for n in range(len(turns)))


def _tokens(kept: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        turns = [(int(rng.integers(20, 90)), int(rng.integers(5, 60))) for _ in range(int(rng.integers(3, 6)))]
        given, right = answer(turns, kept), _read(turns, kept)
        questions, everything = sum(q for q, _ in turns), sum(q + a for q, a in turns)
        no_answers = sum(sum(q for q, _ in turns[: n + 1]) for n in range(len(turns)))
        with_last = sum(sum(q + a for q, a in turns[: n + 1]) for n in range(len(turns)))
        likely = (
            (_read(turns, False), "You have the two ways the wrong way round: what is kept need not be read again."),
            (
                everything,
                "The answers are in the cache already: the model made them itself."
                if kept
                else "Each turn reads all the turns before it again: the first question is read in every turn.",
            ),
            (questions, "Without a kept cache each turn reads everything before it again: add up over the turns."),
            (no_answers, "The earlier answers are sent again too, and read as part of the prompt."),
            (with_last, "A turn's own answer is not part of its prompt: it comes after it."),
            (everything - turns[-1][1], "That is what the last turn alone reads. Add up over all turns."),
        )
        return likely_mistake(
            given, right, "Kept: only the new questions. Not kept: in each turn all that came before, and the question.", values=likely
        )

    return test


tokens_read = Exercise(
    "tokens_read",
    "Tokens that a conversation makes the model read",
    (Part(1, "the cache is kept", _tokens(True)), Part(1, "everything is sent anew", _tokens(False))),
    (
        Wrong("return sum(question for question, answer in turns)", "reads everything before it again", "forgets that nothing is kept"),
        Wrong(
            "if kept:\n    return sum(question + answer for question, answer in turns)\n"
            "return sum(sum(q + a for q, a in turns[:n]) + turns[n][0] for n in range(len(turns)))",
            "made them itself",
            "reads the model's own answers again",
        ),
        Wrong(
            "if kept:\n    return sum(question for question, answer in turns)\n"
            "return sum(sum(q for q, a in turns[:n + 1]) for n in range(len(turns)))",
            "earlier answers",
            "forgets the answers in the history",
        ),
        Wrong(
            "if kept:\n    return sum(question for question, answer in turns)\n"
            "return sum(sum(q + a for q, a in turns[:n + 1]) for n in range(len(turns)))",
            "not part of its prompt",
            "counts a turn's own answer as read",
        ),
        Wrong(
            "if not kept:\n    return sum(question for question, answer in turns)\n"
            "return sum(sum(q + a for q, a in turns[:n]) + turns[n][0] for n in range(len(turns)))",
            "wrong way round",
            "swaps the two ways",
        ),
    ),
)


# -- requests that share a processor


def _times(rng: Any, equal: bool) -> list[float]:
    """Seconds of some requests alone, in no order; at least a tenth of a second apart unless equal."""
    count = int(rng.integers(3, 6))
    if equal:
        return [round(float(rng.uniform(0.5, 3)), 2)] * count
    steps = np.round(np.cumsum(rng.uniform(0.3, 1.2, count)), 2)
    while True:
        mixed = [float(t) for t in rng.permutation(steps)]
        if mixed != sorted(mixed):
            return mixed


def _finished(equal: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        alone = _times(rng, equal)
        given, right = [float(t) for t in answer(list(alone))], shared_finish(alone)
        count, total = len(alone), sum(alone)
        likely = (
            (sorted(right), "These are the right times, sorted. Give them in the order of the requests."),
            (alone, "They would all have to have a processor of their own. Here they share one."),
            (queued_finish(alone), "That is a queue: one after another. Here all of them run from the start, each at its share."),
            ([total] * count, "Only the longest request ends last. A short one is done earlier."),
            (
                [count * t for t in alone],
                "When a short request is done, the others get its share: they do not stay that slow.",
            ),
        )
        close = len(given) == count
        for value, hint in likely:
            if close and not np.allclose(value, right) and np.allclose(given, value):
                return hint
        hint = "While k requests run, each gets 1/k of the speed. Go from one end to the next: the shortest is done first."
        return likely_mistake(np.array(given), np.array(right), hint)

    return test


finish_times = Exercise(
    "finish_times",
    "When requests that share a processor are done",
    (Part(1, "requests of equal length", _finished(True)), Part(2, "requests of different lengths", _finished(False))),
    (
        Wrong("return list(alone)", "processor of their own", "takes the times alone"),
        Wrong("return [sum(alone[:n + 1]) for n in range(len(alone))]", "a queue", "takes them one after another"),
        Wrong("return [len(alone) * t for t in alone]", "others get its share", "keeps every share as small as at the start"),
        Wrong("return [sum(alone)] * len(alone)", "short one is done earlier", "lets all end together"),
        Wrong(
            "return sorted(sum(min(t, other) for other in alone) for t in alone)",
            "order of the requests",
            "loses the order",
        ),
    ),
)
