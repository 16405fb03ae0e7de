"""How many replicas, and what does it cost? By simulation, beyond what one machine can show; prices are yours to give. A model.

>>> cost_per_million(price_per_hour=0.50, tokens_per_s=100)
1.3888888888888888
>>> break_even(price_per_hour=0.50, api_price_per_million=0.20)   # million tokens an hour, at which both cost the same
2.5
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from labkit.core.errors import BadInput
from labkit.scale.jobs import Job, Speed, poisson
from labkit.scale.simulator import Balancer, Row, simulate


class Plan(NamedTuple):
    """The fewest replicas that keep the target, and what they did. Times in seconds; utilisation: share of slots in use."""

    rate: float
    replicas: int
    figure_s: float
    tokens_per_s: float
    tokens_per_s_each: float
    refused: int


def ttft_s(row: Row) -> float:
    return row.first_s - row.at_s


def response_s(row: Row) -> float:
    return row.last_s - row.at_s


def most_per_replica(speed: Speed, prompt_tokens: float, output_tokens: float) -> float:
    """Requests a second that a replica with all slots in use can end at most. A bound: a plan needs more replicas than it says.

    Each of `slots` requests in turn has its prompt read, which all others wait for, and then a token a step.
    """
    reading = speed.per_prompt_token_s * prompt_tokens
    step = speed.step_s(speed.slots)
    return speed.slots / (output_tokens * step + speed.slots * reading)


def replicas_for(
    rate: float,
    speed: Speed,
    target_s: float,
    *,
    share: float = 0.95,
    figure: Callable[[Row], float] = ttft_s,
    prompt_tokens: int | Sequence[int] = 40,
    output_tokens: int | Sequence[int] = 20,
    balancer: Balancer | None = None,
    seconds: float = 60,
    seed: int = 0,
    most: int = 10_000,
) -> Plan:
    """The fewest replicas whose simulated quantile `share` of the figure is at most `target_s`, with no request refused.

    The first quarter of the simulated time is left out: it begins with empty queues. Raises BadInput where even `most` are too few,
    or where a request that is alone takes longer than the target.
    """
    jobs = poisson(rate, seconds, prompt_tokens, output_tokens, seed)
    counted = [n for n, job in enumerate(jobs) if job.at_s >= seconds / 4]
    if len(counted) < 50:
        raise BadInput(f"{len(counted)} requests are too few for a quantile", "a longer time: seconds=600")

    def tried(replicas: int) -> Plan | None:
        rows = simulate(jobs, speed, replicas, balancer)
        good = [rows[n] for n in counted if rows[n].status == "ok"]
        if len(good) < len(counted):
            return None
        value = float(np.quantile([figure(row) for row in good], share))
        tokens = sum(row.tokens for row in good) / (seconds * 0.75)
        return Plan(rate, replicas, value, tokens, tokens / replicas, 0) if value <= target_s else None

    low = 0
    high = max(1, round(rate / most_per_replica(speed, np.mean(prompt_tokens).item(), np.mean(output_tokens).item())))
    while (best := tried(min(high, most))) is None:
        if high >= most:
            raise BadInput(f"{most} replicas do not keep {share:.0%} within {target_s} s", _why(speed, jobs, figure, target_s))
        low, high = high, high * 2
    high = best.replicas
    while high - low > max(1, high // 100):  # to one in a hundred: the draw of the arrivals is no more exact than that
        middle = (low + high) // 2
        found = tried(middle)
        if found:
            best, high = found, middle
        else:
            low = middle
    return best


def cost_per_million(price_per_hour: float, tokens_per_s: float) -> float:
    """Of a million output tokens, in the unit of the price, at what the replicas really make: half idle, twice the cost."""
    return price_per_hour / (tokens_per_s * 3600) * 1e6


def break_even(price_per_hour: float, api_price_per_million: float) -> float:
    """Million tokens an hour above which replicas of one's own cost less than a hosted API. Whether they can make as many is another
    question: `cost_per_million` at their rate answers it."""
    if api_price_per_million <= 0:
        raise BadInput("a price of nothing is beaten by nothing", "a price per million tokens above 0")
    return price_per_hour / api_price_per_million


def _why(speed: Speed, jobs: Sequence[Job], figure: Callable[[Row], float], target_s: float) -> str:
    alone = simulate([Job(0.0, jobs[0].prompt_tokens, jobs[0].output_tokens)], speed)[0]
    if figure(alone) > target_s:
        return f"a request that is alone takes {figure(alone):.3g} s: a shorter prompt, a faster machine, or a target above that"
    return "a target further from what a request takes that is alone, or more places in the queue"
