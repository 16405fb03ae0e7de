"""How much do several requests at once get? Throughput of the engines of a comparison at 1, 2, 4, 8 requests at a time.

Bounded: so many requests for each level, so many tokens each, all of them answered before the next level; only endpoints on
this machine. An engine with a server answers each stream through a session of its own. An engine in this process has one
session, and its requests wait for each other: that is what a program that embeds the library gets.

Throughput is all output tokens divided by the time from the first request sent to the last token received.

>>> rows = versus_parallel.throughput(ring, make=lambda count, first: versus.prompts(ring, count, first=first))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from labkit import engines
from labkit.core.errors import BadInput
from labkit.core.records import Measurement
from labkit.measure import clock, versus

LEVELS = (1, 2, 4, 8)
_HERE = ("127.0.0.1", "localhost", "::1")


def throughput(
    ring: versus.Ring,
    make: Callable[[int, int], Sequence[versus.Prompt]],
    levels: Sequence[int] = LEVELS,
    least: int = 2,
    max_tokens: int = 16,
    repeats: int = 1,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """One row a level, engine and repeat: `engine parallel sessions requests output_tokens seconds tokens_per_s ttft_s_median ttft_s_max`.

    make: (count, first) -> that many prompts, all new for another `first`. A level gets as many
    requests as it has streams, and `least` at least.
    Raises: BadInput for an endpoint elsewhere, for answers of another length; RunFailed where an engine fails.
    """
    if not levels or min(levels) < 1 or max(levels) > 64:
        raise BadInput(f"{list(levels)} requests at once", "give 1 to 64, such as 1,2,4,8")
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        sessions = {name: stack.enter_context(several(one, max(levels), ring.limits)) for name, one in ring.contenders.items()}
        for name, one in ring.contenders.items():  # a warm-up
            at_once(one, sessions[name], make(1, 0), 1, max_tokens=1)
        for number, level in enumerate(levels):

            def case(name: str, level: int = level, number: int = number) -> Callable[[], dict[str, Any]]:
                turns = iter(range(1, repeats + 1))
                return lambda: at_once(
                    ring.contenders[name], sessions[name], make(max(level, least), 1000 * (number + 1) + next(turns)), level, max_tokens
                )

            found = clock.ab({name: case(name) for name in ring.contenders}, repeats=repeats, warmup=0, progress=progress)
            rows += [row for some in found.values() for row in some]
    return rows


def at_once(one: versus.Contender, sessions: Sequence[Any], some: Sequence[versus.Prompt], level: int, max_tokens: int) -> dict[str, Any]:
    """Answer all prompts, `level` at a time. One session: its streams go one after another, and waiting counts as waiting."""
    busy = threading.Lock() if len(sessions) == 1 else None
    queues = [some[n::level] for n in range(level)]
    ready = threading.Barrier(level + 1, timeout=60)
    marks: list[tuple[Measurement, int]] = []

    def work(number: int) -> None:
        mine = one._replace(session=sessions[number % len(sessions)])
        ready.wait()
        for prompt in queues[number]:
            asked = time.perf_counter_ns()
            if busy:
                with busy:
                    found = clock.one(mine.session, mine.request(prompt, max_tokens))
            else:
                found = clock.one(mine.session, mine.request(prompt, max_tokens))
            versus.check_counts(one.name, found, prompt, max_tokens)
            marks.append((found, asked))

    pool = ThreadPoolExecutor(level)
    try:
        waiting = [pool.submit(work, number) for number in range(level)]
        ready.wait()
        for future in waiting:
            future.result()
    finally:
        ready.abort()
        pool.shutdown(wait=True, cancel_futures=True)
    waits = [((m.marks_ns.first or m.marks_ns.start) - asked) / 1e9 for m, asked in marks]
    seconds = (max(m.marks_ns.last or 0 for m, _ in marks) - min(asked for _, asked in marks)) / 1e9
    tokens = sum(m.output_tokens or 0 for m, _ in marks)
    return {
        "engine": one.name,
        "includes_http": one.way.includes_http,
        "parallel": level,
        "sessions": min(level, len(sessions)),
        "requests": len(marks),
        "output_tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "ttft_s_median": float(np.median(waits)),
        "ttft_s_max": max(waits),
    }


@contextmanager
def several(one: versus.Contender, count: int, limits: dict[str, Any]) -> Iterator[list[Any]]:
    """`count` sessions on the server that an engine talks to, or the one session of an engine in this process."""
    url = getattr(one.session, "url", None)
    if url is None:
        yield [one.session]
        return
    if urlsplit(url).hostname not in _HERE:
        raise BadInput(
            f"{url} is not on this machine; parallel requests go to servers here only", "start a server here: labkit serve MODEL"
        )
    with ExitStack() as stack:
        more = [one.session]
        for _ in range(count - 1):
            session = engines.open(one.session.engine_name).load(one.session.model, url=url, **{key: limits[key] for key in one.way.joins})
            stack.callback(session.close)
            more.append(session)
        yield more
