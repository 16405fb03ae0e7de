"""Load on any OpenAI-compatible endpoint on this machine, and what its users would have felt.

Open loop is free of coordinated omission: the schedule never waits for an answer, and a latency counts from the time at which
the request was due. A closed loop waits for each answer before it asks again, so its latencies count from the sending, and a
server that stands still is asked less often: compare it only with other closed loops.

Limits: loopback only; bounded in requests, in time and in requests in flight. One thread:
`python -m benchmarks load_overhead` says what it costs here.

>>> found = load.run("http://127.0.0.1:8080/v1", "smollm2-135m", Plan(rate=5, seconds=20, slo=Slo(ttft_s=0.5)))
>>> load.summarize(found, plan).goodput_per_s
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from labkit.core import machine, results
from labkit.core.errors import BadInput
from labkit.measure import load_loop
from labkit.measure.load_client import Client, Target
from labkit.measure.load_plans import MOST_REQUESTS, STATUSES, LoadRun, Outcome, Plan, Slo
from labkit.measure.load_summary import Quantiles, Summary, summarize, table

__all__ = [
    "STATUSES", "LoadRun", "Outcome", "Plan", "Quantiles", "Slo", "Summary", "read", "run", "summarize", "table", "target", "write",
]  # fmt: skip
_HERE = ("127.0.0.1", "localhost", "::1")


def run(
    base_url: str,
    model: str,
    plan: Plan,
    *,
    finished: list[Outcome] | None = None,
    on_outcome: Callable[[Outcome], object] | None = None,
    api_key: str | None = None,
    ca: str | Path | None = None,
    tries: int = 1,
    cut: list[Outcome] | None = None,
) -> list[Outcome]:
    """Carry out the plan; one outcome a request, in the order of the schedule. Works inside a notebook too.

    base_url: ends in /v1, as a server gives it. finished: a list of your own that gets each outcome as it ends, so that after
    Ctrl-C you have what was done. on_outcome: called with each, for a progress bar. ca: certificate that an https server is trusted by.
    tries: a request whose stream was cut is sent again, this many times in all; its outcome is the last try's, counted from when it was
    due. cut: a list of your own that gets the tries that were cut and followed by another.
    Raises: BadInput for a target elsewhere than on this machine. A server that fails is no exception: see each outcome's status.
    """
    kept: list[Outcome] = [] if finished is None else finished

    def keep(outcome: Outcome) -> None:
        kept.append(outcome)
        if on_outcome:
            on_outcome(outcome)

    first = len(kept)
    client = Client(target(base_url, api_key, ca), plan.timeout_s, tries, cut)
    load_loop.run(_carry_out(client, model, plan, keep))
    return sorted(kept[first:], key=lambda outcome: outcome.number)


def target(base_url: str, api_key: str | None = None, ca: str | Path | None = None) -> Target:
    """Where requests go. Raises BadInput for any place but this machine's loopback."""
    parts = urlsplit(base_url if "://" in base_url else f"http://{base_url}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise BadInput(f"{base_url!r} is no address of a server", "give its base URL, such as http://127.0.0.1:8080/v1")
    if parts.hostname not in _HERE:
        raise BadInput(
            f"{parts.hostname} is not this machine: load on somebody else's server is an attack on it", "serve the model here: labkit serve"
        )
    if ca and not Path(ca).is_file():
        raise BadInput(f"no certificate at {ca}", "give the file that the server's certificate is signed with")
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        raise BadInput("the key has characters that cannot stand in a header", "give it without line breaks: --api-key KEY")
    tls = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    headers = [("Host", f"{host}:{port}"), ("Content-Type", "application/json"), ("Accept", "text/event-stream")]
    if api_key:
        headers.append(("Authorization", f"Bearer {api_key}"))
    return Target(parts.hostname, port, quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~"), tls, tuple(headers))


def write(path: str | Path, model: str, plan: Plan, outcomes: Iterable[Outcome], interrupted: bool = False) -> LoadRun:
    """Append a run as one line of JSON, with this machine's fingerprint. Raises BadInput where it cannot be written."""
    record = LoadRun(model=model, plan=plan, machine=machine.fingerprint(), interrupted=interrupted, outcomes=tuple(outcomes))
    results.append(path, [record])
    return record


def read(path: str | Path) -> Iterator[LoadRun]:
    """The runs of a file, one after another."""
    return (LoadRun.model_validate(row) for row in results.read(path))


async def _carry_out(client: Client, model: str, plan: Plan, keep: Callable[[Outcome], None]) -> None:
    texts = plan.texts(secrets.token_hex(8) if plan.salt else "")
    route = "/chat/completions" if plan.chat else "/completions"

    def body() -> bytes:
        return json.dumps(plan.body(model, next(texts))).encode()

    try:
        for _ in range(plan.warmup):
            await client.ask(-1, route, body())
        async with asyncio.TaskGroup() as group:
            if plan.concurrency is None:
                await _open_loop(group, client, route, body, plan, keep)
            else:
                numbers = iter(range(plan.requests or MOST_REQUESTS))
                end = None if plan.seconds is None else time.perf_counter_ns() + int(plan.seconds * 1e9)
                for _ in range(plan.concurrency):
                    group.create_task(_user(client, route, body, numbers, end, keep))
    finally:
        client.close()


async def _open_loop(
    group: asyncio.TaskGroup, client: Client, route: str, body: Callable[[], bytes], plan: Plan, keep: Callable[[Outcome], None]
) -> None:
    """Send at the scheduled times, whatever the answers do."""
    flying = 0

    async def send(number: int, data: bytes, due: int) -> None:
        nonlocal flying
        try:
            keep(await client.ask(number, route, data, due))
        finally:
            flying -= 1

    start = time.perf_counter_ns() + 10_000_000  # the first one is not late either
    for number, after in enumerate((plan.schedule_s() * 1e9).astype(int).tolist()):
        due, data = start + after, body()
        await _until(due)
        if flying >= plan.max_in_flight:
            why = f"not sent: {flying} requests are in flight, the plan's max_in_flight"
            keep(Outcome(number=number, status="error", scheduled_ns=due, ended_ns=time.perf_counter_ns(), error=why))
            continue
        flying += 1
        group.create_task(send(number, data, due))


async def _until(due_ns: int) -> None:
    """Sleep until then; always lets other work run once, or a burst would keep answers from being read."""
    await asyncio.sleep(max(0.0, (due_ns - time.perf_counter_ns()) / 1e9))


async def _user(
    client: Client, route: str, body: Callable[[], bytes], numbers: Iterator[int], end_ns: int | None, keep: Callable[[Outcome], None]
) -> None:
    """One of the users of a closed loop."""
    for number in numbers:
        if end_ns is not None and time.perf_counter_ns() >= end_ns:
            return
        keep(await client.ask(number, route, body()))
