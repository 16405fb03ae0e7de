"""Does the simulator say what a real llama-server does? Calibrated on closed loops, held against Poisson loads it has not seen."""

from __future__ import annotations

import sys

from labkit import models, servers
from labkit.scale import calibrate, capacity

UTILISATIONS = (0.25, 0.45, 0.65, 0.85)
SECONDS, SLOTS, PROMPT, OUTPUT = 100, 2, 32, 24
TEMPLATE = 30  # tokens that the chat template adds, about


def queue_model() -> str:
    """Modelled over measured p50 and p95 of TTFT and of the whole request; target: within 15 % or inside the measured interval."""
    model = models.resolve("smollm2-135m")
    with servers.open("llama_server").start(model, context=512, parallel=SLOTS, threads=1, cache_prompt=False) as running:
        found = calibrate.measure(running.base_url, model.name, SLOTS, output_tokens=OUTPUT)
        most = capacity.most_per_replica(found.speed, PROMPT + TEMPLATE, OUTPUT)
        rates = [share * most for share in UTILISATIONS]
        levels = list(calibrate.validate(running.base_url, model.name, found.speed, rates, SECONDS, PROMPT, OUTPUT))
    for one in levels:
        print(
            f"  {one.rate:.2f}/s, utilisation {one.utilisation:.2f}, {one.figure} p{100 * one.share:.0f}: "
            f"modelled {one.modelled_s:.3f} / measured {one.measured_s:.3f} s (n={one.n}) {'' if one.agrees else 'APART'}",
            file=sys.stderr,
        )
    ratios = sorted(one.modelled_s / one.measured_s for one in levels)
    apart = [one for one in levels if not one.agrees]
    line = f"queue_model ratio={ratios[len(ratios) // 2]:.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f}, n={len(levels)})"
    assert not apart, f"{line}: {apart}"
    return f"{line} [modelled over measured, llama-server, utilisation {levels[0].utilisation:.2f} to {levels[-1].utilisation:.2f}]"
