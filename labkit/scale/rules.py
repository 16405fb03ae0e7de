"""Recording and alert rules over the catalogue's queries, as Prometheus reads them.

>>> text = rules.text(Limits(window_s=10, hold_s=3))  # doctest: +SKIP
>>> prometheus.start(targets=..., rules=text, alertmanager=telling.url)  # doctest: +SKIP

An alert is for a human who has to do something now; its annotation says what. It holds for `hold_s` before it fires, so that one
bad look wakes nobody, and it is about what users feel (answers that are slow, wrong or missing) before it is about causes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field

from labkit.scale.observe import CATALOGUE


class Limits(BaseModel):
    """From where on it is too much. window_s: the span of a rate; hold_s: how long it must hold before an alert fires."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_s: float = Field(60, gt=0)
    hold_s: float = Field(30, ge=0)
    replicas: int = Field(1, ge=1, description="as many should be up")
    ttft_p95_s: float = Field(2.0, gt=0)
    error_share: float = Field(0.01, gt=0, lt=1)
    deferred: float = Field(0, ge=0)
    quality: float = Field(0.7, gt=0, lt=1, description="share of right answers below which a model is no longer good enough")
    drift: float = Field(0.2, gt=0, description="population stability index")


class Alert(NamedTuple):
    """name, the catalogue's query, the comparison with a limit, how urgent, and what to do."""

    name: str
    query: str
    compares: str
    limit: str
    severity: str
    summary: str
    action: str


ALERTS = [
    Alert("NoReplica", "replicas_up", "<", "", "page", "no replica is up: every request is refused",
          "look at the last line of each replica's log; start one: labkit serve MODEL --replicas 2"),
    Alert("ReplicaDown", "replicas_up", "<", "replicas", "ticket", "fewer replicas are up than should be",
          "the others carry its load: look at its log, then start it again"),
    Alert("Errors", "error_share", ">", "error_share", "page", "more answers fail than may",
          'find them: {job="haproxy"} | json | status >= 500'),
    Alert("SlowFirstToken", "ttft_p95", ">", "ttft_p95_s", "page", "one user in twenty waits too long for the first token",
          "compare in flight with the slots: if requests wait, add a replica; if not, look at the prompts' length"),
    Alert("RequestsWait", "deferred", ">", "deferred", "ticket", "requests wait for a slot",
          "add a replica, or slots where memory allows"),
    Alert("QualityLow", "quality", "<", "quality", "ticket", "the model answers fewer test questions rightly than when it was chosen",
          "compare model, quantization and template with those that were tested"),
    Alert("PromptsDrift", "drift", ">", "drift", "ticket", "prompts are no longer those that the model was chosen for",
          "read a sample of them, with their owners' consent, and test the model on such ones"),
]  # fmt: skip
RECORDED = ("in_flight", "error_share", "ttft_p95", "tokens_per_s")


def recorded_name(query: str) -> str:
    """Prometheus' convention is level:metric:operation; these are of the whole service."""
    return f"service:{query}"


def groups(limits: Limits) -> dict[str, Any]:
    """The rules file as data."""
    record = [{"record": recorded_name(name), "expr": CATALOGUE[name].promql(limits.window_s)} for name in RECORDED]
    return {"groups": [{"name": "service", "rules": record}, {"name": "alerts", "rules": [_rule(one, limits) for one in ALERTS]}]}


def text(limits: Limits) -> str:
    """The same as a YAML file."""
    return yaml.safe_dump(groups(limits), sort_keys=False, width=1000)


def _rule(alert: Alert, limits: Limits) -> dict[str, Any]:
    limit = getattr(limits, alert.limit) if alert.limit else 1
    return {
        "alert": alert.name,
        "expr": f"{CATALOGUE[alert.query].promql(limits.window_s)} {alert.compares} {limit:g}",
        "for": f"{round(1000 * limits.hold_s)}ms",
        "labels": {"severity": alert.severity},
        "annotations": {"summary": f'{alert.summary} ({{{{ $value | printf "%.3g" }}}})', "action": alert.action},
    }
