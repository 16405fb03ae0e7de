"""What lab 20 measures, as rows: one server against several, loads against the model, policies, a kill, replicas that follow the load.

Each question starts its own servers and stops them, whatever happens. What stand-ins answered is *modelled*, and its rows say so.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from labkit import servers
from labkit.core.records import ModelRef
from labkit.measure import clock, load
from labkit.measure.load import Outcome, Plan
from labkit.scale import autoscale, calibrate, controller, observe, pool, standin
from labkit.scale.capacity import most_per_replica
from labkit.scale.jobs import Job, Speed
from labkit.scale.simulator import Balancer, simulate
from labkit.servers import haproxy, prometheus, replicas
from labkit.servers.base import NO_MODEL

Rows = list[dict[str, Any]]
SERVER = "llama_server"
AGAIN = "cut, asked again"  # a try that another one followed
SIDES = ("1 server, 1 thread", "1 server, 2 threads", "2 servers, 1 thread each")
POLICIES = {"roundrobin": "round_robin", "leastconn": "least", "random(2)": "two_choices"}
SHORT, LONG = 8, 120  # tokens of an answer


def sides_rows(model: ModelRef, rounds: int, requests: int, prompt: int = 32, output: int = 24) -> Rows:
    """Closed loop of four users on one small server, one larger one (vertical) and two small ones (horizontal), in turn."""
    usual: dict[str, Any] = {"context": 512, "parallel": 2, "cache_prompt": False}
    with contextlib.ExitStack() as stack:
        small = stack.enter_context(servers.open(SERVER).start(model, threads=1, **usual))
        large = stack.enter_context(servers.open(SERVER).start(model, threads=2, **{**usual, "parallel": 4}))
        several = stack.enter_context(replicas.start(SERVER, model, 2, threads=1, **usual))
        urls = dict(zip(SIDES, (small.base_url, large.base_url, several.base_url), strict=True))

        def run(url: str) -> dict[str, Any]:
            plan = Plan(concurrency=4, requests=requests, prompt_tokens=prompt, output_tokens=output, ignore_eos=True, timeout_s=120)
            told = load.summarize(load.run(url, model.name, plan), plan)
            return {"tokens_per_s": told.tokens_per_s, "ttft_s": told.ttft_s.p50, "tpot_s": told.tpot_s.p50, "ok": told.ok, "n": told.n}

        found = clock.ab({name: (functools.partial(run, url)) for name, url in urls.items()}, repeats=rounds)
    return [{"side": name, **row} for name, rows in found.items() for row in rows]


def calibrate_rows(model: ModelRef, shares: Sequence[float], seconds: float, repeats: int, prompt: int = 32, output: int = 24) -> Rows:
    """A server's speed, measured, and then loads that had no part in it: rows of kind `speed`, `point` and `level`."""
    options: dict[str, Any] = {"context": 512, "parallel": 2, "threads": 1, "cache_prompt": False}
    with servers.open(SERVER).start(model, **options) as running:
        found = calibrate.measure(running.base_url, model.name, 2, repeats=repeats, output_tokens=output)
        asked = load.run(running.base_url, model.name, Plan(concurrency=1, requests=1, prompt_tokens=prompt, output_tokens=1, warmup=0))
        reads = asked[0].prompt_tokens or prompt
        most = most_per_replica(found.speed, reads, output)
        levels = list(
            calibrate.validate(running.base_url, model.name, found.speed, [share * most for share in shares], seconds, prompt, output)
        )
    rows: Rows = [{"kind": "speed", "most_per_s": most, "prompt_tokens": reads, **found.speed.model_dump()}]
    rows += [{"kind": "point", "of": "tpot_s", "x": x, "s": s} for x, s in found.tpot_s]
    rows += [{"kind": "point", "of": "ttft_s", "x": x, "s": s} for x, s in found.ttft_s]
    return rows + [
        {"kind": "level", **{k: None if v != v else v for k, v in one._asdict().items()}, "agrees": one.agrees} for one in levels
    ]


def speed_of(rows: Sequence[Mapping[str, Any]], **changes: Any) -> Speed:
    """The measured speed, out of calibrate_rows; with changes, such as another number of slots."""
    row = next(row for row in rows if row["kind"] == "speed")
    return Speed(**{key: row[key] for key in Speed.model_fields if key in row} | changes)


@contextlib.contextmanager
def standins(speed: Speed, count: int, **balancer: Any) -> Iterator[tuple[Any, list[Any]]]:
    """HAProxy in front of `count` stand-ins."""
    with contextlib.ExitStack() as stack:
        several = [stack.enter_context(standin.start(speed)) for _ in range(count)]
        front = stack.enter_context(haproxy.start(backends=[one.url for one in several], **balancer))
        yield front, several


def policy_rows(speed: Speed, count: int, rate: float, seconds: float, rounds: int, seed: int) -> Rows:
    """Short and long answers, mixed, on `count` stand-ins: each policy in turn with the same arrivals; and what the simulator says."""
    rng = np.random.default_rng(seed)
    plans = []
    for tokens, share in ((SHORT, 0.85), (LONG, 0.15)):
        times = np.sort(rng.uniform(0, seconds, rng.poisson(rate * share * seconds) + 1))
        plans.append(Plan(times_s=tuple(map(float, times)), prompt_tokens=24, output_tokens=tokens, warmup=0, timeout_s=120))
    with contextlib.ExitStack() as stack:
        fronts = {policy: stack.enter_context(standins(speed, count, policy=policy))[0] for policy in POLICIES}

        def run(policy: str) -> list[Outcome]:
            return [one for some in _together(fronts[policy].base_url, plans) for one in some]

        found = clock.ab({policy: (functools.partial(run, policy)) for policy in POLICIES}, repeats=rounds)
    jobs = [Job(at, 24, plan.output_tokens) for plan in plans for at in plan.times_s or ()]
    rows: Rows = []
    for policy, runs in found.items():
        firsts = [one.ttft_s for outcomes in runs for one in outcomes if one.ttft_s is not None]
        model = simulate(jobs, speed, count, Balancer(policy=POLICIES[policy]))
        says = [row.first_s - row.at_s for row in model]
        for share in (0.5, 0.95):
            rows.append({
                "policy": policy, "share": share, "n": len(firsts), "standins_s": float(np.quantile(firsts, share)),
                "simulated_s": float(np.quantile(says, share)),
            })  # fmt: skip
    return rows


def _together(base_url: str, plans: Sequence[Plan]) -> list[list[Outcome]]:
    """Several plans at the same time."""
    found: list[list[Outcome]] = [[] for _ in plans]
    threads = [
        threading.Thread(target=lambda n=n, plan=plan: found[n].extend(load.run(base_url, standin.NAME, plan)))
        for n, plan in enumerate(plans)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def kill_rows(model: ModelRef, rate: float, seconds: float, seed: int) -> Rows:
    """A replica is killed half-way under a steady load, once behind the naive configuration and once behind the good one."""
    rows: Rows = []
    for naive in (True, False):
        balancer = {"naive": naive, "policy": "roundrobin" if naive else "leastconn"}
        with replicas.start(SERVER, model, 2, balancer=balancer, context=512, parallel=2, threads=1) as several:
            plan = Plan(rate=rate, seconds=seconds, prompt_tokens=24, output_tokens=16, ignore_eos=True, warmup=0, seed=seed, timeout_s=60)
            cut: list[Outcome] = []
            killed: list[float] = []
            begin = time.perf_counter()
            killer = threading.Thread(target=_kill, args=(several, begin + seconds / 2, killed))
            killer.start()
            found = load.run(several.base_url, model.name, plan, tries=3, cut=cut)
            killer.join()
        side = "naive" if naive else "good"
        rows.append({"kind": "killed", "side": side, "at_s": killed[0] - begin})
        for status, some in (("", found), (AGAIN, cut)):
            rows += [
                {
                    "kind": "request", "side": side, "at_s": one.scheduled_ns / 1e9 - begin, "status": status or one.status,
                    "e2e_s": one.e2e_s, "number": one.number,
                }
                for one in some
            ]  # fmt: skip
    return rows


def _kill(several: replicas.Replicas, at: float, killed: list[float]) -> None:
    """SIGKILL to the second replica at that time (perf_counter, s), or a moment later, when an answer runs on it."""
    places = haproxy.Places(several.balancer)
    while time.perf_counter() < at + 3 and not (time.perf_counter() >= at and places.in_flight()[1]):
        time.sleep(0.02)
    time.sleep(0.3)  # the prompt is read, the answer has begun
    several.replicas[1].process.kill()
    killed.append(time.perf_counter())


def autoscale_rows(speed: Speed, steps: Sequence[tuple[float, float]], most: int, each: float, prompt: int, output: int, seed: int) -> Rows:
    """Stand-ins that follow the load. steps: (seconds, requests a second), one after another. each: requests in flight for a replica."""
    times: list[float] = []
    start = 0.0
    rng = np.random.default_rng(seed)
    for seconds, rate in steps:
        times += list(start + np.sort(rng.uniform(0, seconds, rng.poisson(rate * seconds))))
        start += seconds
    down = autoscale.Rules(stabilization_s=8, policies=(autoscale.Policy(kind="percent", value=100, period_s=2),))
    up = autoscale.Rules(policies=(autoscale.Policy(kind="pods", value=4, period_s=2),))
    trigger = autoscale.Trigger(minimum=1, maximum=most, threshold=each, polling_s=1, up=up, down=down)
    with pool.open(lambda: standin.SERVER.launch(NO_MODEL, speed=speed.model_dump(), loads_s=2.0), most=most) as several:
        several.resize(1)
        several.wait(1)
        target = prometheus.Target(urls=[several.url], path="/haproxy/metrics")
        with prometheus.start(targets={"haproxy": target}, every_s=0.5) as watching:
            ask = controller.asks(watching.url, observe.query("in_flight"))
            end = time.monotonic() + 30
            while ask() is None and time.monotonic() < end:
                time.sleep(0.1)
            begin = time.monotonic()
            with controller.run(several, ask, autoscale.Keda(trigger, sync_s=1), 1.0) as looks:
                plan = Plan(times_s=tuple(map(float, times)), prompt_tokens=prompt, output_tokens=output, warmup=0, timeout_s=120)
                found = load.run(several.base_url, standin.NAME, plan)
                time.sleep(10)
        counts = list(several.counts)
    rows: Rows = [{"kind": "step", "seconds": seconds, "rate": rate} for seconds, rate in steps]
    rows += [{"kind": "look", "at_s": one.at_s - begin, "value": one.value, "wanted": one.wanted} for one in looks]
    rows += [{"kind": "count", "at_s": one.at_s - begin, "running": one.running, "ready": one.ready} for one in counts[::5]]
    zero = found[0].scheduled_ns
    first_s = times[0]
    rows += [
        {"kind": "request", "at_s": first_s + (one.scheduled_ns - zero) / 1e9, "ttft_s": one.ttft_s, "status": one.status} for one in found
    ]
    return rows


def faster(speed: Speed, times: float) -> Speed:
    """The same server, so many times as fast: all its times divided. Queues look the same, and nobody has to wait for them."""
    return speed.model_copy(
        update={key: getattr(speed, key) / times for key in ("base_s", "per_request_s", "per_prompt_token_s", "outside_s")}
    )


def most(speed: Speed, prompt_tokens: float, output_tokens: float) -> float:
    """Requests a second that one replica can end at most."""
    return most_per_replica(speed, prompt_tokens, output_tokens)


def alone_s(speed: Speed, prompt_tokens: int) -> float:
    """Seconds to the first token of a request that is alone."""
    return speed.outside_s + speed.step_s(1, prompt_tokens)


def failed(rows: Sequence[Mapping[str, Any]], side: str) -> float:
    """Share of the requests due after the kill that were not answered in the end."""
    at = next(row["at_s"] for row in rows if row["kind"] == "killed" and row["side"] == side)
    after = [
        row["status"] for row in rows
        if row["kind"] == "request" and row["side"] == side and row["at_s"] > at and row["status"] != AGAIN
    ]  # fmt: skip
    return sum(status != "ok" for status in after) / len(after)
