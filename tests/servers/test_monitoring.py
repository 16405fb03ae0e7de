"""Prometheus and Alertmanager for real, from a real model server's metrics to a web hook that is told and told again."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import pytest

from labkit import models, servers
from labkit.core.errors import BadInput
from labkit.measure import load
from labkit.measure.load import Plan
from labkit.servers import alertmanager, base, echo, haproxy, prometheus

RULES = """
groups:
  - name: test
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
      - alert: Away
        expr: up == 0
        labels: {severity: page}
        annotations: {summary: "{{ $labels.job }} is away"}
"""


def until(ask: Callable[[], object], seconds: float = 40) -> object:
    end = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
    return found


@pytest.fixture(autouse=True)
def installed(needs):
    for program in ("prometheus", "promtool", "prometheus-alertmanager", "haproxy"):
        needs(program)


def listening(running) -> set[str]:
    return {c.laddr.ip for c in psutil.Process(running.pid).net_connections("inet") if c.status in (psutil.CONN_LISTEN, "NONE")}


def test_a_real_servers_metrics_are_fetched_and_queried():
    model = models.resolve("smollm2-135m")
    with servers.open("llama_server").start(model, context=256, parallel=1, threads=1) as running:
        targets = {"llama": {"urls": [running.url], "labels": {"model": model.name}}}
        with prometheus.start(targets=targets, every_s=0.5, rules=RULES) as watching:
            began = time.time()
            (up,) = until(lambda: prometheus.query(watching.url, "up"))
            assert (up["job"], up["model"], up["value"]) == ("llama", model.name, 1.0)
            found = load.run(running.base_url, model.name, Plan(concurrency=1, requests=2, output_tokens=8, warmup=0))
            tokens = sum(outcome.output_tokens for outcome in found)
            counted = "llamacpp:tokens_predicted_total"
            until(lambda: [row["value"] for row in prometheus.query(watching.url, counted)] == [tokens])
            assert until(lambda: prometheus.query(watching.url, "job:up:sum"))[0]["value"] == 1
            (row,) = prometheus.query_range(watching.url, counted, began, time.time() + 1, 0.5)
            assert row["values"] == sorted(row["values"]) and row["values"][-1] == tokens
            assert len(row["times_s"]) == len(row["values"])
            assert listening(watching) == {"127.0.0.1"}
            assert prometheus.alerts(watching.url) == []
            with pytest.raises(BadInput, match="is no query"):
                prometheus.query(watching.url, "sum(")
            folder = watching.folder
    assert not folder.exists()


def test_an_alert_fires_when_a_server_dies_and_resolves_when_it_is_back():
    port = base.free_port()
    with (
        alertmanager.hook() as (url, told),
        echo.start() as echoing,
        alertmanager.start(webhook=url, wait_s=0.2, between_s=1) as telling,
        prometheus.start(
            targets={"door": {"urls": [f"http://{base.HOST}:{port}"], "path": "/haproxy/metrics"}},
            every_s=0.5, rules=RULES, alertmanager=telling.url,
        ) as watching,
    ):  # fmt: skip
        with haproxy.start(port, backends=[echoing.url]):
            until(lambda: [row["value"] for row in prometheus.query(watching.url, "up")] == [1])
        until(lambda: [row["state"] for row in prometheus.alerts(watching.url)] == ["firing"])
        until(lambda: told)
        assert alertmanager.alerts(telling.url)[0]["alertname"] == "Away"
        assert listening(telling) == {"127.0.0.1"}
        first = told[0]
        assert (first["status"], first["alerts"][0]["annotations"]["summary"]) == ("firing", "door is away")
        with haproxy.start(port, backends=[echoing.url]):
            until(lambda: told[-1]["status"] == "resolved")
        assert prometheus.alerts(watching.url) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": {"a": ["http://example.org:80"]}}, "no address on this machine"),
        ({"targets": {"a": {"urls": [], "pth": "/"}}}, "targets"),
        ({"rules": "groups: [{name: x, rules: [{alert: A, expr: 'sum('}]}]"}, "no rules"),
        ({"alertmanager": "http://0.0.0.0:1"}, "no address on this machine"),
        ({"evry_s": 1}, "did you mean every_s"),
        ({"keep": "2 h"}, "keep"),
    ],
)
def test_options_of_prometheus_are_checked(options, said):
    with pytest.raises(BadInput, match=said), prometheus.start(**options):
        pass


@pytest.mark.parametrize("url", ["http://example.org/", "https://127.0.0.1:1", "http://127.0.0.1:1/a b"])
def test_alertmanager_tells_nobody_elsewhere(url):
    with pytest.raises(BadInput, match="webhook"), alertmanager.start(webhook=url):
        pass
