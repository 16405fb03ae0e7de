"""What engines that make text token by token have in common: checks of the ids, the cached start, stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from labkit.core.errors import BadInput


def check_ids(tokens: Sequence[int], n_vocab: int, remedy: str) -> list[int]:
    """The ids that a request gave. Raises BadInput for one outside the vocabulary."""
    bad = [t for t in tokens if not 0 <= t < n_vocab]
    if bad:
        raise BadInput(f"token {bad[0]} is outside the vocabulary of {n_vocab}", remedy)
    return list(tokens)


def check_prompt(tokens: Sequence[int], context: int) -> None:
    """Raises BadInput for an empty prompt, and for one that leaves no room in the context."""
    if not tokens:
        raise BadInput("the prompt is empty", 'give a text: labkit chat MODEL "Why is the sky blue?"')
    if len(tokens) >= context:
        raise BadInput(f"the prompt has {len(tokens)} tokens, the context holds {context}", f"load it with context={2 * len(tokens)}")


def check_scored(tokens: Sequence[int], context: int) -> None:
    """Raises BadInput where a text to score is empty, or longer than the context."""
    if not 0 < len(tokens) <= context:
        raise BadInput(f"{len(tokens)} tokens do not fit a context of {context}", "give fewer tokens")


def same_start(wanted: Sequence[int], cached: Sequence[int], length: int) -> int:
    """How many cached tokens a prompt of `length` starts with; at least one of it is left to compute."""
    same = 0
    while same < min(len(wanted), len(cached), length - 1) and wanted[same] == cached[same]:
        same += 1
    return same


def cut(held: str, stops: Sequence[str]) -> tuple[str, str, bool]:
    """(text to give out, text held back because it may begin a stop string, did a stop string end it?)."""
    ends = [at for stop in stops if stop and (at := held.find(stop)) >= 0]
    if ends:
        return held[: min(ends)], "", True
    longest = max((n for stop in stops for n in range(1, min(len(stop), len(held)) + 1) if held.endswith(stop[:n])), default=0)
    return held[: len(held) - longest], held[len(held) - longest :], False
