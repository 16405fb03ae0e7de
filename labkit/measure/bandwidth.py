"""How fast can this machine read memory? The ceiling of decode: each token reads all weights once.

`decode_ceiling_tokens_per_s = bandwidth / bytes read a token` (the roofline's memory side; Williams et al. 2009).
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from labkit.core import machine
from labkit.measure.clock import Spread, spread


def read_bandwidth(threads: int | None = None, megabytes: int = 256, repeats: int = 7) -> Spread:
    """Bytes per second that `threads` threads read together from an array larger than the caches.

    Each thread takes the largest of its slice of float32 values: vectorised, one read a value, nothing written.
    """
    threads = threads or machine.cores()
    data = np.ones(megabytes * (1 << 20) // 4, dtype=np.float32)
    parts = np.array_split(data, threads)
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for turn in range(repeats + 1):
            start = time.perf_counter_ns()
            list(pool.map(np.maximum.reduce, parts))
            seconds = (time.perf_counter_ns() - start) / 1e9
            if turn:  # the first touches the pages
                rates.append(data.nbytes / seconds)
    found = spread(rates)
    assert found is not None  # noqa: S101 - repeats is at least 1
    return found


def decode_ceiling_tokens_per_s(bandwidth_bytes_per_s: float, bytes_per_token: float) -> float:
    """Tokens per second at most, where a token reads `bytes_per_token` (weights, and the KV cache so far)."""
    return bandwidth_bytes_per_s / bytes_per_token
