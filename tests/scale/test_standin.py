"""The stand-in for a model server: what it does is what the simulator says, since both are the same model; one of them in real time."""

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from labkit.core.errors import RunFailed
from labkit.measure import load
from labkit.measure.load import Plan
from labkit.scale import simulator, standin
from labkit.scale.jobs import Job, Speed
from labkit.servers.base import NO_MODEL

SPEED = Speed(base_s=0.01, per_request_s=0.005, per_prompt_token_s=0.001, slots=4)
pytestmark = pytest.mark.alone


def metric(url, name):
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return sum(s.value for family in families for s in family.samples if s.name == name)


def test_it_keeps_the_times_that_the_simulator_says():
    with standin.start(SPEED) as running:
        found = load.run(running.base_url, standin.NAME, Plan(rate=5, seconds=20, prompt_tokens=40, output_tokens=12, warmup=1))
        count = metric(running.url, "gen_ai_server_time_to_first_token_seconds_count")
        waited = metric(running.url, "gen_ai_server_time_to_first_token_seconds_sum")
    assert {one.status for one in found} == {"ok"}
    assert count == len(found) + 1
    zero = found[0].sent_ns
    jobs = [Job((one.sent_ns - zero) / 1e9, one.prompt_tokens, one.output_tokens) for one in found]
    rows = simulator.simulate(jobs, SPEED, replicas=1)
    measured = [((one.chunk_ns[0] - one.sent_ns) / 1e9, (one.chunk_ns[-1] - one.sent_ns) / 1e9) for one in found]
    modelled = [(row.first_s - row.at_s, row.last_s - row.at_s) for row in rows]
    for share in (0.5, 0.95):
        assert np.quantile(measured, share, axis=0) == pytest.approx(np.quantile(modelled, share, axis=0), rel=0.15), share
    assert waited / count == pytest.approx(np.mean(measured, axis=0)[0], rel=0.15), "its own histogram says the same"


def test_a_full_queue_refuses():
    with standin.start(SPEED.model_copy(update={"slots": 1, "queue": 1})) as running:
        found = load.run(running.base_url, standin.NAME, Plan(concurrency=4, requests=8, output_tokens=20, warmup=0))
        assert metric(running.url, "standin_rejected_total") == sum(one.status == "refused" for one in found) > 0
    assert sum(one.status == "ok" for one in found) >= 2
    assert {one.http_status for one in found if one.status == "refused"} == {429}


def test_a_client_that_goes_away_frees_its_slot():
    with standin.start(SPEED.model_copy(update={"slots": 1})) as running:
        with httpx.stream("POST", f"{running.base_url}/completions", json={"prompt": "x", "max_tokens": 5000}) as reply:
            next(reply.iter_bytes())
        found = load.run(running.base_url, standin.NAME, Plan(concurrency=1, requests=1, output_tokens=2, warmup=0, timeout_s=10))
    assert [one.status for one in found] == ["ok"]


def test_one_that_loads_is_not_healthy():
    running = standin.SERVER.launch(NO_MODEL, speed=SPEED.model_dump(), loads_s=1.0)
    with running:
        running.wait(30)
        assert running.healthy()
    slow = standin.SERVER.launch(NO_MODEL, speed=SPEED.model_dump(), loads_s=60)
    with pytest.raises(RunFailed, match="took too long"):
        slow.wait(2)
