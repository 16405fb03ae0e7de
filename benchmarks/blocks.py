"""Is encoding in NumPy fast enough? `labkit.quant.blocks.encode` against the `gguf` package's own codec, in turn, one thread each.

The package has no encoder for K-quants; those are not in the comparison. CPU time, so that a busy machine does not decide.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from gguf import quants
from gguf.constants import GGMLQuantizationType

from labkit import measure
from labkit.quant import blocks

ROWS, WIDTH, REPEATS = 1536, 1024, 7
_NOT_THERE = ("Q4_K", "Q6_K")


def blocks_encode() -> str:
    """The worst format's ratio of weights per CPU second; target at least 1.0."""
    weights = np.random.default_rng(1).normal(scale=0.02, size=(ROWS, WIDTH)).astype(np.float32)
    found = {kind: _compare(kind, weights) for kind in blocks.KINDS if kind not in _NOT_THERE}
    # neighbours in time are compared, so that a drifting machine does not decide
    ratios = {kind: statistics.median(a / b for a, b in zip(*pair, strict=True)) for kind, pair in found.items()}
    worst = min(ratios, key=lambda kind: ratios[kind])
    ours, bare = (statistics.median(rates) for rates in found[worst])
    each = ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in ratios.items())
    line = f"blocks_encode ratio={ratios[worst]:.2f} (labkit {ours:.0f} / bare {bare:.0f} million weights/CPU-s, n={REPEATS})"
    return f"{line} [worst: {worst}; {each}]"


def _compare(kind: str, weights: np.ndarray) -> tuple[list[float], list[float]]:
    """Million weights per CPU second of both sides, pair by pair."""
    type_ = GGMLQuantizationType[kind]
    sides = {"labkit": lambda: _rate(lambda: blocks.encode(kind, weights)), "bare": lambda: _rate(lambda: quants.quantize(weights, type_))}
    found = measure.ab(sides, repeats=REPEATS)
    return found["labkit"], found["bare"]


def _rate(work: Callable[[], object]) -> float:
    started = time.process_time_ns()
    work()
    return ROWS * WIDTH / (time.process_time_ns() - started) * 1e3
