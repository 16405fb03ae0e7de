"""What the naive ONNX service of labs/stacks/onnx answers: statements that it was written after, held against what it does."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from labkit.facts.live.world import Seen, World, ask, quote

_CHAT = "/v1/chat/completions"
_LONG = "The harbour master wrote every ship into a big book. " * 60


def chat(world: World, text: str, tokens: int) -> httpx.Response:
    """One answer through the chat route."""
    body = {"model": "any", "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0}
    return ask(world.url("onnx") + _CHAT, body)


def one_pass(world: World) -> Seen:
    """`onnx-server-sample`: does an answer grow with max_tokens, and does health know of a failure?"""
    short, long = (_text(chat(world, "Tell me a long story.", tokens)) for tokens in (4, 32))
    failed = ask(world.url("onnx") + _CHAT, {"messages": 7})
    health = ask(world.url("onnx") + "/health")
    why = (
        f"with max_tokens 4 and 32 it says the same {quote(long, 40)!r}; a request that fails gets status {failed.status_code}"
        f" ({quote(failed.text, 60)}), and /health {health.status_code}"
        if short == long
        else f"with max_tokens 4 it says {quote(short, 40)!r}, with 32 {quote(long, 40)!r}"
    )
    return short == long and failed.status_code == 200 and "error" in failed.json(), why


def async_route(world: World) -> Seen:
    """`fastapi-async-inference`: the longest wait for /health while one long prompt is computed, against the time of that request."""
    longest = 0.0
    with ThreadPoolExecutor(1) as pool, httpx.Client(trust_env=False, timeout=120, base_url=world.url("onnx")) as client:
        client.get("/health")  # the connection is there
        begin = time.perf_counter()
        work = pool.submit(chat, world, _LONG, 8)
        while not work.done():
            sent = time.perf_counter()
            client.get("/health")
            longest = max(longest, time.perf_counter() - sent)
            time.sleep(0.02)
        work.result().raise_for_status()
    whole = time.perf_counter() - begin
    share = longest / whole
    why = f"while one request was computed for {whole:.1f} s, /health was silent for {longest:.1f} s of it ({share:.0%})"
    return (None if 0.3 <= share < 0.5 else share >= 0.5), why


def _text(reply: httpx.Response) -> str:
    told = reply.raise_for_status().json()
    return str(told["choices"][0]["message"]["content"])
