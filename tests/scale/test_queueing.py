"""Queueing formulas against known values and against a plain simulation of the same queue."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest

from labkit.scale.queueing import Queue, erlang_b, servers_for


def played(queue: Queue, services, seed=0, n=100_000):
    """Waiting times of a first-come first-served queue, by Kiefer and Wolfowitz's recursion."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / queue.rate, n))
    free = [0.0] * queue.servers
    waits = np.empty(n)
    for i, (at, service) in enumerate(zip(arrivals, services(random, n), strict=True)):
        start = max(at, heapq.heappop(free))
        waits[i] = start - at
        heapq.heappush(free, start + service)
    return waits[n // 10 :]


@pytest.mark.parametrize(
    ("offered", "servers", "share"), [(1.0, 1, 0.5), (1.0, 2, 0.2), (5.0, 5, 0.28487), (10.0, 15, 0.03650), (0.0, 3, 0.0)]
)
def test_erlang_b_of_the_published_tables(offered, servers, share):
    assert erlang_b(offered, servers) == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("utilisation", [0.1, 0.5, 0.9])
def test_one_server_has_its_known_forms(utilisation):
    queue = Queue(rate=utilisation, service_s=1)
    assert queue.waits == pytest.approx(utilisation)
    assert queue.wait_s == pytest.approx(utilisation / (1 - utilisation))
    assert queue.length == pytest.approx(utilisation**2 / (1 - utilisation))
    assert Queue(rate=utilisation, service_s=1, cv=0).wait_s == pytest.approx(queue.wait_s / 2), "M/D/1 waits half as long"


@pytest.mark.parametrize(("servers", "utilisation"), [(1, 0.7), (2, 0.8), (8, 0.8)])
def test_m_m_c_is_exact(servers, utilisation):
    queue = Queue(rate=utilisation * servers / 0.3, service_s=0.3, servers=servers)
    waits = np.concatenate([played(queue, lambda random, n: random.exponential(0.3, n), seed) for seed in range(4)])
    assert waits.mean() == pytest.approx(queue.wait_s, rel=0.08)
    assert (waits > 0).mean() == pytest.approx(queue.waits, rel=0.04)
    assert np.quantile(waits, 0.95) == pytest.approx(queue.wait_quantile_s(0.95), rel=0.15)


@pytest.mark.parametrize(("servers", "cv"), [(1, 0.5), (4, 0.5), (4, 1.5), (4, 0.0)])
def test_m_g_c_is_near(servers, cv):
    queue = Queue(rate=0.75 * servers, service_s=1, servers=servers, cv=cv)
    shape = 1 / cv**2 if cv else 0
    waits = played(queue, lambda random, n: random.gamma(shape, 1 / shape, n) if cv else np.ones(n))
    assert waits.mean() == pytest.approx(queue.wait_s, rel=0.15)


def test_response_quantiles_follow_the_measured_services():
    random = np.random.default_rng(1)
    measured = random.lognormal(0, 0.4, 500)
    mean = float(measured.mean())
    queue = Queue(rate=1.4 / mean, service_s=mean, servers=2, cv=float(measured.std() / mean))
    drawn = random.choice(measured, 100_000)
    waits = played(queue, lambda _random, n: drawn[:n])
    found = np.quantile(waits + drawn[len(drawn) // 10 :], 0.95)
    assert queue.response_quantile_s(0.95, measured) == pytest.approx(found, rel=0.1)
    tripled = queue.response_quantile_s(0.95, measured * 3)
    assert tripled == pytest.approx(queue.response_quantile_s(0.95, measured)), "only their shape is taken"


def test_a_response_without_waiting_is_the_service():
    quiet = Queue(rate=1e-6, service_s=2.0, cv=0)
    assert quiet.response_quantile_s(0.95) == pytest.approx(2.0)
    assert Queue(rate=1e-6, service_s=2.0).response_quantile_s(0.95) == pytest.approx(-2 * math.log(0.05), rel=0.02)


def test_overload_has_no_end():
    full = Queue(rate=2, service_s=1, servers=2)
    assert (full.utilisation, full.waits) == (1, 1)
    assert full.wait_s == full.wait_quantile_s(0.5) == full.response_quantile_s(0.5) == math.inf


@pytest.mark.parametrize("rate", [0.5, 3.0, 40.0, 3000.0])
def test_the_fewest_servers_for_a_target(rate):
    count = servers_for(rate, 0.8, quantile_s=0.5)
    assert Queue(rate=rate, service_s=0.8, servers=count).wait_quantile_s(0.95) <= 0.5
    assert count == 1 or Queue(rate=rate, service_s=0.8, servers=count - 1).wait_quantile_s(0.95) > 0.5


def test_refused():
    with pytest.raises(ValueError, match="places"):
        servers_for(1000, 1, 0.1, most=10)
    with pytest.raises(ValueError, match="share"):
        Queue(rate=1, service_s=0.5).wait_quantile_s(95)
