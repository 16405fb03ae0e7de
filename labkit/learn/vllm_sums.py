"""The arithmetic of lab 18, apart from any server: places in a batch, tokens from a prefix cache, blocks, a quantile of a histogram.

The rules of the KV cache are vLLM's: it keeps blocks of `block_size` tokens (vllm/v1/core/kv_cache_utils.py), finds only whole
ones again, and always computes the last token of a prompt (KVCacheManager.get_computed_blocks).

>>> steps([5, 1, 1], slots=2), static_steps([5, 1, 1], slots=2)
(5, 6)
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """One request on a place of the batch: from step `begin` until before step `end`."""

    slot: int
    begin: int
    end: int


def schedule(lengths: Sequence[int], slots: int, continuous: bool = True) -> list[Place]:
    """Where each request runs, in their order; a request takes as many decode steps as its answer has tokens.

    continuous: a free place goes to the next request at once; otherwise a batch stays together until its longest is done.
    """
    if not continuous:
        found, begin = [], 0
        for at in range(0, len(lengths), slots):
            batch = lengths[at : at + slots]
            found += [Place(slot, begin, begin + length) for slot, length in enumerate(batch)]
            begin += max(batch)
        return found
    free = [(0, slot) for slot in range(slots)]
    places = []
    for length in lengths:
        begin, slot = heapq.heappop(free)
        places.append(Place(slot, begin, begin + length))
        heapq.heappush(free, (begin + length, slot))
    return places


def lengths(seed: int, count: int, longest: int) -> list[int]:
    """Lengths of answers, from 4 tokens on: most are short, some are long, as in real life."""
    drawn = 4 + (longest - 4) * np.random.default_rng(seed).beta(0.8, 1.6, count)
    return [int(n) for n in drawn]


def steps(lengths: Sequence[int], slots: int) -> int:
    """Decode steps until all are done, with continuous batching."""
    return max(place.end for place in schedule(lengths, slots))


def static_steps(lengths: Sequence[int], slots: int) -> int:
    """The same with batches that stay together."""
    return max(place.end for place in schedule(lengths, slots, continuous=False))


def tokens_per_s(clients: int, ttft_s: float, tpot_s: float, output_tokens: int) -> float:
    """Output tokens a second of clients that each ask again as soon as they have their answer."""
    return clients * output_tokens / (ttft_s + (output_tokens - 1) * tpot_s)


def cached_tokens(prompt_tokens: int, shared_tokens: int, block_size: int) -> int:
    """Tokens of a prompt that are taken from the cache, where its first `shared_tokens` were there before."""
    return min(shared_tokens, prompt_tokens - 1) // block_size * block_size


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two prompts share from their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def blocks_needed(requests: Sequence[tuple[int, int]], block_size: int) -> int:
    """Blocks that (prompt, output) tokens of requests take at their end, where they share nothing."""
    return sum(math.ceil((prompt + output) / block_size) for prompt, output in requests)


def cache_tokens(cache_bytes: int, bytes_per_token: float, block_size: int) -> int:
    """Tokens that fit into a KV cache of that size, in whole blocks."""
    return int(cache_bytes // (bytes_per_token * block_size)) * block_size


def quantile(buckets: Sequence[tuple[float, float]], q: float) -> float | None:
    """Of a histogram, as PromQL's histogram_quantile has it: linear inside the bucket, the last finite edge beyond it.

    buckets: (upper edge, how many values up to it), ascending, the last edge infinite. None where there are no values.
    """
    rank, below, low = q * buckets[-1][1], 0.0, 0.0
    for edge, count in buckets:
        if count >= rank and count > below:
            return low if math.isinf(edge) else low + (edge - low) * (rank - below) / (count - below)
        below, low = count, edge if math.isfinite(edge) else low
    return None
