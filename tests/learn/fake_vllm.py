"""A vLLM of a test's own, in this process: words are tokens, places are limited, and /metrics counts as the real one does.

It has the rules that lab 18 looks at (places, whole blocks of a common beginning, room for so many blocks), and no model.
"""

from __future__ import annotations

import json
import math
import threading
import time
from typing import Any

from labkit.servers.stand_in import Asked, Reply, StandIn

EDGES = (0.01, 0.1, 1.0, 10.0, math.inf)


class FakeVllm(StandIn):
    """`places` answers at once; blocks of `block` words; `broken`: every chat is answered 500."""

    def __init__(self, places: int = 4, block: int = 8, blocks: int = 40, broken: bool = False) -> None:
        super().__init__()
        self.block, self.blocks, self.broken = block, blocks, broken
        self.lock, self.turn = threading.Lock(), threading.Semaphore(places)
        self.running = self.waiting = self.queries = self.hits = self.preemptions = 0
        self.firsts: list[float] = []
        self.known: set[tuple[str, ...]] = set()

    def answer(self, asked: Asked) -> Reply:
        body = json.loads(asked.body or b"{}")
        fixed: dict[str, Any] = {
            "/health": {},
            "/version": {"version": "0.0.0"},
            "/v1/models": {"data": [{"id": "small", "object": "model", "created": 0, "owned_by": "test"}]},
        }
        if asked.path in fixed:
            return Reply.of_json(fixed[asked.path])
        if asked.path == "/metrics":
            return Reply(200, self.metrics().encode())
        if asked.path == "/tokenize":
            words = self.words(body)
            return Reply.of_json({"count": len(words), "tokens": [hash(word) for word in words]})
        known = asked.path in ("/v1/chat/completions", "/v1/completions")
        return self.complete(body) if known else Reply.of_json({"error": {"message": "not found"}}, 404)

    def words(self, body: dict[str, Any]) -> list[str]:
        return ["<template>", *(body.get("prompt") or body["messages"][-1]["content"]).split()]

    def complete(self, body: dict[str, Any]) -> Reply:
        if self.broken:
            return Reply.of_json({"error": {"message": "it is broken"}}, 500)
        if not body["model"].startswith("small"):
            return Reply.of_json({"error": {"message": "no such model"}}, 404)
        if body["max_tokens"] > 2048:
            return Reply.of_json({"error": {"message": "longer than the context"}}, 400)
        begin = time.perf_counter()
        self.count(waiting=1)
        with self.turn:
            self.count(waiting=-1, running=1)
            cached = self.look_up(body)
            time.sleep(0.002)
            with self.lock:
                self.firsts.append(time.perf_counter() - begin)
            time.sleep(0.0005 * body["max_tokens"])
            self.count(running=-1)
        usage = {"prompt_tokens": len(self.words(body)), "completion_tokens": body["max_tokens"], "total_tokens": 0}
        usage["prompt_tokens_details"] = {"cached_tokens": cached}  # type: ignore[assignment]
        if not body.get("stream"):
            return Reply.of_json({"choices": [{"message": {"content": "yes"}, "text": "yes"}], "usage": usage})
        piece: dict[str, Any] = {"text": " one"} if "prompt" in body else {"delta": {"content": " one"}}
        pieces = [{"choices": [{"index": 0, "finish_reason": None, **piece}]} for _ in range(body["max_tokens"])]
        last = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}, {"choices": [], "usage": usage}]
        common = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "small"}
        lines = [f"data: {json.dumps(common | one)}\n\n" for one in (*pieces, *last)]
        return Reply(200, "".join([*lines, "data: [DONE]\n\n"]).encode(), {"Content-Type": "text/event-stream"})

    def count(self, waiting: int = 0, running: int = 0) -> None:
        with self.lock:
            self.waiting += waiting
            self.running += running
            self.preemptions += self.running > 3 and running > 0

    def look_up(self, body: dict[str, Any]) -> int:
        """Whole blocks of the beginning that were there under the same salt, and never the last word."""
        words, salt = self.words(body), body.get("cache_salt", "")
        names = [(salt, *words[:end]) for end in range(self.block, len(words) + 1, self.block)]
        with self.lock:
            found = 0
            for name in names[: (len(words) - 1) // self.block]:
                if name not in self.known:
                    break
                found += self.block
            self.known.update(names)
            self.queries += len(words)
            self.hits += found
        return found

    def metrics(self) -> str:
        with self.lock:
            used = min(1.0, self.running / 4)
            lines = {
                "vllm:num_requests_running": self.running,
                "vllm:num_requests_waiting": self.waiting,
                "vllm:kv_cache_usage_perc": used,
                "vllm:prefix_cache_queries_total": self.queries,
                "vllm:prefix_cache_hits_total": self.hits,
                "vllm:num_preemptions_total": self.preemptions,
            }
            text = [f'{name}{{engine="0"}} {value}' for name, value in lines.items()]
            text.append(f'vllm:cache_config_info{{block_size="{self.block}",num_gpu_blocks="{self.blocks}"}} 1.0')
            name = "vllm:time_to_first_token_seconds"
            text.append(f"# TYPE {name} histogram")
            for edge in EDGES:
                count = sum(first <= edge for first in self.firsts)
                text.append(f'{name}_bucket{{le="{"+Inf" if math.isinf(edge) else edge}"}} {count}')
        return "\n".join([*text, ""])
