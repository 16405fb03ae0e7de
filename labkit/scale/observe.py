"""What is worth watching when a small model is served: metrics, the queries over them, dashboards and alerts, from one catalogue.

Metrics have the names of OpenTelemetry's conventions for generative AI where there is one (gen_ai_…); what llama-server, vLLM and
HAProxy count has the names that they give it. The catalogue says for each question its PromQL; the Grafana dashboard (dashboards.py),
the rules (rules.py) and the labs' own plots take it from here, so that they cannot differ.

>>> CATALOGUE["tokens_per_s"].promql(window_s=60)
'sum(rate(llamacpp:tokens_predicted_total[60s]))'
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Gauge, start_http_server
from pydantic import BaseModel, ConfigDict

from labkit.core import paths
from labkit.core.errors import BadInput, nearest
from labkit.servers.base import HOST

Source = Literal["haproxy", "llama_server", "gen_ai", "quality"]
Unit = Literal["1/s", "s", "share", "count", "tokens/s"]


class Query(BaseModel):
    """A question and its PromQL. WINDOW in the text becomes the span that a rate is taken over. empty: what nothing means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    text: str
    unit: Unit
    source: Source
    meaning: str

    def promql(self, window_s: float = 60) -> str:
        return self.text.replace("WINDOW", f"{round(window_s)}s")


_P95 = "histogram_quantile(0.95, sum by (le) (rate(%s_bucket[WINDOW])))"
_ROWS: list[tuple[str, str, Unit, Source, str, str]] = [
    ("requests_per_s", "Requests a second", "1/s", "haproxy", 'sum(rate(haproxy_frontend_http_requests_total{proxy="door"}[WINDOW]))',
     "how much is asked; a rate of 0 at noon is an alarm of its own"),
    ("error_share", "Share of answers with a 5xx status", "share", "haproxy",
     'sum(rate(haproxy_frontend_http_responses_total{proxy="door",code="5xx"}[WINDOW])) '
     '/ sum(rate(haproxy_frontend_http_responses_total{proxy="door"}[WINDOW]))',
     "what clients see; a stream that was cut after its status 200 is not in it"),
    ("replicas_up", "Replicas that are up", "count", "haproxy", 'sum(haproxy_server_status{proxy="replicas",state="UP"})',
     "what the balancer's own health checks say"),
    ("in_flight", "Requests in flight", "count", "haproxy", 'sum(haproxy_server_current_sessions{proxy="replicas"})',
     "what waits and what is answered, together: a request may take a minute, so this tells of load sooner than requests a second"),
    ("in_flight_each", "Requests in flight, each replica", "count", "haproxy",
     'sum by (server) (haproxy_server_current_sessions{proxy="replicas"})', "does the balancer share the work out?"),
    ("deferred", "Requests that wait for a slot", "count", "llama_server", "sum(llamacpp:requests_deferred)",
     "more requests than slots: time to first token grows with each"),
    ("tokens_per_s", "Tokens made a second", "tokens/s", "llama_server", "sum(rate(llamacpp:tokens_predicted_total[WINDOW]))",
     "what all replicas make together"),
    ("prompt_tokens_per_s", "Prompt tokens read a second", "tokens/s", "llama_server", "sum(rate(llamacpp:prompt_tokens_total[WINDOW]))",
     "those that no cache held"),
    ("cached_share", "Share of prompt tokens from the cache", "share", "llama_server",
     "sum(rate(llamacpp:prompt_tokens_cached_total[WINDOW])) "
     "/ (sum(rate(llamacpp:prompt_tokens_cached_total[WINDOW])) + sum(rate(llamacpp:prompt_tokens_total[WINDOW])))",
     "a balancer that sends a chat to another replica loses it"),
    ("s_per_token", "Seconds per token made (TPOT)", "s", "llama_server",
     "sum(rate(llamacpp:tokens_predicted_seconds_total[WINDOW])) / sum(rate(llamacpp:tokens_predicted_total[WINDOW]))",
     "a mean over all requests; llama-server counts no histogram, so no percentile can be had from it"),
    ("s_per_prompt_token", "Seconds per prompt token read", "s", "llama_server",
     "sum(rate(llamacpp:prompt_seconds_total[WINDOW])) / sum(rate(llamacpp:prompt_tokens_total[WINDOW]))", "a mean, as above"),
    ("ttft_p95", "Time to first token, p95", "s", "gen_ai", _P95 % "gen_ai_server_time_to_first_token_seconds",
     "what a user waits for; between two bounds of the histogram it is interpolated"),
    ("request_p95", "Whole request, p95", "s", "gen_ai", _P95 % "gen_ai_server_request_duration_seconds", "to the end of the answer"),
    ("tpot_p95", "Seconds per output token, p95", "s", "gen_ai", _P95 % "gen_ai_server_time_per_output_token_seconds",
     "the pace of the text, of the slowest answers"),
    ("quality", "Quality score", "share", "quality", "min by (model, task) (slm_quality_score)",
     "share of a small test set answered rightly"),
    ("drift", "Drift of the prompts", "count", "quality", "max by (model) (slm_drift_psi)",
     "population stability index of what is asked against what was asked when the model was chosen; above 0.2 is a change"),
]  # fmt: skip

CATALOGUE = {
    name: Query(name=name, title=title, text=text, unit=unit, source=source, meaning=meaning)
    for name, title, unit, source, text, meaning in _ROWS
}


def query(name: str, window_s: float = 60) -> str:
    """The PromQL of that name. Raises BadInput with the nearest name."""
    if name not in CATALOGUE:
        raise BadInput(f"no query named {name!r} ({nearest(name, CATALOGUE)})", "labkit.scale.observe.CATALOGUE lists them")
    return CATALOGUE[name].promql(window_s)


@functools.cache
def _service_metrics() -> Any:
    """labs/stacks/onnx's module: an image holds it without labkit, so labkit takes it from there, and nothing is written twice."""
    path = paths.labs("stacks", "onnx", "service", "metrics.py")
    loader = importlib.machinery.SourceFileLoader("labkit_onnx_service_metrics", str(path))
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(loader.name, loader))
    loader.exec_module(module)
    return module


def meters(model: str, own: str) -> Any:
    """The counters of a server: gen_ai_server_… histograms of its answers, and `own`_in_flight, _queue_length, _rejected, _tokens.

    Of what it gives: .finished(…) after each answer, .rejected(reason), and .text() for /metrics. See labs/stacks/onnx/service/metrics.py.
    """
    return _service_metrics().Metrics(model, own)


class Quality:
    """Places for what later labs measure: how good the answers still are, and how far the prompts have moved. Gauges, set by hand."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.score = Gauge("slm_quality_score", "Share of a test set answered rightly", ("model", "task"), registry=self.registry)
        self.drift = Gauge("slm_drift_psi", "Population stability index of the prompts", ("model",), registry=self.registry)


@contextmanager
def exporter(registry: CollectorRegistry) -> Iterator[str]:
    """The registry's metrics over HTTP on loopback, at /metrics of the address that it gives."""
    server, thread = start_http_server(0, addr=HOST, registry=registry)
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
