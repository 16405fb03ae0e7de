"""Several equal servers behind one address: replicas of a model server with HAProxy in front.

>>> with replicas.start("llama_server", models.resolve("smollm2-135m"), 2, threads=1) as several:  # doctest: +SKIP
...     print(several.base_url, [one.pid for one in several.replicas])
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from labkit import servers
from labkit.core.errors import MissingPart
from labkit.core.records import ModelRef
from labkit.servers import haproxy
from labkit.servers.base import Running, check_port


class Replicas:
    """What runs. `replicas` are in HAProxy's order: the first is its server r0."""

    def __init__(self, balancer: Running, running: Sequence[Running]) -> None:
        self.balancer, self.replicas = balancer, tuple(running)
        self.url, self.base_url = balancer.url, f"{balancer.url}/v1"

    def alive(self) -> list[Running]:
        return [one for one in self.replicas if one.alive()]


@contextmanager
def start(
    server: str,
    model: ModelRef,
    count: int,
    port: int | None = None,
    balancer: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Replicas]:
    """Start `count` of that server and HAProxy on `port`; when the block begins all are healthy, after it none is there.

    balancer: options of HAProxy. options: the server's own, each replica's. Raises as Server.start does.
    """
    kind = servers.open(server)
    with contextlib.ExitStack() as stack:
        # asked first, since a model takes its time to load
        if why := haproxy.SERVER.missing():
            raise MissingPart(why)
        if port is not None:
            check_port(port)
        running = [stack.enter_context(kind.launch(model, **options)) for _ in range(count)]
        for one in running:
            one.wait(kind.start_seconds)
            kind.ready(one, model, options)
        told = {"backends": [one.url for one in running], **(balancer or {})}
        front = stack.enter_context(haproxy.start(port, **told))
        yield Replicas(front, running)
