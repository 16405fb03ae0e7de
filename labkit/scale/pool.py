"""A number of replicas that can be changed while they serve, behind one address.

More: a server is started, and gets requests once it is healthy. Fewer: the youngest gets no new request, finishes those that it has,
and is stopped then, so that nobody's answer is cut. Behind it is HAProxy with a place for each.

>>> with pool.open(lambda: kind.launch(model, threads=1), most=4) as replicas:  # doctest: +SKIP
...     replicas.resize(2)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from labkit.core.errors import BadInput
from labkit.core.loop import Loop
from labkit.servers import haproxy
from labkit.servers.base import Running

LOOK_S = 0.1


class Count(NamedTuple):
    """Replicas at a time (s, time.monotonic): those that are wanted, that run, and that are ready for requests."""

    at_s: float
    wanted: int
    running: int
    ready: int


class Pool:
    """Its methods may be called from any thread; a thread of its own starts, watches and stops the replicas."""

    def __init__(self, front: Running, launch: Callable[[], Running], most: int, drain_s: float) -> None:
        self.front, self.url, self.base_url = front, front.url, f"{front.url}/v1"
        self.most, self.counts = most, list[Count]()
        self._launch, self._drain_s, self._places = launch, drain_s, haproxy.Places(front)
        self._here: dict[int, Running] = {}
        self._ready: set[int] = set()
        self._leaving: dict[int, float] = {}
        self._wanted = 0
        self._loop = Loop(self._look, LOOK_S, "pool")

    def resize(self, wanted: int) -> None:
        """Returns at once. Raises BadInput beyond its places, and whatever went wrong with a replica before."""
        self._loop.check()
        if not 0 <= wanted <= self.most:
            raise BadInput(f"{wanted} replicas do not fit into {self.most} places", f"0 to {self.most}")
        self._wanted = wanted

    def ready(self) -> int:
        return len(self._ready)

    def wait(self, count: int, seconds: float = 120) -> None:
        """Until so many, and no more, are ready. Raises what went wrong with a replica, or TimeoutError."""
        end = time.monotonic() + seconds
        while len(self._ready) != count or len(self._here) != count:
            self._loop.check()
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self._ready)} of {count} replicas are ready after {seconds:.0f} s")
            time.sleep(0.02)

    def replicas(self) -> dict[int, Running]:
        """By HAProxy's place: those that run now."""
        return dict(self._here)

    def close(self) -> None:
        self._loop.stop()
        for one in self._here.values():
            one.stop()

    def _look(self) -> None:
        self._end_the_dead()
        staying = sorted(set(self._here) - set(self._leaving))
        for _ in range(self._wanted - len(staying)):
            place = min(set(range(self.most)) - set(self._here), default=None)
            if place is None:
                break  # those that leave have not gone yet
            self._here[place] = self._launch()
        for place in staying[self._wanted :]:
            self._places.drain(place)
            self._ready.discard(place)
            self._leaving[place] = time.monotonic() + self._drain_s
        for place, one in self._here.items():
            if place not in self._ready and place not in self._leaving and one.healthy():
                self._places.put(place, one.url)
                self._ready.add(place)
        if self._leaving:
            busy = self._places.in_flight()
            for place in [p for p, end in self._leaving.items() if busy[p] == 0 or time.monotonic() > end]:
                self._gone(place).stop()
        self.counts.append(Count(time.monotonic(), self._wanted, len(self._here), len(self._ready)))

    def _end_the_dead(self) -> None:
        """A replica that died makes room for another; HAProxy's health checks have seen it already."""
        for place in [p for p, one in self._here.items() if not one.alive()]:
            self._gone(place).stop()

    def _gone(self, place: int) -> Running:
        self._places.clear(place)
        self._ready.discard(place)
        self._leaving.pop(place, None)
        return self._here.pop(place)


@contextmanager
def open(launch: Callable[[], Running], most: int, drain_s: float = 30.0, **balancer: Any) -> Iterator[Pool]:
    """An empty pool, all of it stopped at the end. launch: starts one replica without waiting, as Server.launch does. drain_s: how
    long a replica that has to go may take for the answers that it has begun. balancer: options of HAProxy.
    """
    with haproxy.start(**{"spare": most, **balancer}) as front:
        made = Pool(front, launch, most, drain_s)
        try:
            yield made
        finally:
            made.close()
