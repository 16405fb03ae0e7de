"""What an Ollama server says of loading, memory and time.

The checks load and unload the world's model; afterwards it is as the server's own rules leave it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import httpx

from labkit.facts.live import ollama_api
from labkit.facts.live.world import Seen, World, ask


def default_context(world: World) -> Seen:
    """`ollama-context-2048`: the context of a model that says nothing about it."""
    trained = ollama_api.trained_context(world)
    if trained < 4096:
        return None, f"the model was trained for {trained} tokens; it takes one of 4096"
    ollama_api.unload(world)
    ollama_api.generate(world, keep_alive="1m")
    row = ollama_api.loaded(world)
    if row is None or "context_length" not in row:
        return None, f"/api/ps of Ollama {ollama_api.version(world)} does not say the context"
    return row["context_length"] != 2048, f"/api/ps says a context of {row['context_length']} (Ollama {ollama_api.version(world)})"


def num_gpu(world: World) -> Seen:
    """`ollama-num-gpu`: bytes on the GPU with num_gpu 1 and with 99."""
    ollama_api.unload(world)
    ollama_api.generate(world, keep_alive="1m")
    if not (ollama_api.loaded(world) or {}).get("size_vram"):
        return None, "no layer went to a GPU here; it takes one that Ollama supports"
    sizes = []
    for layers in (1, 99):
        ollama_api.unload(world)
        ollama_api.generate(world, keep_alive="1m", options={"num_gpu": layers})
        sizes.append((ollama_api.loaded(world) or {}).get("size_vram", 0))
    ollama_api.unload(world)
    return sizes[0] < sizes[1] / 2, f"num_gpu 1 puts {sizes[0] / 1e6:.0f} MB on the GPU, 99 puts {sizes[1] / 1e6:.0f} MB"


def memory(world: World) -> Seen:
    """`memory-is-size-times-two`: what Ollama says it takes with a short and with a long context, against the file."""
    tags = ask(world.url("ollama") + "/api/tags").raise_for_status().json()["models"]
    file = next(row["size"] for row in tags if row["name"].removesuffix(":latest") == str(world.ollama_model).removesuffix(":latest"))
    trained = ollama_api.trained_context(world)
    if trained < 4096:
        return None, f"the model was trained for {trained} tokens; it takes one of 4096"
    ratios = {}
    for context in (512, 4096):
        ollama_api.unload(world)
        ollama_api.generate(world, keep_alive="1m", options={"num_ctx": context})
        ratios[context] = (ollama_api.loaded(world) or {"size": 0})["size"] / file
    ollama_api.unload(world)
    if not all(ratios.values()):
        return None, "/api/ps does not say a size"
    why = ", ".join(f"{ratio:.2f} times the file at a context of {context}" for context, ratio in ratios.items())
    return ratios[4096] > 1.15 * ratios[512], f"/api/ps says {why}"


def given_back(world: World) -> Seen:
    """`ollama-memory-given-back`: is the model gone after a request with keep_alive 0?"""
    ollama_api.generate(world, keep_alive="1m")
    before = ollama_api.loaded(world)
    ollama_api.generate(world, keep_alive=0)
    after = ollama_api.loaded(world, wanted=False)
    return (
        None if before is None else after is None
    ), f"/api/ps names the model after a request: {before is not None}; with keep_alive 0: {after is not None}"


def stays(world: World) -> Seen:
    """`ollama-model-stays-loaded`: when will a model without keep_alive go?"""
    ollama_api.unload(world)
    ollama_api.generate(world)
    row = ollama_api.loaded(world)
    if row is None:
        return None, "/api/ps does not name the model that has just answered"
    minutes = (datetime.fromisoformat(row["expires_at"]) - datetime.now(UTC)).total_seconds() / 60
    return minutes < 24 * 60, f"/api/ps says that the model goes in {minutes:.1f} minutes"


def start_up(world: World) -> Seen:
    """`ollama-starts-fast`: loading, in the request after the start, against the same request again."""
    ollama_api.unload(world)
    cold, warm = ollama_api.generate(world, keep_alive="1m"), ollama_api.generate(world, keep_alive="1m")
    first, again = (row["load_duration"] / 1e9 for row in (cold, warm))
    total = cold["total_duration"] / 1e9
    why = f"the server was up, and the first request still loaded for {first:.2f} s of its {total:.2f} s; the next for {again:.2f} s"
    return first > 2 * again, why


def latency(world: World) -> Seen:
    """`local-no-latency`: time of the smallest request, and until the first token of a short prompt; medians of 7."""
    ollama_api.generate(world, keep_alive="1m")
    wire, first = [], []
    body = {"model": world.ollama_model, "prompt": "hi", "options": {"num_predict": 2}}
    with httpx.Client(trust_env=False, timeout=60, base_url=world.url("ollama")) as client:
        for turn in range(7):
            wire.append(_seconds(lambda: client.get("/api/version").read()))
            body["prompt"] = f"{turn} is a number, and the next one"  # another prompt each time: none is in the cache
            first.append(_first_line(client, body))
    small, token = sorted(wire)[3], sorted(first)[3]
    why = f"the smallest request takes {small * 1e3:.2f} ms on loopback, the first token comes after {token * 1e3:.1f} ms"
    return token > 2 * small, why


def cost(world: World) -> Seen:
    """`local-costs-nothing`: electricity of a million tokens at the measured rate; watts and price are assumptions of the world."""
    row = ollama_api.generate(world, options={"num_predict": 32})
    rate = row["eval_count"] / (row["eval_duration"] / 1e9)
    money = world.watts / 1000 * world.price_per_kwh * 1e6 / rate / 3600
    prices = f"{world.watts:g} W, a kWh at {world.price_per_kwh:g} of your currency"
    why = f"{rate:.0f} tokens/s one after another; {prices}: a million tokens take {money:.2g} of it"
    return money > 0.001, why


def _seconds(work: Any) -> float:
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1e9


def _first_line(client: httpx.Client, body: dict[str, Any]) -> float:
    start = time.perf_counter_ns()
    with client.stream("POST", "/api/generate", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        first = (time.perf_counter_ns() - start) / 1e9
        # read to its end: after a stream that was dropped at its first token Ollama 0.24's runner once never answered again
        for _ in lines:
            pass
        return first
