"""A discrete-event simulator of replicas of a model server with continuous batching, behind a load balancer. A model.

A replica works in steps, as llama-server and vLLM do. In a step every running request gets one token, and prompts that wait to
be read get up to `batch_tokens` of theirs read; `jobs.Speed` says how long a step takes. A replica runs up to `slots` requests
at once; the rest wait in its queue, up to `queue`. What is left out: the network, the tokens' text, memory, and a step's growth
with the context.

>>> jobs = poisson(rate=2, seconds=60, prompt_tokens=40, output_tokens=20, seed=1)
>>> rows = simulate(jobs, Speed(base_s=0.01, per_request_s=0.005, per_prompt_token_s=0.001), replicas=2)
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from labkit.scale.jobs import Job, Speed

Policy = Literal["round_robin", "random", "least", "two_choices"]


class Row(NamedTuple):
    """What became of it. Times in seconds from the start; `first_s` and `last_s` are nan where it had no such token."""

    at_s: float
    first_s: float
    last_s: float
    tokens: int
    replica: int
    status: Literal["ok", "refused", "cut"]
    tries: int


class Fault(NamedTuple):
    """A replica that is killed at `at_s` and is back `down_s` later. Started answers are cut."""

    at_s: float
    replica: int
    down_s: float = math.inf


class Balancer(BaseModel):
    """How requests are given out. A dead replica is known as such only after `noticed_s`; until then it gets requests, which
    are sent to another one (`retries` times) or refused. `redispatch`: waiting requests of a killed replica count as such too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Policy = "least"
    retries: int = Field(3, ge=0)
    noticed_s: float = Field(0.0, ge=0)
    seed: int = 0


class _Running:
    __slots__ = ("left", "number", "unread")

    def __init__(self, number: int, job: Job) -> None:
        self.number, self.unread, self.left = number, job.prompt_tokens, job.output_tokens


class _Replica:
    """Its requests, and the block of equal steps that it is in: `steps` of `step_s` from `since` on."""

    __slots__ = ("active", "alive", "dead_since", "draining", "index", "since", "step_s", "steps", "version", "waiting")

    def __init__(self, index: int) -> None:
        self.index = index
        self.active: list[_Running] = []
        self.waiting: deque[_Running] = deque()
        self.alive, self.draining, self.dead_since = True, False, math.inf
        self.since = self.step_s = 0.0
        self.steps = self.version = 0

    @property
    def load(self) -> int:
        return len(self.active) + len(self.waiting)


class Simulation:
    """The state of one run. `simulate` is the usual way in; autoscaling studies drive it themselves with `until` and `resize`."""

    def __init__(self, jobs: Sequence[Job], speed: Speed, replicas: int, balancer: Balancer, faults: Sequence[Fault] = ()) -> None:
        if any(job.prompt_tokens < 1 or job.output_tokens < 1 for job in jobs):
            raise ValueError("a job has at least one prompt token and asks for at least one")
        self.jobs, self.speed, self.balancer = sorted(jobs), speed, balancer
        self.now, self.replicas = 0.0, [_Replica(index) for index in range(replicas)]
        self._by_load = [(0, index) for index in range(replicas)]  # a heap; what is out of date in it is dropped when it comes up
        self._random, self._turn, self._order = np.random.default_rng(balancer.seed), 0, 0
        n = len(self.jobs)
        self._first, self._last = np.full(n, math.nan), np.full(n, math.nan)
        self._tokens, self._where, self._tries = np.zeros(n, int), np.full(n, -1), np.zeros(n, int)
        self._status: list[Literal["ok", "refused", "cut"] | None] = [None] * n
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._next = 0
        for fault in faults:
            self.at(fault.at_s, lambda f=fault: self._kill(f.replica))  # type: ignore[misc]
            if fault.down_s < math.inf:
                self.at(fault.at_s + fault.down_s, lambda f=fault: self._revive(f.replica))  # type: ignore[misc]

    # -- from outside

    @property
    def in_flight(self) -> int:
        """Requests in all replicas, waiting ones too."""
        return sum(r.load for r in self.replicas)

    @property
    def waiting(self) -> int:
        return sum(len(r.waiting) for r in self.replicas)

    @property
    def ready(self) -> int:
        """Replicas that take requests."""
        return sum(r.alive and not r.draining for r in self.replicas)

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, what))

    def resize(self, replicas: int, start_s: float = 0.0) -> None:
        """To so many replicas: new ones take requests after `start_s`, those too many finish what they have."""
        takers = [r for r in self.replicas if not r.draining and (r.alive or r.dead_since == math.inf)]
        for extra in takers[replicas:]:
            extra.draining = True
        for _ in range(replicas - len(takers)):
            new = _Replica(len(self.replicas))
            new.alive = False
            self.replicas.append(new)
            if start_s > 0:
                self.at(self.now + start_s, lambda r=new: self._revive(r.index))  # type: ignore[misc]
            else:
                self._revive(new.index)

    def until(self, end: float = math.inf) -> None:
        """Play all that happens up to `end`."""
        while True:
            arrival = self.jobs[self._next].at_s if self._next < len(self.jobs) else math.inf
            event = self._events[0][0] if self._events else math.inf
            if min(arrival, event) > end or arrival == event == math.inf:
                break
            if arrival < event:
                self.now = arrival
                self._next += 1
                self._give(self._next - 1)
            else:
                self.now, _, what = heapq.heappop(self._events)
                what()
        if end < math.inf:
            self.now = end

    def rows(self) -> list[Row]:
        """Of the requests that have ended, in the order of their arrival."""
        found = []
        for n, (job, status) in enumerate(zip(self.jobs, self._status, strict=True)):
            if status is not None:
                first, last = (float(side[n]) + self.speed.outside_s for side in (self._first, self._last))
                found.append(Row(job.at_s, first, last, int(self._tokens[n]), int(self._where[n]), status, int(self._tries[n])))
        return found

    # -- the balancer

    def _give(self, number: int) -> None:
        tried: set[int] = set()
        while self._tries[number] <= self.balancer.retries:
            index = self._choose(tried)
            self._tries[number] += 1
            if index is None:
                break
            replica = self.replicas[index]
            full = self.speed.queue is not None and replica.load >= self.speed.slots + self.speed.queue
            if replica.alive and not full:
                self._where[number] = index
                replica.waiting.append(_Running(number, self.jobs[number]))
                self._note(replica)
                self._joined(replica)
                return
            tried.add(index)
        self._status[number] = "refused"

    def _takes(self, index: int) -> bool:
        """Does the balancer think that it takes requests? One that starts has never been seen, a dead one not yet missed."""
        replica = self.replicas[index]
        missed = replica.dead_since == math.inf or self.now - replica.dead_since >= self.balancer.noticed_s
        return not replica.draining and (replica.alive or not missed)

    def _choose(self, tried: set[int]) -> int | None:
        """An index; None where none is left."""
        policy, count = self.balancer.policy, len(self.replicas)
        if policy == "least":
            return self._least(tried)
        if policy == "round_robin":
            for _ in range(count):
                self._turn += 1
                if (index := self._turn % count) not in tried and self._takes(index):
                    return index
            return None
        # drawn from all, and drawn again where it is none that takes requests; a list of those that do would be long
        wanted, drawn = (2 if policy == "two_choices" else 1), set[int]()
        for index in self._random.integers(0, count, 50) if count else ():
            if int(index) not in tried and self._takes(int(index)):
                drawn.add(int(index))
                if len(drawn) == wanted:
                    break
        else:
            known = [i for i in range(count) if i not in tried and self._takes(i)]
            drawn = set(map(int, self._random.choice(known, min(wanted, len(known)), replace=False))) if known else set()
        return min(drawn, key=lambda i: (self.replicas[i].load, i), default=None)

    def _note(self, replica: _Replica) -> None:
        heapq.heappush(self._by_load, (replica.load, replica.index))

    def _least(self, tried: set[int]) -> int | None:
        passed, found = [], None
        while self._by_load and found is None:
            load, index = self._by_load[0]
            if load != self.replicas[index].load or not self._takes(index):
                heapq.heappop(self._by_load)
            elif index in tried:
                passed.append(heapq.heappop(self._by_load))
            else:
                found = index
        for entry in passed:
            heapq.heappush(self._by_load, entry)
        return found

    # -- a replica

    def _joined(self, replica: _Replica) -> None:
        """A request has come: an idle replica begins at once, a busy one after the step that it is in, where it has a free slot."""
        if not replica.steps:
            self._plan(replica)
        elif replica.steps > 1 and len(replica.active) < self.speed.slots:
            replica.steps = min(replica.steps, max(1, _steps(self.now - replica.since, replica.step_s, math.ceil)))
            self._schedule(replica)

    def _settle(self, replica: _Replica, steps: int) -> None:
        """The first steps of its block are done."""
        for running in replica.active:
            if running.unread == 0 and steps:
                self._produce(running, steps, replica)
        left = [r for r in replica.active if r.left > 0]
        if len(left) < len(replica.active):
            replica.active = left
            self._note(replica)
        replica.steps = 0

    def _produce(self, running: _Running, steps: int, replica: _Replica) -> None:
        number = running.number
        if math.isnan(self._first[number]):
            self._first[number] = replica.since + replica.step_s
        running.left -= steps
        self._tokens[number] += steps
        self._last[number] = replica.since + steps * replica.step_s
        if running.left == 0:
            self._status[number] = "ok"

    def _plan(self, replica: _Replica) -> None:
        """Begin the next block of equal steps; its end is an event."""
        while replica.waiting and len(replica.active) < self.speed.slots:
            replica.active.append(replica.waiting.popleft())
        if not replica.active:
            return
        budget = self.speed.batch_tokens
        for running in replica.active:
            read = min(running.unread, budget)
            running.unread -= read
            budget -= read
        reading = self.speed.batch_tokens - budget
        making = [r for r in replica.active if r.unread == 0]
        replica.since, replica.step_s = self.now, self.speed.step_s(len(making), reading)
        # with prompts to read the next step is another one; otherwise all are alike until a request ends
        replica.steps = 1 if reading or not making else min(r.left for r in making)
        self._schedule(replica)

    def _schedule(self, replica: _Replica) -> None:
        replica.version += 1
        self.at(replica.since + replica.steps * replica.step_s, lambda v=replica.version: self._ended(replica, v))  # type: ignore[misc]

    def _ended(self, replica: _Replica, version: int) -> None:
        if version == replica.version:
            self._settle(replica, replica.steps)
            self._plan(replica)

    def _kill(self, index: int) -> None:
        replica = self.replicas[index]
        if replica.steps:
            self._settle(replica, min(replica.steps, _steps(self.now - replica.since, replica.step_s, math.floor)))
        lost = [*replica.active, *replica.waiting]
        replica.active, replica.waiting = [], deque()
        replica.alive, replica.dead_since = False, self.now
        replica.version += 1
        self._note(replica)
        for running in lost:
            if math.isnan(self._first[running.number]):
                self._give(running.number)  # nothing was answered: the balancer may send it again
            else:
                self._status[running.number] = "cut"

    def _revive(self, index: int) -> None:
        self.replicas[index].alive, self.replicas[index].dead_since = True, math.inf
        self._note(self.replicas[index])


def _steps(seconds: float, step_s: float, rounding: Callable[[float], int]) -> int:
    return rounding(round(seconds / step_s, 9)) if step_s else 0


def simulate(
    jobs: Sequence[Job], speed: Speed, replicas: int = 1, balancer: Balancer | None = None, faults: Sequence[Fault] = ()
) -> list[Row]:
    """Play all jobs to their end."""
    run = Simulation(jobs, speed, replicas, balancer or Balancer(), faults)
    run.until()
    return run.rows()
