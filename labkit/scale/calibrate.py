"""The inputs of the simulator, measured on a real server, and the simulator held against loads that had no part in them.

>>> found = calibrate.measure(running.base_url, "smollm2-135m", slots=4)  # doctest: +SKIP
>>> rows = calibrate.validate(running.base_url, "smollm2-135m", found.speed, rates=(1, 2, 3, 4), seconds=60)  # doctest: +SKIP

The server must take as many requests at once as `slots` says, and its prompts must not come from a cache: they are salted.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from labkit.measure import load
from labkit.measure.load import Outcome, Plan
from labkit.measure.load_summary import quantiles
from labkit.scale import jobs
from labkit.scale.capacity import most_per_replica
from labkit.scale.jobs import Job, Speed
from labkit.scale.simulator import simulate

PROMPTS = (16, 64, 160)
SHARES = {"p50": 0.5, "p95": 0.95}
WITHIN = 0.15


class Calibration(NamedTuple):
    """A server's speed and what it was fitted to: (requests at once, s per token), (prompt tokens, s to the first token)."""

    speed: Speed
    tpot_s: list[tuple[float, float]]
    ttft_s: list[tuple[float, float]]


class Level(NamedTuple):
    """One figure at one load. low_s, high_s: 95 % bootstrap interval of the measured quantile, nan on a side that so
    few requests leave open."""

    rate: float
    utilisation: float
    figure: str
    share: float
    n: int
    measured_s: float
    low_s: float
    high_s: float
    modelled_s: float

    @property
    def agrees(self) -> bool:
        """Within 15 % of what was measured, or inside its interval."""
        return abs(self.modelled_s / self.measured_s - 1) <= WITHIN or self.low_s <= self.modelled_s <= self.high_s


def measure(
    base_url: str, model: str, slots: int, repeats: int = 4, output_tokens: int = 24, extra: dict[str, object] | None = None
) -> Calibration:
    """Closed loops of 1 to `slots` requests at once, whose prompts are short, for the pace; then prompts of three lengths, each alone."""
    usual = {"output_tokens": output_tokens, "ignore_eos": True, "extra": extra or {}}
    pace: list[tuple[float, float]] = []
    for at_once in range(1, slots + 1):
        plan = Plan(concurrency=at_once, requests=repeats * at_once, prompt_tokens=8, **usual)
        pace += [(at_once, one.tpot_s) for one in _good(load.run(base_url, model, plan)) if one.tpot_s is not None]
    first: list[tuple[float, float]] = []
    for length in PROMPTS:
        plan = Plan(concurrency=1, requests=repeats, prompt_tokens=length, **{**usual, "output_tokens": 1})
        first += [(one.prompt_tokens or length, one.ttft_s) for one in _good(load.run(base_url, model, plan)) if one.ttft_s is not None]
    # one line through medians: a single request that was held up should not tilt it
    pace, first = _medians(pace), _medians(first)
    return Calibration(jobs.fit(pace, first, slots), pace, first)


def validate(
    base_url: str,
    model: str,
    speed: Speed,
    rates: Sequence[float],
    seconds: float,
    prompt_tokens: int = 32,
    output_tokens: int = 24,
    seed: int = 1000,
    extra: dict[str, object] | None = None,
) -> Iterator[Level]:
    """Poisson loads at these rates, and the simulator on the very same arrivals: quantiles of TTFT and of the whole request.

    utilisation: requests that came a second, of those that the server could end at most, by the model.
    """  # fmt: skip
    for number, rate in enumerate(rates):
        plan = Plan(
            rate=rate, seconds=seconds, prompt_tokens=prompt_tokens, output_tokens=output_tokens, ignore_eos=True, seed=seed + number,
            timeout_s=300, extra=extra or {},
        )  # fmt: skip
        found = _good(load.run(base_url, model, plan))
        zero = found[0].scheduled_ns
        tokens = [(one.prompt_tokens or prompt_tokens, one.output_tokens or output_tokens) for one in found]
        rows = simulate([Job((one.scheduled_ns - zero) / 1e9, *each) for one, each in zip(found, tokens, strict=True)], speed)
        prompt, output = (statistics.fmean(side) for side in zip(*tokens, strict=True))
        busy = len(found) / seconds / most_per_replica(speed, prompt, output)
        for figure, measured, modelled in (
            ("TTFT", [one.ttft_s for one in found], [row.first_s - row.at_s for row in rows]),
            ("request", [one.e2e_s for one in found], [row.last_s - row.at_s for row in rows]),
        ):
            got = quantiles(measured)
            for name, share in SHARES.items():
                low, high = (math.nan if bound is None else bound for bound in got.intervals[name])
                yield Level(
                    rate,
                    busy,
                    figure,
                    share,
                    got.n,
                    getattr(got, name),
                    low,
                    high,
                    float(np.quantile(modelled, share)),
                )


def _good(found: Sequence[Outcome]) -> list[Outcome]:
    return [one for one in found if one.status == "ok"]


def _medians(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, statistics.median(v for at, v in points if at == x)) for x in sorted({at for at, _ in points})]
