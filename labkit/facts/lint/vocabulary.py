"""The tables in data/lint, and how far a word is from the words in them.

>>> nearest("num_cxt", ["num_ctx", "num_gpu"])
'num_ctx'
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable
from typing import Any

from labkit.core import paths


@functools.cache
def table(name: str) -> dict[str, Any]:
    """One table of data/lint, by its stem."""
    return tomllib.loads(paths.data("lint", f"{name}.toml").read_text(encoding="utf-8"))


def names() -> list[str]:
    return sorted(path.stem for path in paths.data("lint").glob("*.toml"))


def distance(one: str, other: str, limit: int = 3) -> int:
    """Letters to insert, drop, change or swap with their neighbour (optimal string alignment); more than `limit` counts as limit + 1."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    # what both begin and end with does not count
    while one and other and one[0] == other[0]:
        one, other = one[1:], other[1:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    if not one or not other:
        return min(max(len(one), len(other)), limit + 1)
    far, width = limit + 1, len(other)
    before = [far] * (width + 1)
    row = [j if j <= limit else far for j in range(width + 1)]
    for i, a in enumerate(one, 1):
        last, before, row = before, row, [far] * (width + 1)
        if i <= limit:
            row[0] = i
        least = row[0]
        # only cells near the diagonal can stay within the limit
        for j in range(max(1, i - limit), min(width, i + limit) + 1):
            b = other[j - 1]
            cost = before[j - 1] + (a != b)
            if before[j] + 1 < cost:
                cost = before[j] + 1
            if row[j - 1] + 1 < cost:
                cost = row[j - 1] + 1
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b and last[j - 2] + 1 < cost:
                cost = last[j - 2] + 1
            row[j] = cost
            if cost < least:
                least = cost
        if least > limit:
            return far
    return min(row[-1], far)


@functools.cache
def _letters(word: str) -> int:
    """Which letters a word has, as bits."""
    bits = 0
    for letter in word:
        bits |= 1 << (ord(letter) % 128)
    return bits


def nearest(word: str, known: Iterable[str], limit: int | None = None) -> str | None:
    """The known word that `word` is most likely a slip of, or None: one slip in a short word, two in one of 12 letters or more."""
    allowed = limit if limit is not None else (2 if len(word) >= 12 else 1 if len(word) >= 3 else 0)
    mine = _letters(word)
    # one slip changes at most two of the letters that a word has: most words need no closer look
    close = [other for other in known if abs(len(other) - len(word)) <= allowed and (mine ^ _letters(other)).bit_count() <= 2 * allowed]
    found = [(distance(word, other, allowed), other) for other in close]
    best = min(found, default=(allowed + 1, ""))
    return best[1] if 0 < best[0] <= allowed else None


@functools.cache
def routes(server: str) -> dict[str, list[str]]:
    return table(server).get("routes", {})


@functools.cache
def _patterns(server: str) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(route)) + "$"), route) for route in routes(server)]


def route(server: str, path: str) -> str | None:
    """The known route that a path belongs to: the route itself, or a folder of routes."""
    bare = path.rstrip("/") or "/"
    if bare in routes(server):
        return bare
    for pattern, name in _patterns(server):
        # model names hold slashes; a name in curly braces may stand for several parts
        if pattern.match(bare) or ("{" in name and bare.startswith(name.partition("{")[0]) and bare != name.partition("{")[0].rstrip("/")):
            return name
    if bare.count("/") == 1 and any(name.startswith(bare + "/") for name in routes(server)):
        return bare  # /v1, /api: a base address
    return None


def near_route(server: str, path: str) -> str | None:
    """The route that a path is a slip of."""
    meant = table(server).get("routes_meant", {})
    bare = path.rstrip("/") or "/"
    return meant.get(bare) or nearest(bare, [name for name in routes(server) if len(name) > 2], 2)


def source(name: str) -> str:
    """A table's source with its version and date."""
    rows = table(name)
    return f"{rows['source']} ({rows['version']}, {rows['date']})"
