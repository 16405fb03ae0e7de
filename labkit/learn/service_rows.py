"""What lab 17 asks its two services, one function a question, as rows: a first look, the loop's cost, health, queues.

>>> with Desk(models.resolve("smollm2-135m")) as desk:
...     first_rows(desk, "What is the capital of France?")
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit import engines, measure
from labkit.core.records import ModelRef, Request
from labkit.engines.hf_text import HfText
from labkit.facts import live
from labkit.learn import service_probes
from labkit.learn.service_asking import HEALTH, looks
from labkit.learn.service_looks import long_prompt
from labkit.learn.service_view import Desk
from labkit.measure import load

Rows = list[dict[str, Any]]


def lines_of(path: Path, first: str, last: str) -> str:
    """The lines of a file from the one that contains `first` to the one that contains `last`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = next(n for n, line in enumerate(lines) if first in line)
    end = next(n for n, line in enumerate(lines) if n >= begin and last in line)
    return "\n".join(lines[begin : end + 1])


def first_rows(desk: Desk, prompt: str, kinds: Sequence[str] = ("naive",)) -> Rows:
    """Each service from nothing: seconds until it can answer, and one answer of up to 16 tokens with its usage."""
    desk.close()
    rows = []
    for kind in kinds:
        begin = time.perf_counter()
        site = desk.site(kind)
        ready_s = time.perf_counter() - begin
        got = site.answer(prompt, max_tokens=16)
        rows.append({"service": kind, "ready_s": ready_s, "status": got.status, "text": got.text, "reason": got.reason, "usage": got.usage})
    return rows


def probe_rows(desk: Desk, kind: str) -> Rows:
    """Every probe of the table, put to one service, which is stopped afterwards: its memory is wanted by others."""
    rows = service_probes.run(desk.site(kind))
    desk.close()
    return rows


def loop_rows(model: ModelRef, threads: int, lengths: Sequence[int], repeats: int, tokens: int = 8) -> Rows:
    """Seconds for one more token with so many tokens before it, in turn: everything read again (`anew_s`), and the KV cache kept.

    One request gives both. Its first token costs reading the whole prompt with an empty cache; each later one costs one step.
    """
    rows = []
    session = engines.open("ortgenai").load(model, threads=threads, context=max(lengths) + tokens)
    try:
        for repeat in range(-1, repeats):  # the first round warms up
            for length in lengths:
                ids = tuple(100 + (7 * n + 13 * repeat) % 4000 for n in range(length))
                timed = measure.one(session, Request(tokens=ids, max_tokens=tokens, ignore_eos=True, keep_cache=False))
                if repeat >= 0:
                    rows.append({"tokens_before": length, "repeat": repeat, "anew_s": timed.ttft_s, "cached_s": timed.tpot_s})
    finally:
        session.close()
    return rows


def piece_rows(text: HfText, written: str) -> Rows:
    """A text's tokens: what each becomes alone, and what a stream that waits for whole characters gives out after it."""
    from tokenizers.decoders import DecodeStream

    stream, rows = DecodeStream(skip_special_tokens=True), []
    for token in text.tokenize(written):
        rows.append({"token": token, "alone": text.detokenize([token]), "in_a_stream": stream.step(text.plain, token) or ""})
    return rows


def health_rows(desk: Desk, kinds: Sequence[str] = ("naive", "correct"), max_tokens: int = 64) -> Rows:
    """Looks at /health, every 50 ms, while a service answers one long request; a row a look."""
    rows: Rows = []
    for kind in kinds:
        site = desk.site(kind)
        prompt = long_prompt(site, site.context - max_tokens - 8)
        got, seen = looks(site.url, HEALTH, lambda site=site, prompt=prompt: site.answer(prompt, max_tokens=max_tokens))  # type: ignore[misc]
        rows += [{"service": kind, "answer_s": got.seconds, **row} for row in seen]
        desk.close()
    return rows


def bound_rows(desk: Desk, bounds: Sequence[int], over: float, requests: int, tokens: int = 16, prompt_tokens: int = 48) -> Rows:
    """The same open-loop load on the correct service with each bound of its queue: a row a request, in the order of arrival.

    Its rate is `over` times what the service was measured to do with all its places busy, so the load is beyond its capacity on
    every machine. Nobody gives up meanwhile.
    """
    rows: Rows = []
    shape: dict[str, Any] = {"prompt_tokens": prompt_tokens, "output_tokens": tokens, "ignore_eos": True, "timeout_s": 600}
    rate = 0.0
    for bound in bounds:
        site = desk.open("correct", queue_length=bound)
        try:
            if not rate:  # measured once, so that both get the same load
                closed = load.Plan(concurrency=site.parallel, requests=max(6, requests // 4), **shape)
                done = load.run(f"{site.url}/v1", site.model, closed)
                took = (max(one.ended_ns for one in done) - min(one.scheduled_ns for one in done)) / 1e9
                rate = over * sum(one.status == "ok" for one in done) / took
            plan = load.Plan(rate=rate, arrivals="constant", requests=requests, **shape)
            found = load.run(f"{site.url}/v1", site.model, plan)
        finally:
            site.running.stop()
        start = min(one.scheduled_ns for one in found)
        for one in found:
            told = {"outcome": one.status, "ttft_s": one.ttft_s, "retry_after_s": one.retry_after_s}
            rows.append({"queue": bound, "rate_per_s": rate, "at_s": (one.scheduled_ns - start) / 1e9, **told})
    return rows


def worst_wait_s(rows: Sequence[dict[str, Any]], bound: int) -> float:
    """The longest time to a first token of those that were answered, with that bound."""
    return max((row["ttft_s"] for row in rows if row["queue"] == bound and row["outcome"] == "ok"), default=math.nan)


def claim_rows(desk: Desk) -> Rows:
    """What the naive service shows of the statement that it stands for."""
    world = live.World(onnx_url=desk.site("naive").url)
    found = list(live.rows(live.of("onnx"), world))
    desk.close()
    return found
