"""The questions that lab 17 puts to a service, whoever wrote it: one table, the same for the naive service and the correct one.

A probe says what is asked, what must hold and why that matters; its function asks a running service and returns what it saw.

>>> rows = run(desk.site("naive"), PROBES)
>>> rows[0]["holds"], rows[0]["saw"]
(False, '6 tokens where 8 were asked for, 6 where 24 were')
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from labkit.core.errors import BadInput, nearest
from labkit.learn import service_looks as look
from labkit.learn.service_asking import Site


@dataclass(frozen=True)
class Probe:
    """`asks`: the request in words. `holds`: what must be true. `why`: what it costs in production where it is not."""

    id: str
    question: str
    asks: str
    holds: str
    why: str
    look: Callable[[Site], look.Saw]


# the one table of probes, in the order in which they are asked; a new one is one entry and one function in service_looks.py
PROBES: tuple[Probe, ...] = (
    Probe(
        "several-tokens",
        "Is it an answer?",
        "the same question twice, with max_tokens 8 and 24",
        "the longer answer has more tokens and begins with the shorter one",
        "one pass through the model gives one token; without the loop there is no answer at all",
        look.several_tokens,
    ),
    Probe(
        "max-tokens",
        "Does max_tokens hold?",
        "max_tokens 5",
        "5 tokens, finish_reason length",
        "a client that pays, or waits, for 5 tokens must not get 500",
        look.max_tokens,
    ),
    Probe(
        "stop",
        "Does a stop text hold?",
        "a question again, with a stop text out of its first answer",
        "the answer ends before the stop text, finish_reason stop",
        "programs that read an answer rely on where it ends",
        look.stop,
    ),
    Probe(
        "usage",
        "Is usage counted in tokens?",
        "an answer of 12 tokens",
        "prompt_tokens is what the model's tokenizer counts, completion_tokens is 12",
        "bills, limits and rates are computed from it",
        look.usage,
    ),
    Probe(
        "streaming",
        "Does it stream?",
        "stream: true",
        "several pieces, the first one early, and [DONE] at the end",
        "a reader waits for the first word, not for the last",
        look.streaming,
    ),
    Probe(
        "unknown-model",
        "An unknown model?",
        "model: no-such-model",
        "status 404",
        "with 200 a typing mistake becomes an answer of another model",
        look.unknown_model,
    ),
    Probe(
        "not-json",
        "A body that is no JSON?",
        'the bytes {"model": "',
        "status 400 or 422",
        "monitors count status codes; an error inside a 200 is seen by nobody",
        look.not_json,
    ),
    Probe(
        "wrong-types",
        "Fields of a wrong type?",
        "messages is a text, max_tokens is a text",
        "status 400 or 422",
        "what is not checked at the door breaks something inside",
        look.wrong_types,
    ),
    Probe(
        "huge-body",
        "A body of 4 MB?",
        "a short question, and 4 MB in a field that nobody reads",
        "status 400 or 413",
        "each client can take the memory of all",
        look.huge_body,
    ),
    Probe(
        "too-long",
        "A prompt that does not fit?",
        "more tokens than the context holds",
        "status 400 or 413",
        "cut without a word it gives a wrong answer, taken whole it takes the memory",
        look.too_long,
    ),
    Probe(
        "no-model",
        "Health without a model?",
        "started with a folder that has no model file",
        "/health never says 200",
        "a load balancer sends its users to whoever says 200",
        look.no_model,
    ),
    Probe(
        "while-loading",
        "Health while it loads?",
        "started; /health is asked all the time",
        "no 200 before a request can be answered, and then 200",
        "an update replaces the old copy as soon as the new one says 200",
        look.while_loading,
    ),
    Probe(
        "model-gone",
        "Health when the model is gone?",
        "what computes is taken away while it serves",
        "/health does not say 200 any longer",
        "a service that cannot answer and says that it is well is never restarted",
        look.model_gone,
    ),
    Probe(
        "alive",
        "Is it heard while it computes?",
        "a long request, and meanwhile a look at its health every 50 ms",
        "no silence as long as half of the answer",
        "a health check that waits for an answer times out, and a busy service is killed for it",
        look.alive_while_answering,
    ),
    Probe(
        "four-at-once",
        "Four at once?",
        "four streams that start at the same moment",
        "four whole answers",
        "users do not come one after another",
        look.four_at_once,
    ),
    Probe(
        "queue",
        "More than it can take?",
        "four requests more than the queue and the model hold",
        "some are refused with 429 and Retry-After, the rest are answered",
        "without a bound everybody waits, longer and longer, also for answers that nobody wants any more",
        look.beyond_the_queue,
    ),
    Probe(
        "client-leaves",
        "A client that leaves?",
        "a long answer, left at its beginning; then a short one",
        "the next one does not wait for an answer that nobody reads",
        "impatient users press Reload: each time one answer more is computed for nobody",
        look.client_leaves,
    ),
    Probe(
        "metrics",
        "Can it be watched?",
        "GET /metrics, before and after a request",
        "Prometheus's format, and a count that has grown",
        "what is not counted is noticed by the users first",
        look.metrics,
    ),
    Probe(
        "stop-gracefully",
        "SIGTERM in the middle of an answer?",
        "SIGTERM to the process while it answers",
        "the answer comes whole, and then the process ends",
        "each update sends SIGTERM: a cut answer is an error for a user",
        look.graceful_stop,
    ),
)


def get(id: str) -> Probe:
    """A probe by its id. Raises BadInput with the nearest one."""
    known = {probe.id: probe for probe in PROBES}
    if id not in known:
        raise BadInput(f"no probe named {id!r} ({nearest(id, known)})", "look into labkit/learn/service_probes.py")
    return known[id]


def run(site: Site, probes: Sequence[Probe] = PROBES) -> list[dict[str, Any]]:
    """A row for each probe: service, probe, question, holds, saw, seconds. A connection that breaks is what the probe saw."""
    rows = []
    for probe in probes:
        begin = time.perf_counter()
        try:
            holds, saw = probe.look(site)
        except httpx.TransportError as error:
            holds, saw = False, f"the connection broke ({type(error).__name__})"
        seconds = time.perf_counter() - begin
        row = {"service": site.name, "probe": probe.id, "question": probe.question, "holds": holds, "saw": saw, "seconds": seconds}
        rows.append(row)
    return rows
