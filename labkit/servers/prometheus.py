"""Prometheus: it fetches the metrics of servers every so often, keeps them, answers queries and watches rules.

>>> with prometheus.start(targets={"llama": [running.url]}, every_s=1.0, rules=text) as watching:  # doctest: +SKIP
...     prometheus.query(watching.url, "up")

Its first fetch comes some seconds after its start, and a rate needs two: ask until something is there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import httpx
import yaml
from pydantic import BaseModel, ConfigDict, Field

from labkit.core.errors import BadInput, RunFailed
from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.servers.base import FOLDER, HOST, NO_MODEL, Running, Server


class Target(BaseModel):
    """What is fetched: servers by the addresses that `Running.url` gives. labels: added to each of their series."""

    model_config = ConfigDict(extra="forbid")

    urls: list[str]
    path: str = "/metrics"
    labels: dict[str, str] = Field(default_factory=dict)


class Options(BaseModel):
    """targets: a name (the label `job`) -> its servers. rules: the text of a rules file. alertmanager: its URL."""

    model_config = ConfigDict(extra="forbid")

    targets: dict[str, Target | list[str]] = Field(default_factory=dict)
    every_s: float = Field(1.0, ge=0.1, description="between two fetches, and between two looks at the rules")
    rules: str | None = None
    alertmanager: str | None = None
    keep: str = Field("2h", pattern=r"^\d+[smhd]$", description="how long it keeps what it has fetched")


def config(chosen: Options) -> dict[str, Any]:
    """prometheus.yml."""
    every = f"{round(1000 * chosen.every_s)}ms"
    out: dict[str, Any] = {"global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}}
    out["scrape_configs"] = [_job(name, given) for name, given in chosen.targets.items()]
    if chosen.rules is not None:
        out["rule_files"] = [f"{FOLDER}/rules.yml"]
    if chosen.alertmanager:
        out["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [_address(chosen.alertmanager)]}]}]}
    return out


def _job(name: str, given: Target | list[str]) -> dict[str, Any]:
    target = given if isinstance(given, Target) else Target(urls=given)
    return {
        "job_name": name,
        "metrics_path": target.path,
        "static_configs": [{"targets": [_address(url) for url in target.urls], "labels": target.labels}],
    }


def _address(url: str) -> str:
    """Host and port. Raises BadInput for any place but this machine's loopback."""
    found = re.fullmatch(rf"http://({re.escape(HOST)}:\d{{1,5}})", url)
    if found is None:
        raise BadInput(f"{url} is no address on this machine", f"such as http://{HOST}:8080")
    return found[1]


class Prometheus(Server):
    name = "prometheus"
    health = "/-/ready"
    api = "/api/v1"
    own_folder = True
    kept = True
    start_seconds = 60.0

    def missing(self) -> str | None:
        if shutil.which("prometheus") is None:
            return "Prometheus is not installed; install it: sudo apt-get install prometheus"
        return None

    def version(self) -> str | None:
        return said_version("prometheus")

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        chosen = parse(Options, self.name, options)
        config(chosen)  # what cannot be said in it is refused before anything starts
        if chosen.rules is not None:
            check_rules(chosen.rules)
        words = ["prometheus", f"--config.file={FOLDER}/prometheus.yml", f"--storage.tsdb.path={FOLDER}/data"]
        return [*words, f"--storage.tsdb.retention.time={chosen.keep}", f"--web.listen-address={HOST}:{port}", "--log.level=warn"]

    def files(self, port: int, options: dict[str, Any]) -> dict[str, str]:
        chosen = parse(Options, self.name, options)
        found = {"prometheus.yml": yaml.safe_dump(config(chosen), sort_keys=False)}
        return found if chosen.rules is None else found | {"rules.yml": chosen.rules}


SERVER = Prometheus()


def said_version(program: str) -> str | None:
    """What `program --version` says, None where it is not there."""
    path = shutil.which(program)
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\d[\w.]*)", done.stdout + done.stderr)
    return found[1] if found else None


def start(port: int | None = None, **options: Any) -> Running:
    """A running Prometheus, stopped at the end, and all that it kept is gone. Options: see Options."""
    return SERVER.start(NO_MODEL, port, **options)


def check_rules(text: str) -> None:
    """Raises BadInput with what promtool says against it."""
    path = shutil.which("promtool")
    if path is None:
        return
    done = subprocess.run([path, "check", "rules", "/dev/stdin"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise BadInput(f"these are no rules: {said[-1][:300]}", "promtool check rules FILE")


def query(url: str, promql: str) -> list[dict[str, Any]]:
    """An instant query: one row a series, its labels and `value`. [] where there is nothing. Raises BadInput for what is no query."""
    rows = _ask(url, "query", {"query": promql})["result"]
    return [{**row["metric"], "value": float(row["value"][1])} for row in rows]


def query_range(url: str, promql: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
    """The same over a span of Unix time: one row a series, its labels, `times_s` and `values`."""
    span = {"start": start_s, "end": end_s, "step": step_s}
    rows = _ask(url, "query_range", {"query": promql, **span})["result"]
    return [
        {**row["metric"], "times_s": [float(t) for t, _ in row["values"]], "values": [float(v) for _, v in row["values"]]} for row in rows
    ]


def alerts(url: str) -> list[dict[str, Any]]:
    """What it watches and what holds now: one row an alert that is pending or firing, with its labels and `state`."""
    return [{**row["labels"], "state": row["state"]} for row in _ask(url, "alerts", {})["alerts"]]


def _ask(url: str, route: str, words: Mapping[str, Any]) -> dict[str, Any]:
    try:
        # a long query does not fit into an address
        answer = httpx.request("POST" if words else "GET", f"{url}/api/v1/{route}", data=dict(words) or None, timeout=30)
        told = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise RunFailed(f"Prometheus at {url} does not answer ({error})", "labkit doctor") from error
    if told.get("status") != "success":
        raise BadInput(
            f"{words.get('query', route)!r} is no query: {told.get('error')}", "docs: https://prometheus.io/docs/prometheus/latest/querying"
        )
    return dict(told["data"])
