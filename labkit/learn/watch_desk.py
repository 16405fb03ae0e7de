"""What lab 19 starts: two llama-servers behind HAProxy, and what watches them: Prometheus, Alertmanager, Loki.

All of it is started at the first question and stopped whatever happens. A replica can be killed and started again.

>>> with Desk(models.resolve("smollm2-135m")) as desk:  # doctest: +SKIP
...     desk.value("in_flight")
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from labkit import servers
from labkit.core.errors import MissingPart
from labkit.core.loop import Loop
from labkit.core.records import ModelRef
from labkit.measure import load
from labkit.measure.load import Outcome, Plan
from labkit.scale import logs, observe, rules
from labkit.servers import Running, alertmanager, loki, prometheus, replicas

Rows = Sequence[dict[str, Any]]
PARTS = ("llama_server", "haproxy", "prometheus", "alertmanager", "loki")  # what the lab needs
REPLICAS = 2
EVERY_S = 1.0  # Prometheus asks everybody so often
CHECK_S = 0.5  # HAProxy looks at a replica's health so often
WAIT_S = 1.0  # Alertmanager waits so long for more alerts of a group
AGAIN_S = 2.0  # between a group's notifications
PART_S = 2.0  # a load that goes on until it is told to stop is made of parts
SERVER = "llama_server"


class Desk:
    """The watched service; a context manager, or `close` it. model None: only a recording is played."""

    def __init__(self, model: ModelRef | None, threads: int = 1, window_s: float = 10, hold_s: float = 3) -> None:
        self._model = model
        self.limits = rules.Limits(window_s=window_s, hold_s=hold_s, replicas=REPLICAS, deferred=2)
        self.options: dict[str, Any] = {"context": 512, "parallel": 2, "threads": threads}
        self._stack: contextlib.ExitStack | None = None
        self.told: list[dict[str, Any]] = []
        self._own: dict[int, Running] = {}

    @property
    def model(self) -> ModelRef:
        if self._model is None:
            raise MissingPart("this lab plays its recording: there is no model")
        return self._model

    def up(self) -> None:
        """Start everything that does not run yet, and wait until Prometheus has seen it all."""
        if self._stack is not None:
            return
        with contextlib.ExitStack() as stack:
            self.service = stack.enter_context(
                replicas.start(SERVER, self.model, REPLICAS, balancer={"check_s": CHECK_S}, **self.options)
            )  # fmt: skip
            self._own = dict(enumerate(self.service.replicas))
            address, self.told = stack.enter_context(alertmanager.hook())
            telling = stack.enter_context(alertmanager.start(webhook=address, wait_s=WAIT_S, between_s=AGAIN_S))
            self.keeping = stack.enter_context(loki.start())
            front = prometheus.Target(urls=[self.service.url], path="/haproxy/metrics")
            targets = {SERVER: [one.url for one in self.service.replicas], "haproxy": front}
            self.watching = stack.enter_context(
                prometheus.start(targets=targets, every_s=EVERY_S, rules=rules.text(self.limits), alertmanager=telling.url)
            )
            sources = [logs.haproxy(self.service.balancer), *logs.llama(self.service.replicas)]
            self.shipper = stack.enter_context(logs.ship(self.keeping.url, sources))
            stack.callback(self._stop_own)
            self.until(lambda: self.value("replicas_up") == REPLICAS and self.value("deferred") is not None)
            self._stack = stack.pop_all()

    def value(self, query: str) -> float | None:
        """What Prometheus says now to a query of the catalogue with one value; None: nothing yet."""
        rows = prometheus.query(self.watching.url, observe.query(query, self.limits.window_s))
        return rows[0]["value"] if len(rows) == 1 else None

    def alert(self, name: str) -> str:
        """inactive, pending or firing."""
        return next((row["state"] for row in prometheus.alerts(self.watching.url) if row["alertname"] == name), "inactive")

    def replica(self, number: int) -> Running:
        return self._own[number]

    def again(self, number: int) -> Running:
        """Start that replica again at its old address, without waiting for it."""
        port = urlsplit(self._own[number].url).port
        self._own[number].stop()
        self._own[number] = servers.open(SERVER).launch(self.model, port, **self.options)
        self.shipper.follow(logs.llama_one(self._own[number], number))
        return self._own[number]

    def ask(self, plan: Plan) -> list[Outcome]:
        return load.run(self.service.base_url, self.model.name, plan)

    @contextmanager
    def asked(self, rate: float, **plan: Any) -> Iterator[list[Outcome]]:
        """Requests at that rate for as long as the block lasts; what became of them."""
        found: list[Outcome] = []
        parts = itertools.count()

        def part() -> None:
            # each with arrivals of its own, which may be none: it takes its time all the same
            end = time.monotonic() + PART_S
            found.extend(self.ask(Plan(rate=rate, seconds=PART_S, warmup=0, seed=next(parts), **plan)))
            time.sleep(max(0.0, end - time.monotonic()))

        loop = Loop(part, 0.0, "requests")
        try:
            yield found
        finally:
            loop.stop()
        loop.check()

    def until(self, true: Callable[[], object], seconds: float = 60) -> None:
        """Raises TimeoutError where it does not become true."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"not seen within {seconds:.0f} s; the lab's servers may be short of processors: run the cell again")
            time.sleep(0.1)

    def rows(self, question: Callable[[], Rows]) -> Rows:
        """`question()` over the running service; after an error everything is stopped, and the next cell starts it anew."""
        try:
            self.up()
            return question()
        except BaseException:
            self.close()
            raise

    def _stop_own(self) -> None:
        for one in self._own.values():
            one.stop()

    def close(self) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            stack.close()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
