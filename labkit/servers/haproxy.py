"""HAProxy in front of several servers: it chooses one for each request, watches their health, and sends again what none has begun.

It is configured twice over: as it should be, and `naive`, as one finds it in many a first try: servers in turn, no health checks, no
second try. The difference is seen when a server dies.

>>> with haproxy.start(backends=[one.url, other.url]) as running:  # doctest: +SKIP
...     print(running.base_url)

Its own pages are under /haproxy: /haproxy/health (200 while a server is up), /haproxy/metrics (Prometheus' text).
"""

from __future__ import annotations

import csv
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from labkit.core.errors import RunFailed
from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.servers.base import FOLDER, HOST, NO_MODEL, Running, Server

Policy = Literal["leastconn", "roundrobin", "random(2)", "first"]

# A request may be sent again as long as no byte of its answer has come: until then nobody has seen anything of it. 16 kB is HAProxy's
# own buffer, and a longer prompt could not be sent twice. log-format: one JSON object a request, its times in milliseconds, with
# nothing of its text.
_GOOD = """\
    balance {policy}
    option httpchk GET {health}
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response response-timeout 502 503
    default-server check inter {check_ms}ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down
"""
_NAIVE = """\
    balance {policy}
    retries 0
"""
_FILE = """\
global
    log stdout format raw local0 info
    maxconn {connections}
    tune.bufsize 65536
    stats socket {folder}/admin.sock mode 600 level admin

defaults
    mode http
    log global
    timeout connect 2s
    timeout client 10m
    timeout server 10m
    timeout queue 1m
    timeout http-request 10s
{resolvers}
frontend door
    bind {host}:{port}
    monitor-uri /haproxy/health
{alive}    http-request set-log-level silent if {{ path_beg /haproxy/ }}
    http-request use-service prometheus-exporter if {{ path /haproxy/metrics }}
    unique-id-format %[uuid()]
    unique-id-header X-Request-ID
    http-response set-header X-Request-ID %[unique-id]
    log-format '{log_format}'
    default_backend replicas

backend replicas
{how}{servers}
"""
_LOG = (
    '{"time":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]","accepted":%Ts.%ms,"request_id":"%ID","server":"%s","status":%ST,"state":"%tsc","retries":"%rc",'
    '"wait_ms":%Tw,"first_byte_ms":%Tr,"total_ms":%Ta,"bytes":%B,"in_flight":%sc,"path":"%HP"}'
)


class Options(BaseModel):
    """backends: base URLs of what stands behind it, as `Running.url` gives them. max_each: requests at once that one of them gets, the
    others wait in HAProxy; 0: no limit. check_s: between two looks at a server's health. spare: places for servers that come while it
    runs, see `Places`."""

    model_config = ConfigDict(extra="forbid")

    backends: list[str] = Field(default_factory=list)
    spare: int = Field(0, ge=0, le=200)
    policy: Policy = "leastconn"
    naive: bool = False
    max_each: int = Field(0, ge=0)
    check_s: float = Field(0.5, gt=0)
    health: str = Field("/health", pattern=r"^/[A-Za-z0-9/_.-]*$")

    @field_validator("backends")
    @classmethod
    def _here(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if not re.fullmatch(rf"http://{re.escape(HOST)}:[0-9]{{1,5}}", url):
                raise ValueError(f"{url} is no address on this machine such as http://{HOST}:8080")
        return urls

    @model_validator(mode="after")
    def _some(self) -> Options:
        if not self.backends and not self.spare:
            raise ValueError("backends: at least one, or spare: places for some")
        return self


def text(port: int, chosen: Options) -> str:
    """The configuration file."""
    most = f" maxconn {chosen.max_each}" if chosen.max_each else ""
    rows = [f"    server r{number} {urlsplit(url).netloc}{most}" for number, url in enumerate(chosen.backends)]
    rows += [f"    server r{number} {HOST}:1{most} disabled" for number in range(len(rows), len(rows) + chosen.spare)]
    # one that begins with nobody behind it is ready all the same
    return _written(HOST, port, FOLDER, rows, chosen, alive=bool(chosen.backends))


def container_text(addresses: Sequence[str], port: int) -> str:
    """The same for a container in a network of its own, as it should be: `addresses` are names of services with their ports.

    A service that starts again may have another address: its name is looked up again, with the container's own resolv.conf.
    """
    rows = [f"    server r{number} {address} resolvers names init-addr last,libc,none" for number, address in enumerate(addresses)]
    return _written(
        "", port, "/tmp", rows, Options(spare=1), alive=True, connections=1000,  # noqa: S108 - the container's own
        resolvers="\nresolvers names\n    parse-resolv-conf\n    hold valid 5s\n",
    )  # fmt: skip


def _written(
    host: str, port: int, folder: str, rows: Sequence[str], chosen: Options, alive: bool, resolvers: str = "", connections: int = 4000
) -> str:
    how = (_NAIVE if chosen.naive else _GOOD).format(policy=chosen.policy, health=chosen.health, check_ms=round(1000 * chosen.check_s))
    fails = "    monitor fail if { nbsrv(replicas) lt 1 }\n" if alive else ""
    return _FILE.format(
        alive=fails, connections=connections, folder=folder, host=host, port=port, log_format=_LOG, how=how, servers="\n".join(rows),
        resolvers=resolvers,
    )  # fmt: skip


class Haproxy(Server):
    name = "haproxy"
    health = "/haproxy/health"
    own_folder = True
    kept = True  # it would go on without the one that started it
    start_seconds = 30.0

    def missing(self) -> str | None:
        if program() is None:
            return "HAProxy is not installed; install it: sudo apt-get install haproxy"
        return None

    def version(self) -> str | None:
        path = program()
        if path is None:
            return None
        said = subprocess.run([path, "-v"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"version (\d[\d.]*)", said)
        return found[1] if found else None

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        parse(Options, self.name, options)
        return [str(program()), "-db", "-f", f"{FOLDER}/haproxy.cfg"]

    def files(self, port: int, options: dict[str, Any]) -> dict[str, str]:
        return {"haproxy.cfg": text(port, parse(Options, self.name, options))}


SERVER = Haproxy()


class Places:
    """The places of a running HAProxy, over its socket: who stands in one, and whether it gets requests."""

    def __init__(self, front: Running) -> None:
        self._socket = str(front.folder / "admin.sock") if front.folder else ""

    def put(self, number: int, url: str) -> None:
        """The server at `url` stands in place r`number` from now on and gets requests. Only for one that is healthy."""
        host, port = urlsplit(url).netloc.split(":")
        self._tell(f"set server replicas/r{number} addr {host} port {port}")
        self._tell(f"set server replicas/r{number} state ready")

    def drain(self, number: int) -> None:
        """It gets no new request; those that it has go on."""
        self._tell(f"set server replicas/r{number} state drain")

    def clear(self, number: int) -> None:
        """Nobody stands in it."""
        self._tell(f"set server replicas/r{number} state maint")

    def in_flight(self) -> dict[int, int]:
        """Requests that each place has now."""
        rows = csv.DictReader(self._tell("show stat replicas 4 -1").lstrip("# ").splitlines())
        return {int(row["svname"][1:]): int(row["scur"]) for row in rows}

    def _tell(self, words: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(5)
            try:
                line.connect(self._socket)
                line.sendall(words.encode() + b"\n")
                said = b"".join(iter(lambda: line.recv(65536), b"")).decode().strip()
            except OSError as error:
                raise RunFailed(f"HAProxy's socket does not answer ({error})", "labkit doctor") from error
        if not words.startswith("show") and said and not said.startswith(("IP changed", "no need to change", "port changed")):
            raise RunFailed(f"HAProxy refuses {words!r}: {said.splitlines()[0]}", "labkit doctor")
        return said


def program() -> str | None:
    """Debian puts it where only root's PATH looks."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


def start(port: int | None = None, **options: Any) -> Running:
    """A running HAProxy, stopped at the end. Options: see Options. Raises as Server.start does."""
    return SERVER.start(NO_MODEL, port, **options)
