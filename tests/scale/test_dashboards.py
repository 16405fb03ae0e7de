"""Every panel and every recorded rule returns numbers from a real Prometheus that watches real servers under load."""

import contextlib
import json
import math

import pytest
from under_load import asked, until

from labkit import models, servers
from labkit.scale import dashboards, observe, rules
from labkit.servers import prometheus, replicas

WINDOW_S = 10
LIMITS = rules.Limits(window_s=WINDOW_S, hold_s=1, replicas=2)


@pytest.fixture(scope="module")
def watched():
    """Two llama-servers behind HAProxy, and the ONNX service, which counts under OpenTelemetry's names; all asked by a client."""
    with contextlib.ExitStack() as stack:
        several = stack.enter_context(replicas.start("llama_server", models.resolve("smollm2-135m"), 2, context=512, parallel=1, threads=1))
        service = stack.enter_context(servers.open("onnx").start(models.resolve("stdlib-10m"), context=512, threads=1, parallel=2))
        targets = {
            "haproxy": prometheus.Target(urls=[several.balancer.url], path="/haproxy/metrics"),
            "llama_server": [one.url for one in several.replicas],
            "onnx": [service.url],
        }
        options = {"targets": targets, "every_s": 0.5, "rules": rules.text(LIMITS)}
        watching = stack.enter_context(prometheus.start(**options))
        stack.enter_context(asked(several.base_url, "smollm2-135m"))
        stack.enter_context(asked(service.base_url, "stdlib-10m"))
        yield watching


def numbers(watching, promql):
    return [row["value"] for row in prometheus.query(watching.url, promql) if not math.isnan(row["value"])]


def test_no_panel_is_empty(watched):
    shown = list(dashboards.panels(dashboards.text()))
    assert len(shown) == sum(one.source != "quality" for one in observe.CATALOGUE.values())
    for title, expression in shown:
        promql = expression.replace("$__rate_interval", f"{WINDOW_S}s")
        assert until(lambda: numbers(watched, promql)), title  # noqa: B023 - asked before the next one


def test_the_panels_say_what_the_catalogue_says():
    text = dashboards.text(("haproxy", "llama_server", "gen_ai", "quality"))
    by_title = {one.title: one for one in observe.CATALOGUE.values()}
    assert dict(dashboards.panels(text)) == {t: one.text.replace("WINDOW", "$__rate_interval") for t, one in by_title.items()}
    panels = [panel for panel in json.loads(text)["panels"] if panel["type"] == "timeseries"]
    assert all(panel["description"] == by_title[panel["title"]].meaning for panel in panels)
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in panels} <= set(dashboards.UNITS.values())
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("name", rules.RECORDED)
def test_what_is_recorded_has_a_value(watched, name):
    assert until(lambda: numbers(watched, rules.recorded_name(name)))


def test_a_figure_is_the_server_s_own(watched):
    """Seconds a token, from Prometheus, against the pace that two busy replicas have: between a tenth of a millisecond and a second."""
    (value,) = until(lambda: numbers(watched, observe.query("s_per_token", WINDOW_S)))
    assert 1e-4 < value < 1
    assert numbers(watched, observe.query("replicas_up")) == [2]
