"""Loki: it takes log lines in from many servers, keeps them, and finds them again.

>>> with loki.start() as keeping:  # doctest: +SKIP
...     loki.push(keeping.url, {"job": "haproxy"}, [(time.time_ns(), '{"request_id": "7f"}')])
...     loki.search(keeping.url, '{job="haproxy"} | json | request_id="7f"')

A line belongs to a stream, which its labels name. Labels are few and their values too (job, server); what differs from request to
request, such as its id, stays in the line, and a query's `| json` reads it there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import yaml
from pydantic import BaseModel, ConfigDict

from labkit.core.errors import BadInput, RunFailed
from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.servers import runtimes
from labkit.servers.base import FOLDER, HOST, NO_MODEL, Running, Server, free_port

Line = tuple[int, str]  # nanoseconds of Unix time, and the text
BATCH = 5000  # lines of one push: about 1 MB, a quarter of what Loki takes at once


class Options(BaseModel):
    """There are none yet."""

    model_config = ConfigDict(extra="forbid")


def config(port: int, grpc_port: int, host: str = HOST, folder: str = f"{FOLDER}/data") -> dict[str, Any]:
    """loki.yml for one process that listens at `host`, its files in `folder`, nothing reported to anyone."""
    return {
        "auth_enabled": False,
        "analytics": {"reporting_enabled": False},
        "server": {
            "http_listen_address": host, "http_listen_port": port, "grpc_listen_address": HOST, "grpc_listen_port": grpc_port,
            "log_level": "warn",
        },
        "common": {
            "path_prefix": folder, "instance_addr": HOST, "replication_factor": 1,
            "ring": {"kvstore": {"store": "inmemory"}, "instance_addr": HOST},
            "storage": {"filesystem": {"chunks_directory": f"{folder}/chunks", "rules_directory": f"{folder}/rules"}},
        },
        "memberlist": {"bind_addr": [HOST], "bind_port": 0},
        # one process is whole from the start: it need not wait for others
        "ingester": {"lifecycler": {"min_ready_duration": "0s", "final_sleep": "0s"}},
        "frontend": {"address": HOST},
        "query_range": {"cache_results": False},
        "limits_config": {
            # as much at once as one laptop can send, and lines that came late
            "ingestion_rate_mb": 256, "ingestion_burst_size_mb": 512, "per_stream_rate_limit": "256MB",
            "per_stream_rate_limit_burst": "512MB", "reject_old_samples": False, "max_entries_limit_per_query": 100_000,
            "allow_structured_metadata": True, "volume_enabled": True,
        },
        "schema_config": {
            "configs": [{
                "from": "2024-01-01", "store": "tsdb", "object_store": "filesystem", "schema": "v13",
                "index": {"prefix": "index_", "period": "24h"},
            }]
        },
    }  # fmt: skip


class Loki(Server):
    name = "loki"
    health = "/ready"
    api = "/loki/api/v1"
    own_folder = True
    kept = True
    start_seconds = 90.0

    def missing(self) -> str | None:
        return runtimes.open("loki").missing()

    def version(self) -> str | None:
        found = runtimes.open("loki").find()
        return found.version if found else None

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        parse(Options, self.name, options)
        return [str(runtimes.open("loki").require().path), f"-config.file={FOLDER}/loki.yml", "-target=all"]

    def files(self, port: int, options: dict[str, Any]) -> dict[str, str]:
        return {"loki.yml": yaml.safe_dump(config(port, free_port()), sort_keys=False)}


SERVER = Loki()


def start(port: int | None = None, **options: Any) -> Running:
    """A running Loki, stopped at the end, and all that it kept is gone."""
    return SERVER.start(NO_MODEL, port, **options)


def push(url: str, labels: Mapping[str, str], lines: Sequence[Line]) -> None:
    """Lines of one stream. Raises RunFailed where Loki does not take them."""
    with httpx.Client(timeout=30) as client:
        for first in range(0, len(lines), BATCH):
            values = [[str(when), text] for when, text in lines[first : first + BATCH]]
            _answer(client, url, "POST", "push", json={"streams": [{"stream": dict(labels), "values": values}]})


def search(url: str, logql: str, seconds: float = 3600, limit: int = 1000) -> list[dict[str, Any]]:
    """Log lines of the last `seconds` that a LogQL query finds, oldest first: each stream's labels, `time_ns` and `line`.

    Raises BadInput for what is no query.
    """
    now = time.time_ns()
    asked = {"query": logql, "start": now - round(seconds * 1e9), "end": now + 10**9, "limit": limit, "direction": "forward"}
    with httpx.Client(timeout=60) as client:
        found = _answer(client, url, "GET", "query_range", params=asked).json()["data"]
    if found["resultType"] != "streams":
        raise BadInput(f"{logql!r} counts lines, and does not find any", "loki.count asks for numbers")
    rows = [{**one["stream"], "time_ns": int(when), "line": text} for one in found["result"] for when, text in one["values"]]
    return sorted(rows, key=lambda row: row["time_ns"])


def count(url: str, logql: str) -> list[dict[str, Any]]:
    """A LogQL query for numbers, such as `sum by (server) (count_over_time({job="haproxy"}[5m]))`: labels and `value`, as of now.

    Raises BadInput for one that finds lines.
    """
    with httpx.Client(timeout=60) as client:
        found = _answer(client, url, "GET", "query", params={"query": logql, "time": time.time_ns()}).json()["data"]
    return [{**row["metric"], "value": float(row["value"][1])} for row in found["result"]]


def _answer(client: httpx.Client, url: str, method: str, route: str, **words: Any) -> httpx.Response:
    try:
        answer = client.request(method, f"{url}{SERVER.api}/{route}", **words)
    except httpx.HTTPError as error:
        raise RunFailed(f"Loki at {url} does not answer ({error or type(error).__name__})", "labkit doctor") from error
    if answer.status_code == 400:
        raise BadInput(f"Loki does not take this: {answer.text.strip()[:300]}", "docs: https://grafana.com/docs/loki/latest/query/")
    if answer.is_error:
        raise RunFailed(f"Loki at {url} answers {answer.status_code}: {answer.text.strip()[:300]}", "labkit doctor")
    return answer
