"""Reading a server's /metrics: values, what counters grew by, buckets of a histogram, and gauges sampled while a load runs.

>>> before = read(url)
>>> ...                                                   # requests
>>> grown(before, read(url), "vllm:prefix_cache_hits_total")
896.0
>>> with Sampler(url) as seen:
...     ...
>>> seen.rows[0]
{'at_ns': 1, 'running': 16.0, 'waiting': 4.0, 'kv_cache_usage': 0.31}
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from labkit.core.errors import BadInput, nearest

Buckets = list[tuple[float, float]]
GAUGES = {"running": "vllm:num_requests_running", "waiting": "vllm:num_requests_waiting", "kv_cache_usage": "vllm:kv_cache_usage_perc"}


class Sample(NamedTuple):
    """One line of /metrics."""

    labels: dict[str, str]
    value: float


class Metrics(dict[str, list[Sample]]):
    """Lines by their name, `_total`, `_bucket`, `_count` and `_sum` included."""

    def lines(self, name: str) -> list[Sample]:
        """Raises BadInput for a name that the server does not have, with the nearest."""
        if name not in self:
            raise BadInput(f"/metrics has no {name!r} ({nearest(name, self)})", "look at /metrics itself")
        return self[name]

    def value(self, name: str, **labels: str) -> float:
        """The sum over all lines of that name that have these labels."""
        return sum(line.value for line in self.lines(name) if labels.items() <= line.labels.items())

    def labels(self, name: str) -> dict[str, str]:
        """The labels of a name that stands there once, as vllm:cache_config_info does."""
        return self.lines(name)[0].labels

    def buckets(self, name: str) -> Buckets:
        """(upper edge, count of all up to it) of a histogram, ascending; lines that differ in other labels are added."""
        found: dict[float, float] = {}
        for line in self.lines(f"{name}_bucket"):
            edge = float(line.labels["le"])
            found[edge] = found.get(edge, 0.0) + line.value
        return sorted(found.items())


def parse(text: str) -> Metrics:
    """The text format of Prometheus."""
    found = Metrics()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(Sample(dict(sample.labels), float(sample.value)))
    return found


def read(url: str) -> Metrics:
    """url: the server's web root. Raises httpx.HTTPError where it does not answer."""
    reply = httpx.get(f"{url}/metrics", timeout=10, trust_env=False)
    return parse(reply.raise_for_status().text)


def grown(before: Metrics, after: Metrics, name: str, **labels: str) -> float:
    """What a counter grew by: its value alone only says what has been since the server's start."""
    return after.value(name, **labels) - before.value(name, **labels)


def grown_buckets(before: Metrics, after: Metrics, name: str) -> Buckets:
    """The same for a histogram: its buckets are counters."""
    earlier = dict(before.buckets(name))
    return [(edge, count - earlier.get(edge, 0.0)) for edge, count in after.buckets(name)]


def as_rows(buckets: Buckets) -> list[list[float | None]]:
    """Buckets as JSON has them: None stands for infinite."""
    return [[None if math.isinf(edge) else edge, count] for edge, count in buckets]


def from_rows(rows: list[list[float | None]]) -> Buckets:
    """And back."""
    return [(math.inf if edge is None else edge, float(count or 0)) for edge, count in rows]


class Sampler:
    """Reads gauges every `every_s` seconds in a thread of its own, as Prometheus does every 15 s or so.

    `missed` counts the readings that failed. A busy server answers late, and then there is a gap.
    """

    def __init__(self, url: str, every_s: float = 0.1, gauges: Mapping[str, str] = GAUGES) -> None:
        self.url, self.every_s, self.gauges = url, every_s, dict(gauges)
        self.rows: list[dict[str, Any]] = []
        self.missed = 0
        self._client = httpx.Client(timeout=5, trust_env=False)  # made here: it takes a moment, which the first samples would miss
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labkit-sampler", daemon=True)

    def _run(self) -> None:
        while not self._end.is_set():
            begin = time.perf_counter_ns()
            try:
                found = parse(self._client.get(f"{self.url}/metrics").raise_for_status().text)
                self.rows.append({"at_ns": begin, **{name: found.value(metric) for name, metric in self.gauges.items()}})
            except httpx.HTTPError:
                self.missed += 1
            self._end.wait(max(0.0, self.every_s - (time.perf_counter_ns() - begin) / 1e9))

    def most(self, name: str) -> float | None:
        """The largest value seen of a gauge."""
        return max((row[name] for row in self.rows), default=None)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._client.close()
