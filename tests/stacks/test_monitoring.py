"""The monitoring stack, started for real: balanced, watched, told of a replica that is gone, stopped without cutting an answer."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from checklist import not_as_said
from stack_table import FOLDER, ONLY, client
from test_stacks import Answer, listening, tokens_for

from labkit.scale import dashboards, rules
from labkit.servers import images, prometheus
from labkit.servers.base import free_port
from labkit.servers.images.build import run_tag

HERE = FOLDER / "monitoring"
PARTS = ("haproxy", "prometheus", "alertmanager")
DOORS = {"PORT": 8080, "PROMETHEUS_PORT": 9090, "ALERTMANAGER_PORT": 9093}
# chosen by name, as the other stacks are
pytestmark = [pytest.mark.timeout(900), *([pytest.mark.skip("STACKS names others")] if ONLY and "monitoring" not in ONLY else [])]


class Up:
    """The running stack and its doors."""

    def __init__(self, stack: images.Stack, ports: dict[str, int]) -> None:
        self.stack, self.ports = stack, ports
        self.service, self.prometheus, self.alertmanager = (f"http://127.0.0.1:{ports[name]}" for name in DOORS)

    def readme(self, text: str) -> str:
        """A command of README.md with this run's names and ports."""
        for name, usual in DOORS.items():
            text = text.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{self.ports[name]}")
        # inside the container its port is the usual one
        text = text.replace(
            f"--alertmanager.url=http://127.0.0.1:{self.ports['ALERTMANAGER_PORT']}", "--alertmanager.url=http://127.0.0.1:9093"
        )
        return text.replace("monitoring_", f"{self.stack.project}_")

    def until(self, true: Callable[[], object], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    ports = {name: free_port() for name in DOORS}
    tags = {f"{part.upper()}_IMAGE": run_tag(part) for part in ("model", *PARTS)}
    before = images.leftovers()
    with images.compose(HERE, project="monitoring", env={**tags, **{name: str(port) for name, port in ports.items()}}) as stack:
        stack.up()
        stack.wait(seconds=180)
        found = Up(stack, ports)
        found.until(lambda: value(found, "sum(up)") == 3)
        yield found
    assert [row for row in images.leftovers() if row not in before and not row.startswith("image")] == []
    assert not any(listening(port) for port in ports.values())


def value(up: Up, promql: str) -> float | None:
    with contextlib.suppress(Exception):
        rows = prometheus.query(up.prometheus, promql)
        return rows[0]["value"] if len(rows) == 1 else None
    return None


def test_the_files_that_labkit_makes_are_what_it_makes() -> None:
    words = [sys.executable, str(Path(__file__).parents[2] / "scripts" / "monitoring_stack.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_lokis_configuration_is_one_that_loki_takes() -> None:
    from labkit.servers import runtimes

    words = [str(runtimes.open("loki").require().path), "-verify-config", f"-config.file={HERE / 'loki' / 'loki.yml'}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]


def test_every_container_is_hardened_and_only_this_machine_reaches_the_three_doors(up: Up) -> None:
    containers = [one for rows in up.stack.services.values() for one in rows]
    assert len(containers) == 5
    for one in containers:
        found = images.hardening(one)
        assert found["uid"] >= 10000 and found["cap_bnd"] == 0 and found["no_new_privs"] and found["read_only_root"], one.name
        assert found["memory_limit_bytes"] and found["cpus"] and found["pids_limit"], one.name
    assert {port for one in containers for port in one.ports.values()} == set(up.ports.values())
    assert all(listening(port) == {"0100007F"} for port in up.ports.values())


def test_each_item_of_the_readiness_checklist_prints_what_it_says(up: Up) -> None:
    assert not_as_said(HERE, up.readme) == []


def test_no_panel_of_the_dashboard_is_empty_and_all_rules_are_loaded(up: Up) -> None:
    with client(f"{up.service}/v1") as asked:
        for _ in range(4):
            asked.chat.completions.create(model="smollm2-135m", messages=[{"role": "user", "content": "Say yes."}], max_tokens=4)
    panels = list(dashboards.panels((HERE / "dashboard.json").read_text(encoding="utf-8")))
    assert len(panels) == 11
    for title, expression in panels:
        up.until(lambda text=expression: prometheus.query(up.prometheus, text.replace("$__rate_interval", "60s")), 60)
        assert title
    loaded = httpx.get(f"{up.prometheus}/api/v1/rules", timeout=10).json()["data"]["groups"]
    assert {row["name"] for group in loaded for row in group["rules"]} >= {one.name for one in rules.ALERTS}


def test_a_replica_that_is_gone_is_told_to_alertmanager_and_users_hardly_notice(up: Up) -> None:
    up.until(lambda: value(up, "sum(up)") == 3)
    up.stack.container("model-b").stop(1)
    with client(f"{up.service}/v1") as asked:
        for _ in range(3):
            assert asked.chat.completions.create(model="smollm2-135m", messages=[{"role": "user", "content": "Yes?"}], max_tokens=2).choices
    fired = f"{up.alertmanager}/api/v2/alerts"
    up.until(lambda: "ReplicaDown" in {row["labels"]["alertname"] for row in json.loads(httpx.get(fired, timeout=10).text)})


def test_a_running_answer_ends_when_the_balancer_is_told_to_stop(up: Up) -> None:
    tokens = tokens_for(client(f"{up.service}/v1"), 2)
    answer = Answer(client(f"{up.service}/v1"), tokens)
    assert answer.begun.wait(60)
    door = up.stack.container("haproxy")
    told = time.monotonic()
    door.stop(30)
    answer.whole()
    assert answer.times[-1] > told
