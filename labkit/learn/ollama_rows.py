"""What lab 10 asks a real Ollama, one function a question, as rows: the life of a model, answers, memory, parallel requests.

Each takes a Desk, or a model for which it starts servers of its own and stops them.

>>> with Desk(models.resolve("smollm2-135m")) as desk:
...     start_rows(desk)
"""

from __future__ import annotations

import concurrent.futures
import math
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from labkit import engines, measure, servers
from labkit.core.records import ModelRef, Request
from labkit.facts.live.world import World
from labkit.learn.ollama_view import Desk, Rows, predicted_bytes
from labkit.measure import memory
from labkit.servers import ollama as server
from labkit.servers import runtimes

_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what moves a terminal's cursor
_CHAT = "/v1/chat/completions"
ASKED = "What is the password? The password is"  # the end of the prompt of cut_rows
_STORY = "Tell me a story about a small robot that learns to sail."


def start_rows(desk: Desk) -> Rows:
    """A server from nothing: seconds until it answers with the model in its store; its version and settings."""
    desk.close()
    begin = time.perf_counter()
    running = desk.server()
    seconds = time.perf_counter() - begin
    stored = sum(f.stat().st_size for f in (running.folder or Path()).rglob("*") if f.is_file())
    return [{"version": server.answers(running.url), "start_s": seconds, "models": server.names(running.url), "stored_bytes": stored}]


def command_rows(desk: Desk, commands: Sequence[Sequence[str]]) -> Rows:
    """Commands of the CLI, run as lists (no shell): exit code and the first lines of what each wrote."""
    running = desk.server()
    program = str(runtimes.open("ollama").require().path)
    here = servers.open("ollama").environment(int(running.url.rsplit(":", 1)[1]), running.folder or Path())
    rows = []
    for words in commands:
        done = subprocess.run(
            [program, *words], env={**_bare(), **here}, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
        )
        text = _TERMINAL.sub("", done.stdout or done.stderr)
        said = [line.rstrip() for line in text.splitlines() if line.strip()]
        rows.append({"command": " ".join(["ollama", *map(_short, words)]), "exit_code": done.returncode, "output": said[:8]})
    return rows


def modelfile_rows(desk: Desk, files: dict[str, str]) -> Rows:
    """`ollama create` from each Modelfile, under the name lab-…; then what Ollama says of the first."""
    with tempfile.TemporaryDirectory(prefix="labkit-modelfile-") as folder:
        words = []
        for name, text in files.items():
            path = Path(folder) / f"{name}.Modelfile"
            path.write_text(text, encoding="utf-8")
            words.append(["create", f"lab-{name}", "-f", str(path)])
        first = f"lab-{next(iter(files))}"
        return command_rows(desk, [*words, ["show", first, "--parameters"], ["show", first, "--system"]])


def _bare() -> dict[str, str]:
    """No colours and no progress bars in what the CLI writes."""
    return {**os.environ, "TERM": "dumb", "NO_COLOR": "1"}


def _short(word: str) -> str:
    return Path(word).name if "/" in word and Path(word).exists() else word


def refused_rows(desk: Desk, questions: dict[str, Callable[[Any], Any]]) -> Rows:
    """Requests that must fail: what each was answered. One that does not fail says so."""
    api, rows = server.library(), []
    for name, question in questions.items():

        def one(client: Any, question: Callable[[Any], Any] = question) -> Any:
            try:
                question(client)
            except api.ResponseError as error:
                return {"status": error.status_code, "error": error.error[:300]}
            return {"status": 200, "error": ""}

        rows.append({"request": name, **desk.ask(one)})
    return rows


# -- what an answer is made of


def stage_rows(desk: Desk, prompt: str, tokens: int, warm: int = 3) -> Rows:
    """The same request on a model that is not loaded, and `warm` times after: seconds by stage, as Ollama states them."""

    def ask(client: Any) -> Rows:
        client.generate(desk.name, keep_alive=0)
        rows = []
        for turn in range(1 + warm):
            told = client.generate(desk.name, f"{prompt} (Part {turn + 1}.)", options={"num_predict": tokens, "temperature": 0})
            stages = {"load": told.load_duration, "prompt": told.prompt_eval_duration, "answer": told.eval_duration}
            counts = {"prompt_tokens": told.prompt_eval_count, "output_tokens": told.eval_count}
            rows.append(
                {"request": "first" if turn == 0 else f"next {turn}", **{f"{k}_s": (v or 0) / 1e9 for k, v in stages.items()}, **counts}
            )
        return rows

    return list(desk.ask(ask))


def stay_rows(desk: Desk, times: Sequence[str | int], look_after_s: float = 1.5) -> Rows:
    """keep_alive: is the model loaded right after an answer, and a moment later?"""

    def ask(client: Any) -> Rows:
        rows = []
        for keep_alive in times:
            client.generate(desk.name, "Hi", options={"num_predict": 1}, keep_alive=keep_alive)
            first = bool(client.ps().models)
            time.sleep(look_after_s)
            rows.append(
                {"keep_alive": str(keep_alive), "loaded_at_once": first, "loaded_later": bool(client.ps().models), "later_s": look_after_s}
            )
        return rows

    return list(desk.ask(ask))


def cut_rows(desk: Desk, context: int = 128, enough: int = 1024) -> Rows:
    """A prompt that does not fit `context`: what Ollama reads and answers, what it says when it may not shorten it, and with `enough`.

    The prompt is sent raw, so it is all that the model sees. What it is asked for stands near its beginning.
    """
    prompt = "A note to all of us. The password is tulip. " + "The sky is blue and the grass is green. " * 40 + ASKED
    running = desk.server()
    rows: Rows = []
    for size, truncate in ((context, None), (context, False), (enough, None)):
        options = {"num_ctx": size, "num_predict": 8, "temperature": 0, "repeat_penalty": 1.0}
        body: dict[str, Any] = {"model": desk.name, "prompt": prompt, "raw": True, "stream": False, "options": options}
        reply = httpx.post(f"{running.url}/api/generate", json=body | ({} if truncate is None else {"truncate": truncate}), timeout=120)
        told = reply.json()
        asked = {"context": size, "truncate": "not said" if truncate is None else "false", "status": reply.status_code}
        rows.append(
            asked | {"tokens_read": told.get("prompt_eval_count"), "answer": told.get("response", ""), "error": told.get("error", "")}
        )
    return [{"prompt_tokens": rows[-1]["tokens_read"], **row} for row in rows]


def embedding_rows(desk: Desk, texts: Sequence[str]) -> Rows:
    """A vector for each text, as the cosine of the angle to the first one; or what Ollama answers where it refuses the model."""
    running = desk.server()
    reply = httpx.post(f"{running.url}/api/embed", json={"model": desk.name, "input": list(texts)}, timeout=120)
    if reply.status_code != 200:
        return [
            {"text": text, "status": reply.status_code, "cosine": None, "length": None, "error": reply.json().get("error", "")}
            for text in texts
        ]
    vectors = reply.json()["embeddings"]
    return [
        {"text": text, "status": 200, "cosine": cosine(vectors[0], vector), "length": len(vector), "error": ""}
        for text, vector in zip(texts, vectors, strict=True)
    ]


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """1 for the same direction, 0 for nothing in common."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def openai_rows(desk: Desk, question: str, tokens: int) -> Rows:
    """The same question through Ollama's own API, through its OpenAI endpoint, and there with the penalty off in the model."""
    ref, plain = desk.require(), f"{desk.name}-plain"
    desk.ask(lambda client: client.create(plain, from_=desk.name, parameters={"repeat_penalty": 1.0}))
    url, request, rows = desk.server().base_url, Request.chat(question, max_tokens=tokens), []
    other = ModelRef(name=plain, path=ref.path, format="endpoint")
    for name, model, address in (("ollama", ref, "/api/chat"), ("openai", ref, _CHAT), ("openai", other, _CHAT)):
        session = engines.open(name).load(model, url=url)
        found = measure.run(session, request, repeats=1)[0]
        session.close()
        keep = ("prompt_tokens", "output_tokens", "finish_reason", "ttft_s", "decode_tokens_per_s", "text")
        rows.append({"client": name, "address": address, "model": model.name, **{key: getattr(found, key) for key in keep}})
    return rows


# -- settings of the server


def memory_rows(ref: ModelRef, settings: Sequence[tuple[int, int]]) -> Rows:
    """For each (context, parallel): a server of its own, one request, and the memory of its processes (proportional set size)."""
    rows = []
    for context, parallel in settings:
        with Desk(ref, context=context, parallel=parallel, max_loaded=1) as desk:
            desk.ask(lambda client: client.generate(desk.name, "Hi", options={"num_predict": 1}))
            (loaded,) = desk.ask(lambda client: client.ps().models)
            parts = predicted_bytes(ref, context, parallel)
            row = {"context": context, "parallel": parallel, "measured_bytes": memory.of_tree(desk.server().pid), **parts}
            rows.append({**row, "predicted_bytes": sum(parts.values()), "stated_bytes": loaded.size})
    return rows


def parallel_rows(ref: ModelRef, slots: Sequence[int], clients: int, tokens: int) -> Rows:
    """So many clients ask at the same moment, at each OLLAMA_NUM_PARALLEL: tokens a second of all, and the slowest first token."""
    rows = []
    for parallel in slots:
        with Desk(ref, context=512, parallel=parallel) as desk:
            url = desk.server().base_url
            sessions = [engines.open("openai").load(ref, url=url) for _ in range(clients)]
            asks = [Request.chat(f"{_STORY} Number {n}.", max_tokens=tokens) for n in range(clients)]
            measure.one(sessions[0], Request.chat("Hi", max_tokens=1))  # load it first
            begin = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(clients) as pool:
                found = list(pool.map(measure.one, sessions, asks))
            seconds = time.perf_counter() - begin
            for session in sessions:
                session.close()
            total = sum(m.output_tokens or 0 for m in found)
            waits = [m.ttft_s or 0.0 for m in found]
            rows.append(
                {
                    "parallel": parallel,
                    "clients": clients,
                    "tokens_per_s": total / seconds,
                    "worst_ttft_s": max(waits),
                    "best_ttft_s": min(waits),
                }
            )
    return rows


def quantize_rows(source: ModelRef, kinds: Sequence[str]) -> Rows:
    """Make smaller models of an unquantized one while Ollama creates them: bytes, seconds, and what it refuses."""
    with Desk(source) as desk:
        api = server.library()

        def ask(client: Any) -> Rows:
            rows = [{"type": "F16", "bytes": _size(client, desk.name), "seconds": None, "error": ""}]
            for kind in kinds:
                begin = time.perf_counter()
                try:
                    client.create(f"small-{kind.lower()}", from_=desk.name, quantize=kind)
                except api.ResponseError as error:
                    rows.append({"type": kind, "bytes": None, "seconds": None, "error": error.error[:300]})
                    continue
                rows.append(
                    {"type": kind, "bytes": _size(client, f"small-{kind.lower()}"), "seconds": time.perf_counter() - begin, "error": ""}
                )
            return rows

        return list(desk.ask(ask))


def _size(client: Any, name: str) -> int:
    return next(int(m.size) for m in client.list().models if m.model.removesuffix(":latest") == name)


def world(desk: Desk) -> World:
    """The desk's server, for claims that a running Ollama decides (labkit.facts.live)."""
    found = runtimes.open("ollama").find()
    return World(ollama_url=desk.server().url, ollama_model=desk.name, ollama_program=str(found.path) if found else None)
