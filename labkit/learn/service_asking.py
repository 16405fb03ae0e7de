"""How lab 17 asks a service: whole answers, streams with the time of each piece, clients that leave, looks at its health.

It asks over plain HTTP, not through a client library: a client library hides the status codes that the lab is about.

>>> with Desk(model) as desk:
...     desk.site("correct").answer("Name three colours.", max_tokens=12).tokens
12
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from labkit.core.records import Message
from labkit.engines.hf_text import HfText
from labkit.servers import Running
from labkit.servers.images import Container

CHAT, HEALTH = "/v1/chat/completions", "/health"
_WAIT_S = 600  # longer than anything that the lab asks for takes, on a slow and busy machine too


@dataclass
class Answer:
    """What came back: status, headers, the text, what the service counted; for a stream the seconds at which pieces came."""

    status: int
    seconds: float
    text: str = ""
    reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    whole: bool = False  # did a stream say that it is at its end?
    error: str = ""

    @property
    def tokens(self) -> int | None:
        """Tokens of the answer, as the service counted them."""
        return self.usage.get("completion_tokens")

    @property
    def answered(self) -> bool:
        return self.status == 200 and bool(self.text) and not self.error


@dataclass
class Site:
    """A running service, and what the lab knows of it: its limits, and its model's tokenizer to count with."""

    name: str
    running: Running | Container  # whatever has a `url`
    text: HfText
    model: str
    context: int  # tokens of prompt and answer of a request
    parallel: int  # requests that are answered at a time
    queue_length: int  # requests that may wait for that
    folder: Path  # of the model
    again: Callable[..., Running]  # one more process of the same kind, not waited for; takes another folder

    def of(self, running: Running) -> Site:
        """The same of another process."""
        return replace(self, running=running)

    @property
    def url(self) -> str:
        return self.running.url

    def body(self, prompt: str, **more: Any) -> dict[str, Any]:
        """A request: greedy, so that the same question has the same answer."""
        return {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, **more}

    def prompt_tokens(self, prompt: str) -> int:
        """Tokens of that request's prompt, the chat template's markers included, by the model's own tokenizer."""
        return len(self.text.tokenize(self.text.chat_prompt([Message(role="user", content=prompt)]), special=True))

    def get(self, path: str, timeout: float = _WAIT_S) -> httpx.Response:
        with client(self.url, timeout) as http:
            return http.get(path)

    def post(self, content: bytes, path: str = CHAT) -> httpx.Response:
        """These bytes as they are, said to be JSON."""
        with client(self.url) as http:
            return http.post(path, content=content, headers={"Content-Type": "application/json"})

    def answer(self, prompt: str, **more: Any) -> Answer:
        """One whole answer."""
        with client(self.url) as http:
            started = time.perf_counter()
            reply = http.post(CHAT, json=self.body(prompt, **more))
            return read(reply, time.perf_counter() - started)

    def stream(self, prompt: str, **more: Any) -> Answer:
        """An answer in pieces, with their times."""
        asked = self.body(prompt, stream=True, stream_options={"include_usage": True}, **more)
        with client(self.url) as http:
            started = time.perf_counter()
            with http.stream("POST", CHAT, json=asked) as reply:
                if "text/event-stream" not in reply.headers.get("content-type", ""):
                    reply.read()
                    return read(reply, time.perf_counter() - started)
                found = Answer(reply.status_code, 0.0, headers=dict(reply.headers))
                try:
                    for line in reply.iter_lines():
                        _take(found, line, time.perf_counter() - started)
                except httpx.RemoteProtocolError as error:
                    found.error = f"the stream was cut: {error}"
            found.text, found.seconds = "".join(found.pieces), time.perf_counter() - started
        return found

    def leave(self, prompt: str, after_s: float, **more: Any) -> None:
        """Ask, and go away at the first piece, or after so many seconds: as a user who closes the page."""
        asked = self.body(prompt, stream=True, **more)
        try:
            with client(self.url, after_s) as http, http.stream("POST", CHAT, json=asked) as reply:
                next(reply.iter_bytes(), b"")
        except httpx.TimeoutException:
            return  # that is the leaving


def client(url: str, timeout: float = _WAIT_S) -> httpx.Client:
    """One that goes to this machine and nowhere else."""
    return httpx.Client(base_url=url, timeout=timeout, trust_env=False)


def read(reply: httpx.Response, seconds: float) -> Answer:
    """A whole answer, or the error in its place."""
    found = Answer(reply.status_code, seconds, headers=dict(reply.headers))
    try:
        told = reply.json()
    except ValueError:
        found.error = reply.text[:200]
        return found
    if reply.status_code != 200 or not isinstance(told, dict) or "choices" not in told:
        found.error = json.dumps(told.get("error", told) if isinstance(told, dict) else told)[:200]
        return found
    choice = told["choices"][0]
    found.text, found.reason, found.usage = choice["message"]["content"] or "", choice.get("finish_reason"), told.get("usage") or {}
    return found


def _take(found: Answer, line: str, now: float) -> None:
    """One line of a stream of server-sent events."""
    if line == "data: [DONE]":
        found.whole = True
    elif line.startswith("data: "):
        told = json.loads(line[6:])
        if "error" in told:
            found.error = json.dumps(told["error"])[:200]
        found.usage = told.get("usage") or found.usage
        for choice in told.get("choices", []):
            found.reason = choice.get("finish_reason") or found.reason
            if piece := (choice.get("delta") or {}).get("content"):
                found.pieces.append(piece)
                found.at_s.append(now)


def at_once(work: Callable[[int], Any], count: int) -> list[Any]:
    """`work(0)` … `work(count - 1)` in threads that start at the same moment; the results in their order."""
    gate = threading.Barrier(count)

    def one(n: int) -> Any:
        gate.wait()
        return work(n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def looks(url: str, path: str, while_: Callable[[], Any], every_s: float = 0.05) -> tuple[Any, list[dict[str, float]]]:
    """Runs `while_` in a thread and looks at `path` meanwhile, in turn: (its result, rows of at_s and latency_s).

    The next look is sent when its time has come and the one before has been answered: a service that is silent shows one long
    latency, not many.
    """
    rows: list[dict[str, float]] = []
    with ThreadPoolExecutor(1) as pool, client(url) as http:
        http.get(path)  # the connection is there
        begin = time.perf_counter()
        work = pool.submit(while_)
        while not work.done():
            sent = time.perf_counter()
            http.get(path)
            answered = time.perf_counter()
            rows.append({"at_s": sent - begin, "latency_s": answered - sent})
            time.sleep(max(0.0, every_s - (answered - sent)))
    return work.result(), rows


def worst(rows: Sequence[dict[str, float]]) -> float:
    """The longest latency of some looks, in seconds."""
    return max(row["latency_s"] for row in rows)
