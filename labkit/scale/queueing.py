"""How long does a request wait? Closed formulas for c servers and one queue: M/M/c exactly, M/G/c approximately. A model.

Requests come at random (Poisson, `rate` a second) and are served in their order by `servers` places. A place is one request at
a time: one slot of a model server, or a replica that answers one by one. Where a server answers several at once and each slows
the others down (continuous batching), the simulator is the better model.

Sources: Erlang's C formula (Kleinrock, Queueing Systems I, 3.5); M/G/c by Lee and Longton's and by Allen and Cunneen's factor
(1 + cv^2) / 2, exact for one server (Pollaczek and Khinchine).

>>> round(Queue(rate=0.5, service_s=1.0, servers=1).wait_s, 3)   # rho / (1 - rho) services
1.0
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class Queue(BaseModel):
    """One queue in front of `servers` places.

    rate: requests a second; service_s: mean seconds of one request in its place; cv: standard deviation of these seconds over
    their mean (1: exponential, M/M/c; 0: all alike).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = Field(gt=0)
    service_s: float = Field(gt=0)
    servers: int = Field(1, ge=1)
    cv: float = Field(1.0, ge=0)

    @property
    def offered(self) -> float:
        """Mean number of busy places that the load asks for (Erlangs)."""
        return self.rate * self.service_s

    @property
    def utilisation(self) -> float:
        """Busy share of the places, 0 to 1; from 1 on the queue grows without end."""
        return self.offered / self.servers

    @property
    def waits(self) -> float:
        """Share of the requests that find every place busy (Erlang C); 1 from a utilisation of 1 on."""
        if self.utilisation >= 1:
            return 1.0
        blocked = erlang_b(self.offered, self.servers)
        return blocked / (1 - self.utilisation * (1 - blocked))

    @property
    def wait_s(self) -> float:
        """Mean seconds in the queue; infinite from a utilisation of 1 on."""
        if self.utilisation >= 1:
            return math.inf
        return self.waits * self.service_s / (self.servers - self.offered) * (1 + self.cv**2) / 2

    @property
    def response_s(self) -> float:
        """Mean seconds from arrival to the end of the answer."""
        return self.wait_s + self.service_s

    @property
    def length(self) -> float:
        """Mean number of requests in the queue (Little's law)."""
        return self.rate * self.wait_s

    def wait_quantile_s(self, share: float) -> float:
        """Seconds in the queue that a share of the requests stays under. Exact for cv 1, else an exponential tail of the same mean."""
        _share(share)
        if self.utilisation >= 1:
            return math.inf
        if share <= 1 - self.waits or self.wait_s == 0:
            return 0.0
        return self.wait_s / self.waits * math.log(self.waits / (1 - share))

    def response_quantile_s(self, share: float, services_s: Sequence[float] = (), draws: int = 200_000, seed: int = 0) -> float:
        """Seconds to the end of the answer that a share of the requests stays under: a waiting time and a service, drawn apart.

        services_s: measured services, shape [n], drawn from and scaled to the mean `service_s`; without them, exponential ones
        for cv 1 and gamma ones of this cv otherwise.
        """
        _share(share)
        if self.utilisation >= 1:
            return math.inf
        random = np.random.default_rng(seed)
        if len(services_s):
            given = np.asarray(services_s, dtype=float)
            service = random.choice(given * self.service_s / given.mean(), draws)
        elif self.cv == 0:
            service = np.full(draws, self.service_s)
        else:
            shape = 1 / self.cv**2
            service = random.gamma(shape, self.service_s / shape, draws)
        delayed = random.random(draws) < self.waits
        wait = np.where(delayed, random.exponential(self.wait_s / self.waits, draws), 0.0)
        return float(np.quantile(wait + service, share))


def erlang_b(offered: float, servers: int) -> float:
    """Share of requests that find every place busy where there is no queue. offered: Erlangs. By the usual stable recursion."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked


def servers_for(rate: float, service_s: float, quantile_s: float, share: float = 0.95, cv: float = 1.0, most: int = 100_000) -> int:
    """The fewest places with which a share of the requests waits no longer than quantile_s in the queue.

    Raises ValueError where not even `most` do.
    """
    low, high = max(1, math.ceil(rate * service_s)), most
    if high < low or Queue(rate=rate, service_s=service_s, servers=high, cv=cv).wait_quantile_s(share) > quantile_s:
        raise ValueError(f"more than {most:,} places are needed for {rate:g} requests a second of {service_s:g} s")
    while low < high:
        middle = (low + high) // 2
        if Queue(rate=rate, service_s=service_s, servers=middle, cv=cv).wait_quantile_s(share) <= quantile_s:
            high = middle
        else:
            low = middle + 1
    return low


def _share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"a share of the requests is between 0 and 1, not {share}")
