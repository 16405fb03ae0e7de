"""A pool of replicas that grows and shrinks under load, by real processes behind a real HAProxy."""

import os
import signal
import threading
import time

import psutil
import pytest

from labkit.core.errors import BadInput
from labkit.measure import load
from labkit.measure.load import Plan
from labkit.scale import pool, standin
from labkit.scale.jobs import Speed
from labkit.servers.base import NO_MODEL

SPEED = Speed(base_s=0.02, per_request_s=0.001, per_prompt_token_s=0.0001, slots=2)


def launch(**options):
    return standin.SERVER.launch(NO_MODEL, speed=SPEED.model_dump(), **options)


@pytest.fixture(autouse=True)
def installed(needs):
    needs("haproxy")


def test_it_grows_and_shrinks_under_load_and_cuts_no_answer():
    found = []
    with pool.open(launch, most=3, check_s=0.2) as replicas:
        replicas.resize(1)
        replicas.wait(1)
        plan = Plan(rate=8, seconds=12, output_tokens=20, prompt_tokens=8, warmup=0)
        asking = threading.Thread(target=lambda: found.extend(load.run(replicas.base_url, standin.NAME, plan)))
        asking.start()
        pids = {one.pid for one in replicas.replicas().values()}
        for count in (3, 1, 2):
            time.sleep(2)
            replicas.resize(count)
            replicas.wait(count, 30)
            pids |= {one.pid for one in replicas.replicas().values()}
        asking.join()
    assert {one.status for one in found} == {"ok"}
    assert len(pids) == 4
    assert not any(map(psutil.pid_exists, pids))
    assert {count.ready for count in replicas.counts} >= {0, 1, 2, 3}


def test_a_replica_that_dies_is_replaced():
    with pool.open(launch, most=2, check_s=0.2) as replicas:
        replicas.resize(2)
        replicas.wait(2)
        dead = replicas.replicas()[0].pid
        os.kill(dead, signal.SIGKILL)
        time.sleep(0.5)
        replicas.wait(2, 30)
        assert dead not in {one.pid for one in replicas.replicas().values()}
        found = load.run(replicas.base_url, standin.NAME, Plan(concurrency=2, requests=6, output_tokens=2, warmup=0))
    assert {one.status for one in found} == {"ok"}


def test_requests_that_come_before_a_replica_is_ready_are_refused():
    with pool.open(lambda: launch(loads_s=60), most=1) as replicas:
        replicas.resize(1)
        time.sleep(0.5)
        (one,) = load.run(replicas.base_url, standin.NAME, Plan(concurrency=1, requests=1, output_tokens=2, warmup=0))
        assert one.status == "refused"
        with pytest.raises(TimeoutError, match="0 of 1 replicas are ready"):
            replicas.wait(1, 0.5)


def test_beyond_its_places_is_said_and_what_cannot_start_too():
    with pool.open(launch, most=2) as replicas, pytest.raises(BadInput, match="3 replicas do not fit"):
        replicas.resize(3)

    def fails():
        raise BadInput("no such model", "labkit models")

    with pool.open(fails, most=2) as replicas:
        replicas.resize(1)
        with pytest.raises(BadInput, match="no such model"):
            replicas.wait(1, 10)
