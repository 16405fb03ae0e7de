"""Logs of several servers in one place: one record a request, from the balancer and from each replica.

A shipper follows the servers' log files and gives what it finds to Loki, every half second. Of HAProxy it takes its JSON line a
request, as it is. llama-server writes several lines a request; they become one JSON record with its tokens and times. No record
holds a word of a prompt or an answer: neither server writes any.

>>> with loki.start() as keeping, logs.ship(keeping.url, [logs.haproxy(front), *logs.llama(replicas)]):  # doctest: +SKIP
...     ...
...     loki.search(keeping.url, '{job="haproxy"} | json | total_ms > 500')
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labkit.core.loop import Loop
from labkit.servers import loki
from labkit.servers.base import Running

EVERY_S = 0.5


class Record(NamedTuple):
    """One request as a log line. time_ns: Unix time; None: when it was read."""

    time_ns: int | None
    line: str


class Source(NamedTuple):
    """A log file that grows, the labels of its stream, and what turns a line of it into a record, or into none."""

    path: Path
    labels: dict[str, str]
    read: Callable[[str], Record | None]


def haproxy(front: Running) -> Source:
    return Source(front.log, {"job": "haproxy"}, _haproxy_line)


def llama(replicas: Sequence[Running]) -> list[Source]:
    """llama-server's, in HAProxy's order and under its names: r0, r1, …"""
    return [llama_one(one, number) for number, one in enumerate(replicas)]


def llama_one(replica: Running, number: int) -> Source:
    return Source(replica.log, {"job": "llama_server", "server": f"r{number}"}, LlamaLines())


def _haproxy_line(text: str) -> Record | None:
    if not text.startswith("{"):
        return None  # what it says of itself: a server that is down, a setting
    row = json.loads(text)
    return Record(round(row["accepted"] * 1e9), text)


_TIMING = re.compile(
    r"print_timing: id +\d+ \| task (?P<task>\d+) \| +(?P<what>prompt eval|eval) time = +(?P<ms>[\d.]+) ms / +(?P<tokens>\d+) tokens"
)
_END = re.compile(r"release: id +(?P<slot>\d+) \| task (?P<task>\d+) \| stop processing: n_tokens = (?P<held>\d+), truncated = (?P<cut>\d)")


class LlamaLines:
    """llama-server's lines of one request, which other requests' lines may stand between, as one record when the request ends.

    {"task": 7, "slot": 0, "prompt_tokens": 34, "prompt_ms": 155.46, "output_tokens": 8, "output_ms": 56.26, "held_tokens": 41}
    """

    def __init__(self) -> None:
        self._begun: dict[int, dict[str, Any]] = {}

    def __call__(self, text: str) -> Record | None:
        if found := _TIMING.search(text):
            kind = "prompt" if found["what"] == "prompt eval" else "output"
            row = self._begun.setdefault(int(found["task"]), {})
            row |= {f"{kind}_tokens": int(found["tokens"]), f"{kind}_ms": float(found["ms"])}
        elif found := _END.search(text):
            # a request whose client went away has no times: it is a record all the same
            row = {"task": int(found["task"]), "slot": int(found["slot"]), **self._begun.pop(int(found["task"]), {})}
            return Record(None, json.dumps(row | {"held_tokens": int(found["held"])}))
        return None


@dataclass
class _Place:
    """How far a source has been read, and the beginning of a line whose end has not come."""

    source: Source
    offset: int = 0
    rest: bytes = b""


class Shipper:
    """Follows its sources and pushes what is new. `shipped`: records so far."""

    def __init__(self, url: str, sources: Sequence[Source]) -> None:
        self.url, self.shipped = url, 0
        self._places = [_Place(source) for source in sources]

    def follow(self, source: Source) -> None:
        """One more file from now on: a server that was started again writes a new one."""
        self._places.append(_Place(source))

    def look(self) -> None:
        """Once over all files. A line without its end waits for the rest of it."""
        for place in list(self._places):
            source = place.source
            with source.path.open("rb") as file:
                file.seek(place.offset)
                new = file.read()
            *lines, place.rest = (place.rest + new).split(b"\n")
            place.offset += len(new)
            now = time.time_ns()
            records = [record for line in lines if (record := source.read(line.decode("utf-8", "replace").rstrip())) is not None]
            if records:
                loki.push(self.url, source.labels, [(record.time_ns or now + n, record.line) for n, record in enumerate(records)])
                self.shipped += len(records)


@contextmanager
def ship(url: str, sources: Sequence[Source], every_s: float = EVERY_S) -> Iterator[Shipper]:
    """A shipper at work in the background, and once more at the end. Raises at the end what went wrong on the way."""
    shipper = Shipper(url, sources)
    loop = Loop(shipper.look, every_s, "shipper")
    try:
        yield shipper
    finally:
        loop.stop()
    loop.check()
    shipper.look()
