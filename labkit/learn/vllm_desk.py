"""The vLLM of lab 18: a Desk that starts it, restarts it where a setting needs that, and stops it whatever happens.

>>> with Desk(models.resolve("smollm2-135m")) as desk, desk.asked() as running:
...     print(running.base_url)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from labkit import servers
from labkit.core.errors import MissingPart, RunFailed
from labkit.core.records import ModelRef
from labkit.measure import load
from labkit.measure.load import Plan, Summary

Rows = list[dict[str, Any]]
MB = 1_000_000


class Desk:
    """The lab's server: started by the first step that asks, stopped by close(), by an error and at the end of the kernel.

    settings: options of the server `vllm`. A step that wants others gets a new process, since vLLM reads them once, at its start.
    """

    def __init__(self, model: ModelRef | None, **settings: Any) -> None:
        self.model, self.settings = model, settings
        self.running: servers.Running | None = None
        self.start_s: float | None = None  # of the last start
        self._started: dict[str, Any] = {}

    def server(self, **changed: Any) -> servers.Running:
        """The running server with the lab's settings, or with some of them changed; a new one where it has ended or differs."""
        wanted = self.settings | changed
        if self.running and not self.running.alive():
            print("vLLM had ended; a new one is started, which takes a while.")  # noqa: T201 - the reader must see it
        if self.running and (not self.running.alive() or wanted != self._started):
            self.close()
        if self.running is None:
            model = self.require()
            begin = time.perf_counter()
            self.running = servers.open("vllm").start(model, **wanted)
            self.start_s, self._started = time.perf_counter() - begin, wanted
        return self.running

    def require(self) -> ModelRef:
        """The model. Raises MissingPart where the lab plays its recording."""
        if self.model is None:
            raise MissingPart("this lab plays its recording: there is no model", "labkit runtimes install vllm")
        return self.model

    @contextlib.contextmanager
    def asked(self, **changed: Any) -> Iterator[servers.Running]:
        """The server for the length of a step. An error or Ctrl-C in it stops the server; the next step starts another."""
        try:
            yield self.server(**changed)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self.running:
            self.running.stop()
            self.running = None

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def put_load(running: servers.Running, model: str, **plan: Any) -> tuple[Summary, list[load.Outcome]]:
    """One load run on a server: requests of a fixed number of output tokens, so that all do the same work.

    Raises RunFailed where a request does not end well: a figure from half of the requests would flatter the server.
    """
    made = Plan(**{"ignore_eos": True, "warmup": 0, "timeout_s": 120.0, **plan})
    outcomes = load.run(running.base_url, model, made)
    bad = [outcome for outcome in outcomes if outcome.status != "ok"]
    if bad or not outcomes:
        said = f"{bad[0].status}: {bad[0].error}" if bad else "no request was sent"
        raise RunFailed(f"{len(bad)} of {len(outcomes)} requests to {running.name} did not end well ({said})", f"its log is {running.log}")
    return load.summarize(outcomes, made), outcomes


def figures(summary: Summary) -> dict[str, Any]:
    """What the lab keeps of a load run: medians in seconds, and tokens a second of all clients together."""
    return {
        "tokens_per_s": summary.tokens_per_s,
        "ttft_s": summary.ttft_s.p50,
        "ttft_p95_s": summary.ttft_s.p95,
        "tpot_s": summary.tpot_s.p50,
        "requests": summary.ok,
        "output_tokens": summary.output_tokens,
        "prompt_tokens": summary.prompt_tokens,
        "seconds": summary.duration_s,
    }
