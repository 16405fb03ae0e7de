"""What comes to a server, and how fast it works: the inputs of the simulator. Part of a model; its figures are measured ones.

>>> poisson(rate=2, seconds=1, seed=1)[0].prompt_tokens
40
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class Job(NamedTuple):
    """One request: when it comes (s), and how many tokens it has and wants (at least one of each)."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


class Speed(BaseModel):
    """How long a replica's step takes, in seconds:

    base_s + per_request_s x running requests + per_prompt_token_s x prompt tokens read in this step

    outside_s: what a request takes beside all steps (connection, chat template, tokenizer), which holds up nobody else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_s: float = Field(ge=0)
    per_request_s: float = Field(ge=0)
    per_prompt_token_s: float = Field(ge=0)
    outside_s: float = Field(0.0, ge=0)
    slots: int = Field(4, ge=1)
    batch_tokens: int = Field(512, ge=1)
    queue: int | None = Field(None, ge=0, description="places in the queue of a replica; None: without end")

    def step_s(self, running: int, prompt_tokens: int = 0) -> float:
        return self.base_s + self.per_request_s * running + self.per_prompt_token_s * prompt_tokens


def poisson(
    rate: float, seconds: float, prompt_tokens: int | Sequence[int] = 40, output_tokens: int | Sequence[int] = 20, seed: int = 0
) -> list[Job]:
    """Requests at random times, `rate` a second on average; token counts are drawn from a sequence where one is given."""
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))
    counts = [random.choice(np.atleast_1d(np.asarray(tokens)), len(times)) for tokens in (prompt_tokens, output_tokens)]
    return [Job(float(at), int(reads), int(writes)) for at, reads, writes in zip(times, *counts, strict=True)]


def fit(
    tpot_s: Sequence[tuple[float, float]],
    ttft_s: Sequence[tuple[float, float]],
    slots: int,
    batch_tokens: int = 512,
    queue: int | None = None,
) -> Speed:
    """A server's speed from measurements, by least squares without negative terms.

    tpot_s: (requests running at once, seconds per output token), closed loop, from at least two numbers of requests.
    ttft_s: (prompt tokens, seconds to the first token) of a request that is alone, from at least two prompt lengths.
    """
    if len({n for n, _ in tpot_s}) < 2 or len({n for n, _ in ttft_s}) < 2:
        raise ValueError("a line needs two points: measure two numbers of requests, and two prompt lengths")
    per_request, base = _line(tpot_s)
    per_token, alone = _line(ttft_s)
    outside = max(0.0, alone - base - per_request)  # a prompt of no token would take a step
    return Speed(
        base_s=base, per_request_s=per_request, per_prompt_token_s=per_token, outside_s=outside, slots=slots, batch_tokens=batch_tokens,
        queue=queue,
    )  # fmt: skip


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope and intercept, neither below zero."""
    x, y = np.asarray(points, dtype=float).T
    slope, intercept = (float(v) for v in np.polyfit(x, y, 1))
    if intercept < 0:
        return float((x * y).sum() / (x * x).sum()), 0.0
    return (slope, intercept) if slope >= 0 else (0.0, float(y.mean()))
