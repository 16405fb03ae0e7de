"""Stop strings, for engines that make text token by token."""

from __future__ import annotations

from collections.abc import Sequence


def cut(held: str, stops: Sequence[str]) -> tuple[str, str, bool]:
    """(text to give out, text held back because it may begin a stop string, did a stop string end it?)."""
    ends = [at for stop in stops if stop and (at := held.find(stop)) >= 0]
    if ends:
        return held[: min(ends)], "", True
    longest = max((n for stop in stops for n in range(1, min(len(stop), len(held)) + 1) if held.endswith(stop[:n])), default=0)
    return held[: len(held) - longest], held[len(held) - longest :], False
