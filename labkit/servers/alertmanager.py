"""Alertmanager: takes alerts from Prometheus, groups them, and tells those who want to know, here by a web hook on this machine.

>>> with alertmanager.start(webhook="http://127.0.0.1:9000") as telling:  # doctest: +SKIP
...     print(alertmanager.alerts(telling.url))
"""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import yaml
from pydantic import BaseModel, ConfigDict, Field

from labkit.core.errors import RunFailed
from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.servers.base import FOLDER, HOST, NO_MODEL, Running, Server
from labkit.servers.prometheus import said_version

PROGRAMS = ("alertmanager", "prometheus-alertmanager")  # Debian gives it another name


class Options(BaseModel):
    """webhook: where each notification is posted. wait_s: before the first one of a group; between_s: between changes of it."""

    model_config = ConfigDict(extra="forbid")

    webhook: str = Field(pattern=r"^http://127\.0\.0\.1:\d{1,5}(/[\w/-]*)?$")
    group_by: list[str] = Field(default_factory=lambda: ["alertname"])
    wait_s: float = Field(1.0, gt=0)
    between_s: float = Field(5.0, gt=0)
    again_s: float = Field(3600.0, gt=0, description="a notification that changes nothing is repeated after so long")


class Alertmanager(Server):
    name = "alertmanager"
    health = "/-/ready"
    api = "/api/v2"
    own_folder = True
    kept = True
    start_seconds = 60.0

    def missing(self) -> str | None:
        if program() is None:
            return "Alertmanager is not installed; install it: sudo apt-get install prometheus-alertmanager"
        return None

    def version(self) -> str | None:
        path = program()
        return said_version(path) if path else None

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        parse(Options, self.name, options)
        words = [str(program()), f"--config.file={FOLDER}/alertmanager.yml", f"--storage.path={FOLDER}/data", "--log.level=warn"]
        return [*words, f"--web.listen-address={HOST}:{port}", "--cluster.listen-address="]  # one alone: it listens for no others

    def files(self, port: int, options: dict[str, Any]) -> dict[str, str]:
        return {"alertmanager.yml": yaml.safe_dump(config(parse(Options, self.name, options)), sort_keys=False)}


SERVER = Alertmanager()


def config(chosen: Options) -> dict[str, Any]:
    """alertmanager.yml."""
    times = {"group_wait": chosen.wait_s, "group_interval": chosen.between_s, "repeat_interval": chosen.again_s}
    return {
        "route": {"receiver": "hook", "group_by": chosen.group_by, **{name: f"{round(1000 * value)}ms" for name, value in times.items()}},
        "receivers": [{"name": "hook", "webhook_configs": [{"url": chosen.webhook, "send_resolved": True}]}],
    }


def program() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def start(port: int | None = None, **options: Any) -> Running:
    """A running Alertmanager, stopped at the end. Options: see Options."""
    return SERVER.start(NO_MODEL, port, **options)


def alerts(url: str) -> list[dict[str, Any]]:
    """What it holds now: one row an alert, its labels and `state`."""
    try:
        rows = httpx.get(f"{url}/api/v2/alerts", timeout=30).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise RunFailed(f"Alertmanager at {url} does not answer ({error})", "labkit doctor") from error
    return [{**row["labels"], "state": row["status"]["state"]} for row in rows]


@contextmanager
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web hook on loopback: its address, and the notifications that it has been told so far, each with its `status` and `alerts`."""
    told: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a line a notification would be written between a notebook's own."""

    with http.server.ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}", told
        finally:
            server.shutdown()
            thread.join()
