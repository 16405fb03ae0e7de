"""What lab 18 asks a real vLLM, one function a step, as rows: start, API, batching, prefix cache, restarts, KV space, other servers.

Each takes a Desk. Settings that a running server can switch are compared in turn on one server; one that needs a new process is
bracketed: A, B, A.
"""

from __future__ import annotations

import concurrent.futures
import functools
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import httpx

from labkit import engines, measure, servers
from labkit.core.records import Request
from labkit.facts import live
from labkit.learn import vllm_metrics as metrics
from labkit.learn import vllm_sums as sums
from labkit.learn.vllm_desk import Desk, Rows, figures, put_load
from labkit.measure import load, memory
from labkit.models import footprint, inspect
from labkit.quant import gguf
from labkit.servers import vllm

_CHAT = "/v1/chat/completions"
_WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a number; the KV cache has the same type as the weights
_SHORT: dict[str, Any] = {"chat": False, "prompt_tokens": 8}  # next to no prefill: what is measured is decode
_PASSAGE = (
    "The harbour master keeps a log. Each morning he writes down the ships that came in during the night, where they come from, "
    "what they carry, and how long they mean to stay. In the evening he reads it to the town. "
)


# -- start and API


def start_rows(desk: Desk) -> Rows:
    """From nothing to ready, and memory after a first answer: vLLM and llama-server with the same model. Seconds and bytes."""
    desk.close()
    prepare(desk)
    with desk.asked() as running:
        _one(running, desk.require().name)
        version, taken = servers.open("vllm").version(), memory.of_tree(running.pid)
        rows: Rows = [{"server": "vLLM", "version": version, "start_s": desk.start_s, "memory_bytes": taken}]
    begin = time.perf_counter()
    with servers.open("llama_server").start(desk.require(), context=1024, parallel=1) as other:
        seconds = time.perf_counter() - begin
        _one(other, desk.require().name)
        version = servers.open("llama_server").version()
        rows.append({"server": "llama-server", "version": version, "start_s": seconds, "memory_bytes": memory.of_tree(other.pid)})
    return rows


def prepare(desk: Desk) -> None:
    """What is made once and kept, so that no start has it in its time."""
    vllm.as_hf(desk.require())


def _one(running: servers.Running, model: str) -> None:
    put_load(running, model, concurrency=1, requests=1, output_tokens=4, **_SHORT)


def api_rows(desk: Desk) -> Rows:
    """Requests of OpenAI's API and of vLLM's own: what each was answered. `whose`: OpenAI's, vLLM's own, or nobody's."""
    name = desk.require().name
    talk = {"model": name, "messages": [{"role": "user", "content": "Is the sky blue?"}], "max_tokens": 8, "temperature": 0}
    asked: list[tuple[str, str, str, dict[str, Any] | None]] = [
        ("OpenAI's", "list the models", "/v1/models", None),
        ("OpenAI's", "chat", _CHAT, talk),
        ("OpenAI's", "a model that is not here", _CHAT, talk | {"model": "gpt-4"}),
        ("OpenAI's", "more tokens than the context", _CHAT, talk | {"max_tokens": 100_000}),
        ("vLLM's own", "chat with top_k and min_tokens", _CHAT, talk | {"top_k": 5, "min_tokens": 8}),
        ("vLLM's own", "chat, one of two answers", _CHAT, talk | {"structured_outputs": {"choice": ["yes", "no"]}}),
        ("nobody's", "chat with temprature (misspelt)", _CHAT, talk | {"temprature": 2}),
        ("vLLM's own", "count tokens", "/tokenize", {"model": name, "prompt": "Is the sky blue?"}),
        ("vLLM's own", "version", "/version", None),
    ]
    rows: Rows = []
    with desk.asked() as running, httpx.Client(base_url=running.url, timeout=120, trust_env=False) as client:
        for whose, what, route, body in asked:
            reply = client.get(route) if body is None else client.post(route, json=body)
            rows.append({"whose": whose, "asked": what, "route": route, "status": reply.status_code, "answer": _said(reply)})
    return rows


def _said(reply: httpx.Response) -> str:
    told = reply.json()
    if "choices" in told:
        return str(told["choices"][0]["message"]["content"])
    if "error" in told:
        return str(told["error"]["message"])[:120]
    shown = {key: value for key, value in told.items() if key in ("version", "count", "tokens")}
    return str(shown or [model["id"] for model in told.get("data", [])])


# -- continuous batching


def batching_rows(desk: Desk, levels: Sequence[int], rounds: int, tokens: int) -> Rows:
    """So many clients, each asking again as soon as it has its answer; the levels in turn, `rounds` times. One row a run."""
    with desk.asked() as running:

        def case(clients: int) -> Callable[[], dict[str, Any]]:
            plan = {"concurrency": clients, "requests": max(2, 2 * clients), "output_tokens": tokens, **_SHORT}
            return lambda: {"clients": clients, "tokens_each": tokens, **figures(put_load(running, desk.require().name, **plan)[0])}

        _one(running, desk.require().name)
        found = measure.ab({str(n): case(n) for n in levels}, repeats=rounds, warmup=0)
    return [row | {"round": turn} for rows in found.values() for turn, row in enumerate(rows)]


def burst_rows(desk: Desk, lengths: Sequence[int]) -> Rows:
    """All requests at the same moment, with answers of these lengths: when each began and ended, and the server's gauges meanwhile.

    Rows of two kinds: `request` (seconds from the burst) and `sample` (running, waiting, share of the KV cache).
    """
    with desk.asked() as running:
        sessions = [engines.open("openai").load(desk.require(), url=running.base_url) for _ in lengths]
        asks = [Request.chat(f"{n}: count from {n * 7}.", max_tokens=size, ignore_eos=True) for n, size in enumerate(lengths)]
        try:
            with metrics.Sampler(running.url) as seen, concurrent.futures.ThreadPoolExecutor(len(lengths)) as pool:
                begin = time.perf_counter_ns()
                found = list(pool.map(measure.one, sessions, asks))
        finally:
            for session in sessions:
                session.close()
    rows: Rows = []
    for number, one in enumerate(found):
        marks = {name: (getattr(one.marks_ns, name) - begin) / 1e9 for name in ("start", "first", "last")}
        rows.append({"kind": "request", "number": number, "output_tokens": one.output_tokens, **{f"{k}_s": v for k, v in marks.items()}})
    samples = [{"kind": "sample", "at_s": (row.pop("at_ns") - begin) / 1e9, **row} for row in seen.rows]
    return rows + samples


# -- prefix cache


def prefix_rows(desk: Desk, rounds: int, seed: int, words: int = 12) -> Rows:
    """A long text and a short question, three ways in turn: `same` beginning, `cache_salt` of its own, and `other` first words.

    One row a request: TTFT, prompt tokens, cached tokens as computed from the block size, as the answer's usage says, and as the
    server's counters grew.
    """
    name, salt = desk.require().name, f"lab-{seed}-{secrets.token_hex(4)}"
    passage = _PASSAGE * words
    with desk.asked() as running:
        block = int(metrics.read(running.url).labels("vllm:cache_config_info")["block_size"])

        asked: list[dict[str, Any]] = []

        def ask(kind: str) -> None:
            text = f"{passage}\n\nQuestion {len(asked)}: what does he write down?"
            text = f"Copy {len(asked)} of today. {text}" if kind == "other" else text
            cache = f"{salt}-{len(asked)}" if kind == "cache_salt" else salt
            before = metrics.read(running.url)
            plan = {"prompts": (text,), "salt": False, "extra": {"cache_salt": cache}, "output_tokens": 2}
            _, (out,) = put_load(running, name, concurrency=1, requests=1, **plan)
            after = metrics.read(running.url)
            grown = {key: metrics.grown(before, after, f"vllm:prefix_cache_{key}_total") for key in ("queries", "hits")}
            row = {"kind": kind, "ttft_s": out.ttft_s, "prompt_tokens": out.prompt_tokens, "usage_cached_tokens": out.cached_tokens}
            asked.append({**row, **grown, "salt": cache, "ids": _tokens(running, name, text)})

        ask("first")
        measure.ab({kind: functools.partial(ask, kind) for kind in ("same", "cache_salt", "other")}, repeats=rounds, warmup=0)
    return [_shared(row, asked[:place], block) for place, row in enumerate(asked)]


def _shared(row: dict[str, Any], earlier: Rows, block: int) -> dict[str, Any]:
    """A row with what the arithmetic says of its cached tokens: those it shares with some earlier prompt under the same salt."""
    shared = max((sums.common_prefix(one["ids"], row["ids"]) for one in earlier if one["salt"] == row["salt"]), default=0)
    kept = {key: value for key, value in row.items() if key not in ("ids", "salt")}
    predicted = sums.cached_tokens(len(row["ids"]), shared, block)
    return kept | {"shared_tokens": shared, "block_size": block, "predicted_tokens": predicted}


def _tokens(running: servers.Running, model: str, text: str) -> list[int]:
    """The ids of a chat prompt, template included, as the server has them."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return list(httpx.post(f"{running.url}/tokenize", json=body, timeout=60, trust_env=False).raise_for_status().json()["tokens"])


# -- near saturation


def open_rows(desk: Desk, shares: Sequence[float], capacity_per_s: float, seconds: float, tokens: int, slo: load.Slo, seed: int) -> Rows:
    """Requests that arrive by chance at shares of the capacity, whatever the answers do. Latencies count from when each was due.

    Each row has the client's figures, the server's TTFT histogram of the same requests, and the longest queue seen.
    """
    rows: Rows = []
    with desk.asked() as running:
        _one(running, desk.require().name)
        for share in shares:
            plan = {
                "rate": share * capacity_per_s,
                "seconds": seconds,
                "output_tokens": tokens,
                "prompt_tokens": 32,
                "slo": slo,
                "seed": seed,
            }
            before = metrics.read(running.url)
            with metrics.Sampler(running.url, 0.25) as seen:
                summary, _ = put_load(running, desk.require().name, **plan)
            buckets = metrics.grown_buckets(before, metrics.read(running.url), "vllm:time_to_first_token_seconds")
            found = {"share": share, "rate": plan["rate"], "goodput_per_s": summary.goodput_per_s, "requests_per_s": summary.requests_per_s}
            told = {"ttft_buckets": metrics.as_rows(buckets), "most_waiting": seen.most("waiting"), "most_running": seen.most("running")}
            rows.append({**found, **figures(summary), "interval_p95_s": list(summary.ttft_s.intervals["p95"]), **told})
    return rows


# -- what needs a new process


def bracket_rows(desk: Desk, sizes: Sequence[int], clients: int, tokens: int, repeats: int = 2) -> Rows:
    """The same load on servers that differ in max_num_seqs, started one after another (A, B, A). One row a run."""
    rows: Rows = []
    for turn, size in enumerate(sizes):
        with desk.asked(max_num_seqs=size) as running:
            _one(running, desk.require().name)
            plan = {"concurrency": clients, "requests": max(2, clients), "output_tokens": tokens, **_SHORT}
            for repeat in range(repeats):
                found = figures(put_load(running, desk.require().name, **plan)[0])
                rows.append({"turn": turn, "max_num_seqs": size, "repeat": repeat, "clients": clients, "start_s": desk.start_s, **found})
    return rows


# -- KV space


def space_rows(desk: Desk) -> Rows:
    """Tokens that fit into the KV cache: computed from the model's shape, and as the server says."""
    header = inspect.read(desk.require().path)
    with desk.asked() as running:
        told = metrics.read(running.url).labels("vllm:cache_config_info")
    size, each = int(desk.settings["kv_gib"] * 2**30), footprint.kv_bytes_per_token(header) * _WIDTH[desk.settings["dtype"]] / 2
    block, count = int(told["block_size"]), int(told["num_gpu_blocks"])
    row = {"kv_bytes": size, "bytes_per_token": each, "block_size": block, "blocks": count}
    return [row | {"predicted_tokens": sums.cache_tokens(size, each, block), "told_tokens": block * count}]


def preempt_rows(desk: Desk, levels: Sequence[int], rounds: int, tokens: int, prompt: int) -> Rows:
    """Long requests of so many clients in turn: throughput, preemptions, and how full the KV cache was. One row a run."""
    with desk.asked() as running:
        told = metrics.read(running.url).labels("vllm:cache_config_info")

        def case(clients: int) -> Callable[[], dict[str, Any]]:
            def run() -> dict[str, Any]:
                before = metrics.read(running.url)
                plan = {"concurrency": clients, "requests": clients, "output_tokens": tokens, "prompt_tokens": prompt, "chat": False}
                with metrics.Sampler(running.url, 0.25) as seen:
                    summary, outcomes = put_load(running, desk.require().name, **plan)
                stopped = metrics.grown(before, metrics.read(running.url), "vllm:num_preemptions_total")
                each = [(out.prompt_tokens or 0, out.output_tokens or 0) for out in outcomes]
                need = {"blocks_needed": sums.blocks_needed(each, int(told["block_size"])), "blocks": int(told["num_gpu_blocks"])}
                most = {"most_running": seen.most("running"), "most_cache_usage": seen.most("kv_cache_usage")}
                return {"clients": clients, "preemptions": stopped, **need, **most, **figures(summary)}

            return run

        found = measure.ab({str(n): case(n) for n in levels}, repeats=rounds, warmup=0)
    return [row for rows in found.values() for row in rows]


# -- other servers


def compare_rows(desk: Desk, levels: Sequence[int], rounds: int, tokens: int) -> Rows:
    """vLLM and llama-server on this machine, in turn; llama-server with the unpacked weights in 16 bits, and with the model's own file."""
    own, threads = desk.require(), desk.settings["threads"]
    files = {"llama-server, F16": gguf.as_type(own, "F16", progress=False), f"llama-server, {gguf.source_type(own)}": own}
    with desk.asked() as running, ExitStack() as stack:
        chosen = {"threads": threads, "context": 512, "parallel": max(levels), "cache_prompt": False}
        started = {name: stack.enter_context(servers.open("llama_server").start(ref, **chosen)) for name, ref in files.items()}
        sides = {f"vLLM, {desk.settings['dtype']}": (running, own.name), **{name: (started[name], ref.name) for name, ref in files.items()}}

        def case(name: str, clients: int) -> Callable[[], dict[str, Any]]:
            server, model = sides[name]
            plan = {"concurrency": clients, "requests": max(2, clients), "output_tokens": tokens, **_SHORT}
            return lambda: {"server": name, "clients": clients, **figures(put_load(server, model, **plan)[0])}

        for server, model in sides.values():
            _one(server, model)
        cases = {f"{name} {n}": case(name, n) for n in levels for name in sides}
        found = measure.ab(cases, repeats=rounds, warmup=0)
    return [row | {"threads": threads} for rows in found.values() for row in rows]


def claim_rows(desk: Desk) -> Rows:
    """The claims that a running vLLM decides, on the desk's server."""
    with desk.asked() as running:
        return list(live.rows(live.of("vllm"), live.World(vllm_url=running.url, vllm_model=desk.require().name)))
