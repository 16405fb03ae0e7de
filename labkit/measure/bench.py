"""The benchmark behind `labkit bench`: one model, one or several thread counts, in turn, prompts that no cache knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit.core.errors import BadInput, RunFailed
from labkit.core.records import Measurement, ModelRef, Request
from labkit.engines import Engine
from labkit.measure import clock


def requests(vocabulary: int, prompt_tokens: int, output_tokens: int, repeats: int, seed: int = 1) -> list[Request]:
    """Prompts of exactly `prompt_tokens` random ids, a different one each time, so that no prefix cache helps."""
    rng = np.random.default_rng(seed)
    low, high = (256, vocabulary) if vocabulary > 1024 else (0, vocabulary)
    return [
        Request(tokens=tuple(int(t) for t in rng.integers(low, high, prompt_tokens)), max_tokens=output_tokens, ignore_eos=True)
        for _ in range(repeats)
    ]


def texts(prompt_tokens: int, output_tokens: int, repeats: int, chat: bool = False, seed: int = 1) -> list[Request]:
    """The same for an engine that takes no ids: single letters, which are about a token each. The record has the real count.

    chat: as a message, for an engine that takes no plain text either; the chat template's tokens are added to it.
    """
    letters, rng = list("abcdefghijklmnopqrstuvwxyz"), np.random.default_rng(seed)
    some = [" ".join(rng.choice(letters, prompt_tokens)) for _ in range(repeats)]
    return [Request.chat(text, max_tokens=output_tokens) if chat else Request(prompt=text, max_tokens=output_tokens) for text in some]


def bench(
    engine: Engine,
    model: ModelRef,
    threads: Sequence[int] | None = None,
    prompt_tokens: int = 128,
    output_tokens: int = 64,
    repeats: int = 5,
    progress: bool = True,
    **options: Any,
) -> list[Measurement]:
    """`repeats` measurements for each thread count (None: measure which is best and take it), warm-up excluded.

    Thread counts run in turn on one loaded model where the engine can change them. An engine that refuses prompts of token
    ids gets text of about that length, and its answers may end before `output_tokens`; the records say what they had.
    """
    context = max(256, prompt_tokens + output_tokens + 64)  # with room for a chat template
    session: Any = engine.load(model, context=context, **options)
    try:
        vocabulary = getattr(session, "n_vocab", 1 << 15)
        if not hasattr(session, "set_threads"):
            if threads:
                raise BadInput(f"engine {engine.name} cannot change its threads", "leave out --threads, or start the server with them")
            return _as_it_takes(session, vocabulary, prompt_tokens, output_tokens, repeats)
        if not threads:
            threads = [clock.best_threads(session, requests(vocabulary, min(prompt_tokens, 64), 24, 1)[0])]
        return _in_turn(session, requests(vocabulary, prompt_tokens, output_tokens, repeats + 1), threads, progress)
    finally:
        session.close()


def _as_it_takes(session: Any, vocabulary: int, prompt_tokens: int, output_tokens: int, repeats: int) -> list[Measurement]:
    """Prompts as ids, else as text, else as messages: what an endpoint takes shows only when it is asked."""
    refuses: frozenset[str] = getattr(session, "refuses", frozenset())
    forms = [] if "tokens" in refuses else [requests(vocabulary, prompt_tokens, output_tokens, repeats + 1)]
    forms += [texts(prompt_tokens, output_tokens, repeats + 1, chat) for chat in (False, True) if chat or "prompt" not in refuses]
    rows = next((form for form in forms if _takes(session, form[0])), forms[-1])  # where it takes none, the last one says why
    return [clock.one(session, r) for r in rows[1:]]


def _takes(session: Any, request: Request) -> bool:
    """Does it answer? This is the warm-up as well."""
    try:
        clock.one(session, request)
    except RunFailed:
        return False
    return True


def _in_turn(session: Any, rows: list[Request], threads: Sequence[int], progress: bool) -> list[Measurement]:
    feeds = {n: iter(rows) for n in threads}

    def case(count: int) -> Any:
        def measure() -> Measurement:
            session.set_threads(count)
            return clock.one(session, next(feeds[count]))

        return measure

    found = clock.ab({str(n): case(n) for n in threads}, repeats=len(rows) - 1, warmup=1, progress=progress)
    return [m for some in found.values() for m in some]
