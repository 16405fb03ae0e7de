"""The only clock. Marks come from perf_counter_ns around a session's stream; warm-up, repeats and turns are here too.

A machine's speed drifts, so things to compare run in turn (A B A B …), and a figure comes with its spread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from labkit.core import machine
from labkit.core.records import Chunk, Marks, Measurement, Request
from labkit.engines import Session
from labkit.models import sha256_of


class Spread(NamedTuple):
    """A figure from n repeats: median and a bootstrap interval of the median (95 %)."""

    median: float
    low: float
    high: float
    n: int


def one(session: Session, request: Request, on_text: Callable[[str], None] | None = None) -> Measurement:
    """Stream one request and measure it. `on_text` is called with each piece of text."""
    texts: list[str] = []
    marks: list[int] = []
    counts: list[int | None] = []
    start = time.perf_counter_ns()
    for chunk in session.stream(request):
        mark = time.perf_counter_ns()
        if chunk.text or chunk.tokens:
            marks.append(mark)
            counts.append(chunk.tokens)
            texts.append(chunk.text)
            if on_text:
                on_text(chunk.text)
    return _record(session, request, start, marks, counts, "".join(texts))


def tell(session: Session, request: Request) -> Iterator[str]:
    """The text pieces of a stream, without measuring."""
    chunks: Iterable[Chunk] = session.stream(request)
    return (chunk.text for chunk in chunks if chunk.text)


def run(session: Session, request: Request, repeats: int = 5, warmup: int = 1, progress: bool = False) -> list[Measurement]:
    """Measure a request `repeats` times after `warmup` runs that do not count."""
    for _ in range(warmup):
        one(session, request)
    rounds = tqdm(range(repeats), desc="measuring", leave=False, disable=not progress)
    return [one(session, request) for _ in rounds]


def ab(cases: dict[str, Callable[[], Any]], repeats: int = 5, warmup: int = 1, progress: bool = False) -> dict[str, list[Any]]:
    """Run several cases in turn, `repeats` rounds; the order is reversed every other round. What each returned, by name."""
    for _ in range(warmup):
        for case in cases.values():
            case()
    out: dict[str, list[Any]] = {name: [] for name in cases}
    for turn in tqdm(range(repeats), desc="in turn", leave=False, disable=not progress):
        for name in list(cases)[:: 1 if turn % 2 == 0 else -1]:
            out[name].append(cases[name]())
    return out


def sweep_threads(session: Any, request: Request, threads: Sequence[int], repeats: int = 3, progress: bool = False) -> list[Measurement]:
    """Measure a request at several thread counts, in turn on one loaded model. Needs an engine that can change threads."""

    def case(count: int) -> Callable[[], Measurement]:
        def measure() -> Measurement:
            session.set_threads(count)
            return one(session, request)

        return measure

    before = session.threads
    try:
        found = ab({str(n): case(n) for n in threads}, repeats=repeats, progress=progress)
    finally:
        session.set_threads(before)
    return [m for rows in found.values() for m in rows]


def best_threads(session: Any, request: Request, repeats: int = 3) -> int:
    """The thread count with the best median decode rate: 1, 2, 4, … up to the cores this process may use."""
    cores = machine.cores()
    counts = sorted({*(2**i for i in range(cores.bit_length()) if 2**i <= cores), cores})
    if len(counts) == 1:
        return counts[0]
    found = sweep_threads(session, request, counts, repeats)
    return max(counts, key=lambda n: float(np.median([m.decode_tokens_per_s or 0 for m in found if m.threads == n])))


def spread(values: Iterable[float | None], seed: int = 0) -> Spread | None:
    """Median with a 95 % bootstrap interval (2,000 resamples); None where nothing is known."""
    known = np.array([v for v in values if v is not None], dtype=float)
    if not len(known):
        return None
    if len(known) == 1:
        return Spread(float(known[0]), float(known[0]), float(known[0]), 1)
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(known, (2000, len(known))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return Spread(float(np.median(known)), float(low), float(high), len(known))


def _record(session: Session, request: Request, start: int, marks: list[int], counts: list[int | None], text: str) -> Measurement:
    usage = session.usage()
    known = all(c is not None for c in counts)
    # a chunk of 0 tokens is text that was held back: it is no token and has no mark
    tokens = [m for m, c in zip(marks, counts, strict=True) if c] if known else []
    exact = known and all(c in (0, 1) for c in counts)
    output = usage.output_tokens if usage.output_tokens is not None else (sum(c or 0 for c in counts) if known else None)
    ref, timed = session.model, tokens if exact and tokens else marks
    return Measurement(
        model=ref.name,
        model_sha256=sha256_of(ref.path) if ref.path.is_file() else ref.sha256,
        engine=session.engine_name,
        engine_version=session.engine_version,
        prompt_tokens=usage.prompt_tokens,
        output_tokens=output,
        cached_tokens=usage.cached_tokens,
        finish_reason=usage.finish_reason,
        text=text,
        marks_ns=Marks(start=start, first=timed[0] if timed else None, last=timed[-1] if timed else None),
        token_marks_ns=tuple(tokens) if exact and tokens else None,
        load_s=session.load_s,
        threads=session.threads,
        settings=session.settings | _asked(request),
        machine=machine.fingerprint(),
    )


def _asked(request: Request) -> dict[str, Any]:
    return request.model_dump(include={"max_tokens", "temperature", "top_p", "seed", "ignore_eos", "keep_cache"})
