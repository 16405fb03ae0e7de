"""What load to make, and what came of it: the records of `labkit.measure.load`.

Open loop: requests are sent at times that were fixed before (Poisson, constant, a trace), whether or not earlier ones were
answered, as a crowd of independent users does. Closed loop: so many users, each sending its next request when it has the answer
to its last; a slow server then slows its own load down.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from labkit.core.records import SCHEMA, Record, now

Status = Literal["ok", "refused", "error", "cut", "timeout"]
STATUSES: tuple[Status, ...] = ("ok", "refused", "error", "cut", "timeout")
MOST_REQUESTS = 100_000  # a run is bounded in count and in time
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Slo(Record):
    """Targets of a request in seconds; one that is None is not asked for. Goodput counts the requests that meet all of them."""

    ttft_s: float | None = Field(None, gt=0)
    tpot_s: float | None = Field(None, gt=0)
    e2e_s: float | None = Field(None, gt=0)


class Plan(Record):
    """One load run. Give `rate` (open loop, requests a second), `times_s` (open loop, a trace) or `concurrency` (closed loop).

    It ends after `seconds` or `requests`, whichever is first; what is in flight then is still waited for.
    prompts: texts of your own, taken in turn; None: `prompt_tokens` random letters, about a token each. The server's own count is
    in the outcome. salt: begin each prompt with letters that no earlier run has used, so that no prefix cache can help.
    ignore_eos: ask for exactly `output_tokens`; not every server knows this field. extra: further fields of the request's JSON.
    max_in_flight: a request that is due while so many are unanswered is not sent and ends as an error that says so.
    warmup: requests sent one by one before the clock starts; they are in no figure.
    """

    rate: float | None = Field(None, gt=0, le=2000)
    arrivals: Literal["poisson", "constant"] = "poisson"
    times_s: tuple[float, ...] | None = None
    concurrency: int | None = Field(None, ge=1, le=1000)
    seconds: float | None = Field(None, gt=0, le=3600)
    requests: int | None = Field(None, ge=1, le=MOST_REQUESTS)
    prompts: tuple[str, ...] | None = Field(None, min_length=1)
    system: str | None = None
    chat: bool = Field(True, description="as messages to /chat/completions; False: plain text to /completions")
    prompt_tokens: int = Field(64, ge=1, le=100_000)
    output_tokens: int = Field(32, ge=1, le=100_000)
    temperature: float = Field(0.0, ge=0)
    ignore_eos: bool = False
    extra: dict[str, Any] = Field(default_factory=dict)
    salt: bool = True
    seed: int = 0
    timeout_s: float = Field(60.0, gt=0, le=3600)
    max_in_flight: int = Field(1000, ge=1, le=5000)
    warmup: int = Field(1, ge=0, le=100)
    slo: Slo = Slo()

    @model_validator(mode="after")
    def _makes_sense(self) -> Plan:
        if sum(given is not None for given in (self.rate, self.times_s, self.concurrency)) != 1:
            raise ValueError("give exactly one of rate, times_s (open loop) and concurrency (closed loop)")
        if self.times_s is not None:
            if not self.times_s or self.times_s[0] < 0 or any(b < a for a, b in zip(self.times_s, self.times_s[1:], strict=False)):
                raise ValueError("times_s are seconds from the start, in order, at least one")
        elif self.seconds is None and self.requests is None:
            raise ValueError("say when it ends: seconds, requests or both")
        if self.rate and (self.requests or self.rate * (self.seconds or 0)) > MOST_REQUESTS:
            raise ValueError(f"that is more than {MOST_REQUESTS} requests")
        return self

    @property
    def kind(self) -> Literal["poisson", "constant", "trace", "closed"]:
        if self.concurrency is not None:
            return "closed"
        return "trace" if self.times_s is not None else self.arrivals

    def schedule_s(self) -> np.ndarray:
        """Open loop: the arrival times, seconds from the start, ascending. float64 [n]. The same seed gives the same times.

        Poisson: gaps are exponential with mean 1 / rate. Constant: one request every 1 / rate.
        """
        most = self.requests or MOST_REQUESTS
        if self.times_s is not None:
            times = np.array(self.times_s, dtype=float)
        elif self.rate is None:
            raise ValueError("a closed loop has no schedule")
        elif self.arrivals == "constant":
            times = np.arange(most if self.seconds is None else min(most, int(np.ceil(self.rate * self.seconds)))) / self.rate
        else:
            expected = most if self.seconds is None else min(most, int(self.rate * self.seconds * 1.5) + 100)
            times = np.cumsum(np.random.default_rng(self.seed).exponential(1 / self.rate, expected))
        return times[times < (self.seconds or np.inf)][:most]

    def texts(self, nonce: str = "") -> Iterator[str]:
        """The prompts, without end. `nonce` is new for each run when the plan is salted."""
        number = 0
        while True:
            # one generator for each request, so that its prompt does not depend on who was asked before
            letters = random.Random(f"{nonce}/{self.seed}/{number if self.salt else 0}")
            if self.prompts is None:
                yield " ".join(letters.choices(LETTERS, k=self.prompt_tokens))
            else:
                text = self.prompts[number % len(self.prompts)]
                yield " ".join(letters.choices(LETTERS, k=8)) + "\n" + text if self.salt else text
            number += 1

    def body(self, model: str, text: str) -> dict[str, Any]:
        """The JSON of a request."""
        asked: dict[str, Any] = {"model": model, "max_tokens": self.output_tokens, "temperature": self.temperature}
        if self.chat:
            first = [{"role": "system", "content": self.system}] if self.system else []
            asked["messages"] = [*first, {"role": "user", "content": text}]
        else:
            asked["prompt"] = text
        if self.ignore_eos:
            asked["ignore_eos"] = True
        return asked | {"stream": True, "stream_options": {"include_usage": True}} | self.extra


class Outcome(Record):
    """One request: how it ended, and raw `perf_counter_ns` marks, of which only differences mean anything.

    scheduled_ns: when it was due; in a closed loop, when it was sent. Latencies count from here. sent_ns: when the client began to
    send it; None: not sent. chunk_ns: arrival of each piece of the answer that has text. ended_ns: when its status was known.
    Token counts are the server's; None where it does not say.
    """

    number: int
    status: Status
    scheduled_ns: int
    sent_ns: int | None = None
    chunk_ns: tuple[int, ...] = ()
    ended_ns: int
    http_status: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    retry_after_s: float | None = Field(None, description="what a refusal's Retry-After said")
    error: str | None = None

    @property
    def first_ns(self) -> int | None:
        return self.chunk_ns[0] if self.chunk_ns else None

    @property
    def last_ns(self) -> int | None:
        return self.chunk_ns[-1] if self.chunk_ns else None

    @property
    def lateness_s(self) -> float | None:
        """Sent - scheduled: how well the load generator kept its schedule."""
        return None if self.sent_ns is None else (self.sent_ns - self.scheduled_ns) / 1e9

    @property
    def ttft_s(self) -> float | None:
        """Time to first token, from when the request was due."""
        return (self.chunk_ns[0] - self.scheduled_ns) / 1e9 if self.chunk_ns else None

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first: (last - first) / (output_tokens - 1)."""
        if not self.chunk_ns or not self.output_tokens or self.output_tokens < 2:
            return None
        return (self.chunk_ns[-1] - self.chunk_ns[0]) / 1e9 / (self.output_tokens - 1)

    @property
    def itl_s(self) -> tuple[float, ...]:
        """Inter-token latencies: gaps between pieces. A piece may hold more than one token; the server decides."""
        return tuple((b - a) / 1e9 for a, b in zip(self.chunk_ns, self.chunk_ns[1:], strict=False))

    @property
    def e2e_s(self) -> float:
        """From when it was due to its end, good or bad."""
        return (self.ended_ns - self.scheduled_ns) / 1e9

    def meets(self, slo: Slo) -> bool:
        """Answered, and within every target. An unknown figure meets no target; an answer of one token has no TPOT to miss."""
        if self.status != "ok":
            return False
        found = {"ttft_s": self.ttft_s, "tpot_s": 0.0 if self.output_tokens == 1 else self.tpot_s, "e2e_s": self.e2e_s}
        targets = {key: value for key, value in slo if value is not None}
        return all((value := found[key]) is not None and value <= limit for key, limit in targets.items())


class LoadRun(Record):
    """A whole run as it is written to a file: one line of JSON."""

    schema_version: int = Field(SCHEMA, alias="schema")
    model: str
    plan: Plan
    machine: dict[str, Any]
    timestamp: str = Field(default_factory=now)
    interrupted: bool = False
    outcomes: tuple[Outcome, ...]

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True, ser_json_inf_nan="null")
