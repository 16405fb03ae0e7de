"""What lab 19 measures, as rows: a server's own figures, a quiet and a busy time, an alert from kill to end, a slow request.

Times `at_s` count from the beginning of the step. No row holds a word of a prompt or an answer.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from labkit.learn.watch_desk import CHECK_S, EVERY_S, SERVER, WAIT_S, Desk, Rows
from labkit.measure import load
from labkit.measure.load import Outcome, Plan
from labkit.scale.observe import CATALOGUE
from labkit.scale.rules import Limits
from labkit.servers import loki, prometheus

ALERT = "ReplicaDown"
SHOWN = [one.name for one in CATALOGUE.values() if one.source in ("haproxy", "llama_server")]
COUNTER = "sum(llamacpp:tokens_predicted_total)"
SLOW_TOKENS = 160


def metrics(text: str) -> dict[str, dict[str, Any]]:
    """A server's page of metrics: name -> its kind (counter, gauge, histogram, …), its help and its value, the labels left out."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = {"kind": family.type, "help": family.documentation, "value": sample.value}
    return found


def page(url: str) -> dict[str, dict[str, Any]]:
    return metrics(httpx.get(f"{url}/metrics", timeout=10).raise_for_status().text)


def raw_rows(desk: Desk) -> Rows:
    """One replica's metrics before and after one request to it: a row a metric."""
    one = desk.replica(0)
    before = page(one.url)
    load.run(one.base_url, desk.model.name, Plan(concurrency=1, requests=1, prompt_tokens=24, output_tokens=16, ignore_eos=True, warmup=0))
    after = page(one.url)
    return [{"metric": name, "kind": row["kind"], "before": before[name]["value"], "after": row["value"]} for name, row in after.items()]


def phase_rows(desk: Desk, phases: list[tuple[str, float, dict[str, Any]]]) -> Rows:
    """Quiet and busy times, one after the other: rows of kind `phase`, `series` (a query over all of it) and `counter`.

    phases: name, seconds, and what is asked (the arguments of a load plan).
    """
    begin = time.time()
    rows: list[dict[str, Any]] = []
    for name, seconds, asked in phases:
        at = time.time() - begin
        found = desk.ask(Plan(seconds=seconds, output_tokens=16, prompt_tokens=24, ignore_eos=True, warmup=0, **asked))
        rows.append({"kind": "phase", "name": name, "begin_s": at, "end_s": time.time() - begin, **_told(found)})
    time.sleep(2)  # the last requests' metrics are fetched
    end = time.time()
    for query in SHOWN:
        for row in prometheus.query_range(desk.watching.url, CATALOGUE[query].promql(desk.limits.window_s), begin, end, 1.0):
            rows.append({"kind": "series", "query": query, "series": row.get("server", ""), **_points(row, begin)})
    for row in prometheus.query_range(desk.watching.url, COUNTER, begin, end, 1.0):
        rows.append({"kind": "counter", "query": COUNTER, "series": "", **_points(row, begin)})
    return rows


def _told(found: list[Outcome]) -> dict[str, Any]:
    first = [one.ttft_s for one in found if one.ttft_s is not None]
    return {"requests": len(found), "ok": sum(one.status == "ok" for one in found), "ttft_p95_s": float(np.quantile(first, 0.95))}


def _points(row: dict[str, Any], begin: float) -> dict[str, Any]:
    kept = [(t - begin, v) for t, v in zip(row["times_s"], row["values"], strict=True) if math.isfinite(v)]
    return {"at_s": [t for t, _ in kept], "values": [v for _, v in kept]}


def alert_rows(desk: Desk, quiet_s: float = 2.0) -> Rows:
    """A replica is killed under a light load and started again: what Prometheus and the hook said, look by look, and the events."""
    rows: list[dict[str, Any]] = []
    told = len(desk.told)
    begin = time.monotonic()

    def happened(what: str) -> None:
        rows.append({"kind": "event", "what": what, "at_s": time.monotonic() - begin})

    def look() -> str:
        state = desk.alert(ALERT)
        rows.append({"kind": "look", "at_s": time.monotonic() - begin, "up": desk.value("replicas_up"), "state": state})
        return state

    def seen(status: str) -> bool:
        look()
        rows_of = [one for notice in desk.told[told:] for one in notice["alerts"] if one["labels"]["alertname"] == ALERT]
        return status in {one["status"] for one in rows_of}

    desk.until(lambda: look() == "inactive")
    with desk.asked(rate=1, output_tokens=8, prompt_tokens=24, ignore_eos=True) as found:
        time.sleep(quiet_s)
        happened("killed")
        desk.replica(1).process.kill()
        desk.until(lambda: look() != "inactive")
        happened("pending")
        desk.until(lambda: look() == "firing")
        happened("firing")
        desk.until(lambda: seen("firing"))
        happened("somebody is told")
        time.sleep(quiet_s)
        happened("started again")
        desk.again(1)
        desk.until(lambda: look() == "inactive", 120)
        happened("inactive")
        desk.until(lambda: seen("resolved"), 120)
        happened("told that it is over")
    counts = {status: sum(one.status == status for one in found) for status in ("ok", "refused", "error", "cut", "timeout")}
    return [*rows, {"kind": "requests", **counts}]


def shortest_s(limits: Limits) -> tuple[float, float]:
    """Seconds from the kill to the notification, computed: at best, and where each waits a whole interval for the one before."""
    always = limits.hold_s + WAIT_S
    return always, always + 2 * CHECK_S + 3 * EVERY_S


def slow_rows(desk: Desk, seconds: float, rate: float, word: str) -> Rows:
    """A load of short requests with one that is long in the middle: its log lines, and what three places say of the times.

    word: stands in the long request's prompt, and should be in no log line.
    """
    begin, wall = time.monotonic(), time.time()
    with desk.asked(rate=rate, output_tokens=8, prompt_tokens=24, ignore_eos=True) as found:
        time.sleep(seconds / 2)
        answer = httpx.post(
            f"{desk.service.base_url}/chat/completions",
            json={
                "model": desk.model.name, "max_tokens": SLOW_TOKENS, "ignore_eos": True, "temperature": 0,
                "messages": [{"role": "user", "content": f"{word} " * 40 + "Tell me a long story."}],
            },
            timeout=120,
        ).raise_for_status()  # fmt: skip
        took = time.monotonic() - begin - seconds / 2
        time.sleep(seconds / 2)
    needle = answer.headers["X-Request-ID"]
    lines: list[dict[str, Any]] = []

    def all_in() -> bool:
        span = time.monotonic() - begin + 1
        lines[:] = loki.search(desk.keeping.url, '{job="haproxy"}', seconds=span)
        return len(lines) >= len(found) + 1 and any(needle in row["line"] for row in lines)

    desk.until(all_in)
    span = round(time.monotonic() - begin) + 1
    begin_ns = round(wall * 1e9)
    rows: list[dict[str, Any]] = [{"kind": "needle", "request_id": needle, "took_s": took}]
    rows += [{"kind": "line", "at_s": (row["time_ns"] - begin_ns) / 1e9, "line": row["line"]} for row in lines]
    rows += [{"kind": "replica", **row} for row in _replica_lines(desk, span)]
    rows.append({"kind": "secret", "lines": len(loki.search(desk.keeping.url, f'{{job=~".+"}} |= "{word}"', seconds=span))})
    clients = [one.e2e_s for one in found if one.status == "ok"] + [took]
    for share in (0.5, 0.95, 1.0):
        logql = f'quantile_over_time({share:g}, {{job="haproxy"}} | json total_ms="total_ms" | unwrap total_ms [{span}s]) by (job)'
        rows.append({
            "kind": "quantile", "share": share, "n": len(clients), "clients_s": float(np.quantile(clients, share)),
            "logs_s": loki.count(desk.keeping.url, logql)[0]["value"] / 1e3,
        })  # fmt: skip
    rows.append({"kind": "mean", "clients_s": float(np.mean(clients)), "n": len(clients)})
    return rows


def _replica_lines(desk: Desk, span: float) -> Iterator[dict[str, Any]]:
    for row in loki.search(desk.keeping.url, f'{{job="{SERVER}"}} | json', seconds=span):
        told = json.loads(row["line"])
        yield {"server": row["server"], **{key: told.get(key) for key in ("prompt_tokens", "prompt_ms", "output_tokens", "output_ms")}}
