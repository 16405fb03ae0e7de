"""Each alert fires for real: what it is about is done to real servers. tests/scale/test_rules.py says when it does not."""

import contextlib

import pytest
from under_load import asked, until

from labkit import models, servers
from labkit.scale import observe, rules, standin
from labkit.scale.jobs import Speed
from labkit.servers import alertmanager, echo, haproxy, prometheus
from labkit.servers.base import NO_MODEL

LIMITS = rules.Limits(window_s=5, hold_s=1, replicas=2, ttft_p95_s=0.05)


@contextlib.contextmanager
def watch(targets, **options):
    told = {"targets": targets, "every_s": 0.5, "rules": rules.text(LIMITS), **options}
    with prometheus.start(**told) as watching:
        yield watching


def door(front):
    return prometheus.Target(urls=[front.url], path="/haproxy/metrics")


def firing(watching):
    return {row["alertname"] for row in prometheus.alerts(watching.url) if row["state"] == "firing"}


def states(told):
    """(alert, its state) of every notification."""
    return {(one["labels"]["alertname"], one["status"]) for notification in told for one in notification["alerts"]}


@pytest.fixture(autouse=True)
def installed(needs):
    for program in ("prometheus", "prometheus-alertmanager", "haproxy"):
        needs(program)


def test_a_replica_is_down_then_all_are_and_one_comes_back():
    with contextlib.ExitStack() as stack:
        url, told = stack.enter_context(alertmanager.hook())
        first, second = stack.enter_context(echo.start()), stack.enter_context(echo.start())
        front = stack.enter_context(haproxy.start(backends=[first.url, second.url]))
        telling = stack.enter_context(alertmanager.start(webhook=url, wait_s=0.2, between_s=0.5))
        watching = stack.enter_context(watch({"haproxy": door(front)}, alertmanager=telling.url))
        until(lambda: prometheus.query(watching.url, observe.query("replicas_up")))
        assert firing(watching) == set()
        first.process.kill()
        until(lambda: firing(watching) == {"ReplicaDown"})
        second.process.kill()
        until(lambda: firing(watching) == {"ReplicaDown", "NoReplica"})
        until(lambda: {("ReplicaDown", "firing"), ("NoReplica", "firing")} <= states(told))
        port = int(second.url.rsplit(":", 1)[1])
        stack.enter_context(echo.SERVER.start(NO_MODEL, port))
        until(lambda: firing(watching) == {"ReplicaDown"})
        until(lambda: ("NoReplica", "resolved") in states(told))
        assert ("ReplicaDown", "resolved") not in states(told)


def test_answers_fail():
    with (
        echo.start() as one,
        echo.start() as other,
        haproxy.start(backends=[one.url, other.url], naive=True) as front,
        watch({"haproxy": door(front)}) as watching,
    ):
        other.process.kill()
        with asked(front.base_url, "echo"):
            until(lambda: "Errors" in firing(watching))


def test_requests_wait_the_first_token_is_slow_answers_are_worse_and_prompts_are_others():
    slow = Speed(base_s=0.01, per_request_s=0.001, per_prompt_token_s=0.01)
    quality = observe.Quality()
    quality.score.labels("m", "t").set(0.9)
    quality.drift.labels("m").set(0.05)
    with contextlib.ExitStack() as stack:
        model = models.resolve("smollm2-135m")
        server = stack.enter_context(servers.open("llama_server").start(model, context=512, parallel=1, threads=1))
        one = stack.enter_context(standin.start(slow))
        gauges = stack.enter_context(observe.exporter(quality.registry))
        watching = stack.enter_context(watch({"llama_server": [server.url], "standin": [one.url], "quality": [gauges]}))
        until(lambda: prometheus.query(watching.url, observe.query("quality")))
        assert firing(watching) == set()
        quality.score.labels("m", "t").set(0.5)
        quality.drift.labels("m").set(0.5)
        seen = set()  # not all at one moment: between two runs of the load no request waits
        with asked(server.base_url, "smollm2-135m", concurrency=4, requests=40), asked(one.base_url, standin.NAME):
            until(lambda: seen.update(firing(watching)) or seen == {"RequestsWait", "SlowFirstToken", "QualityLow", "PromptsDrift"})
        quality.score.labels("m", "t").set(0.9)
        quality.drift.labels("m").set(0.05)
        until(lambda: firing(watching) == set())
