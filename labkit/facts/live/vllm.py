"""What a vLLM server says of its metrics, its fields, its cache and its doors."""

from __future__ import annotations

import re
import secrets
from typing import Any

from labkit.facts.live.world import Seen, World, ask

_CACHE = "vllm:prefix_cache_hits_total"


def _text(world: World, prompt: str, tokens: int = 1, **fields: Any) -> Any:
    body = {"model": world.vllm_model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, **fields}
    return ask(world.url("vllm") + "/v1/completions", body)


def _metrics(world: World) -> str:
    return ask(world.url("vllm") + "/metrics").raise_for_status().text


def _hits(world: World) -> float:
    return sum(float(value) for value in re.findall(rf"^{_CACHE}\{{.*\}} (\S+)$", _metrics(world), re.MULTILINE))


def _name(world: World, old: str, new: str) -> Seen:
    text = _metrics(world)
    has = {name: f"\n{name}" in text for name in (old, new)}
    why = ", ".join(f"{name}: {'there' if there else 'not there'}" for name, there in has.items())
    return has[new] and not has[old], why


def cache_gauge(world: World) -> Seen:
    """`vllm-gpu-cache-usage`: how the share of the KV cache in use is called."""
    return _name(world, "vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc")


def token_time(world: World) -> Seen:
    """`vllm-time-per-output-token`: how the histogram of gaps between tokens is called."""
    return _name(world, "vllm:time_per_output_token_seconds", "vllm:inter_token_latency_seconds")


def unknown_field(world: World) -> Seen:
    """`vllm-unknown-field`: a misspelt setting in a request."""
    status = _text(world, "One two", temprature=2).status_code
    return status == 200, f"a request with temprature is answered {status}"


def from_the_beginning(world: World) -> Seen:
    """`vllm-prefix-anywhere`: cached tokens of a passage that was there before, with the same and with other first words."""
    # as many words as a few blocks of 128 tokens, and new ones each time, or an earlier check would have filled the cache
    passage = f"{secrets.token_hex(4)} " + "one two three four five six seven " * 26
    _text(world, passage).raise_for_status()
    counts = [_hits(world)]
    for first in ("", f"{secrets.token_hex(4)} "):
        _text(world, first + passage).raise_for_status()
        counts.append(_hits(world))
    same, other = counts[1] - counts[0], counts[2] - counts[1]
    if not same:
        return None, "the same passage again had no token from the cache: it is switched off"
    return other == 0, f"the same passage again: {same:.0f} tokens from the cache; with other first words: {other:.0f}"


def open_door(world: World) -> Seen:
    """`vllm-asks-for-a-key`: a request without a key."""
    status = _text(world, "One").status_code
    return status == 200, f"a request without a key is answered {status}"


def without_gpu(world: World) -> Seen:
    """`vllm-needs-a-gpu`: an answer on a machine without one."""
    if world.program("nvidia-smi") or world.program("rocm-smi"):
        return None, "this machine may have a GPU"
    reply = _text(world, "One two", tokens=2)
    return reply.status_code == 200, f"no GPU's tools are here, and a request is answered {reply.status_code}"
