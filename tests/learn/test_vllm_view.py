"""Lab 18: its arithmetic, its reading of /metrics, its steps on a stand-in, what it says and draws. On a real vLLM the lab itself runs."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
from fake_vllm import FakeVllm

from labkit import models, servers
from labkit.core import recordings
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.facts import live
from labkit.learn import vllm_desk, vllm_plots, vllm_view
from labkit.learn import vllm_metrics as metrics
from labkit.learn import vllm_rows as ask
from labkit.learn import vllm_sums as sums
from labkit.measure.load import Slo

# -- arithmetic


def test_a_free_place_goes_to_the_next_at_once():
    places = sums.schedule([5, 1, 2, 3], slots=2)
    assert places == [(0, 0, 5), (1, 0, 1), (1, 1, 3), (1, 3, 6)]
    assert (sums.steps([5, 1, 2, 3], 2), sums.static_steps([5, 1, 2, 3], 2)) == (6, 8)
    assert sums.steps([5, 1, 2], 9) == sums.static_steps([5, 1, 2], 9) == 5


def test_continuous_is_never_slower_than_static():
    for seed in range(50):
        lengths = sums.lengths(seed, count=20, longest=40)
        assert all(4 <= one <= 40 for one in lengths)
        slots = 1 + seed % 6
        assert max(lengths) <= sums.steps(lengths, slots) <= sums.static_steps(lengths, slots) <= sum(lengths)


@pytest.mark.parametrize(("prompt", "shared", "cached"), [(512, 512, 384), (513, 512, 512), (340, 300, 256), (513, 0, 0), (100, 100, 0)])
def test_cached_tokens_as_vllm_counts_them(prompt, shared, cached):
    """The five pairs were seen on vLLM 0.32, with blocks of 128."""
    assert sums.cached_tokens(prompt, shared, 128) == cached


def test_blocks_and_room():
    assert sums.blocks_needed([(100, 28), (100, 29), (1, 1)], 128) == 4
    assert sums.cache_tokens(2**30, 23040, 128) == 46592  # what vLLM 0.32 says of SmolLM2 in 16 bits and 1 GiB
    assert sums.common_prefix([1, 2, 3], [1, 2, 4, 5]) == 2
    assert sums.common_prefix([1, 2], [1, 2, 4]) == 2


def test_a_quantile_lies_where_its_values_are():
    values = np.random.default_rng(3).gamma(2, 0.5, 4000)
    edges = [*np.linspace(0.05, 6, 120), math.inf]
    buckets = [(edge, float((values <= edge).sum())) for edge in edges]
    for q in (0.1, 0.5, 0.95):
        assert sums.quantile(buckets, q) == pytest.approx(np.quantile(values, q), abs=0.05)
    assert sums.quantile([(1.0, 1.0), (2.0, 1.0), (math.inf, 10.0)], 0.95) == 2.0
    assert sums.quantile([(1.0, 0.0), (math.inf, 0.0)], 0.95) is None


# -- /metrics


@pytest.fixture
def server():
    with FakeVllm() as started:
        yield started


def test_metrics_are_read_by_name_and_label(server):
    found = metrics.read(server.url)
    assert found.labels("vllm:cache_config_info")["block_size"] == "8"
    assert found.value("vllm:num_requests_running", engine="0") == 0
    assert found.value("vllm:num_requests_running", engine="1") == 0
    with pytest.raises(BadInput, match="did you mean vllm:kv_cache_usage_perc"):
        found.value("vllm:gpu_cache_usage_perc")
    rows = metrics.as_rows(found.buckets("vllm:time_to_first_token_seconds"))
    assert rows[-1][0] is None
    assert metrics.from_rows(rows) == found.buckets("vllm:time_to_first_token_seconds")


def test_a_sampler_counts_what_it_missed(server):
    def sample(url, enough):
        with metrics.Sampler(url, 0.01) as seen:
            end = time.monotonic() + 20
            while not enough(seen) and time.monotonic() < end:
                time.sleep(0.01)
        return seen

    seen = sample(server.url, lambda seen: len(seen.rows) > 2)
    assert len(seen.rows) > 2 and not seen.missed
    assert seen.most("running") == 0
    seen = sample("http://127.0.0.1:9", lambda seen: seen.missed > 2)
    assert seen.missed > 2 and not seen.rows
    assert seen.most("running") is None


# -- the desk


class Fakes:
    """In place of servers.open: each start is a FakeVllm with so many places."""

    def __init__(self) -> None:
        self.started: list[dict] = []

    def __call__(self, name):
        return SimpleNamespace(start=lambda ref, **options: self.start(name, **options), version=lambda: "0.0.0")

    def start(self, name, **options):
        fake = FakeVllm(places=options.get("max_num_seqs", 4)).start()
        self.started.append({"name": name, **options})
        return _Started(name, fake)


class _Started:
    """What a started server gives: its address, and an end."""

    pid, log = 1, "log"

    def __init__(self, name, fake):
        self.name, self.fake, self.url, self.base_url, self.here = name, fake, fake.url, f"{fake.url}/v1", True

    def alive(self):
        return self.here

    def stop(self):
        if self.here:
            self.here = False
            self.fake.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


@pytest.fixture
def fakes(monkeypatch):
    made = Fakes()
    monkeypatch.setattr(servers, "open", made)
    return made


@pytest.fixture
def desk(fakes):
    model = models.resolve("smollm2-135m").model_copy(update={"name": "small"})
    with vllm_desk.Desk(model, max_num_seqs=4, kv_gib=0.25, dtype="float32", threads=1) as opened:
        yield opened


def test_a_changed_setting_takes_a_new_process_and_the_same_one_does_not(desk, fakes):
    with desk.asked() as first, desk.asked() as again:
        assert first is again
    with desk.asked(max_num_seqs=2) as other:
        assert not first.alive()
        assert other.alive()
    assert [row["max_num_seqs"] for row in fakes.started] == [4, 2]


def test_an_error_and_ctrl_c_stop_the_server(desk, capsys):
    for error in (RunFailed("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)), desk.asked() as running:
            raise error
        assert not running.alive()
        assert desk.running is None
    desk.server().stop()
    assert desk.server().alive()
    assert "a new one is started" in capsys.readouterr().out


def test_without_a_model_the_desk_says_what_is_missing():
    with pytest.raises(MissingPart, match="plays its recording"):
        vllm_desk.Desk(None).server()


def test_a_failed_request_fails_the_step_and_is_no_figure():
    with FakeVllm(broken=True) as server, pytest.raises(RunFailed, match=r"2 of 2 requests .* it is broken"):
        running = SimpleNamespace(name="vllm", base_url=f"{server.url}/v1", log="log")
        vllm_desk.put_load(running, "small", concurrency=1, requests=2, output_tokens=2)


# -- the steps, on the stand-in


def test_the_api_step_shows_what_is_refused(desk):
    rows = {row["asked"]: row for row in ask.api_rows(desk)}
    assert rows["a model that is not here"]["status"] == 404
    assert rows["more tokens than the context"]["status"] == 400
    assert rows["chat with temprature (misspelt)"]["status"] == 200
    assert rows["count tokens"]["answer"].startswith("{'count': 5")


def test_batching_computes_what_it_measures(desk):
    rows = ask.batching_rows(desk, [1, 4], rounds=2, tokens=6)
    assert [row["requests"] for row in rows] == [2, 2, 8, 8]
    assert all(row["output_tokens"] == 6 * row["requests"] for row in rows)
    for row in rows:
        row["tpot_s"] = 0.01 * row["clients"]  # the stand-in sends an answer in one piece
    assert "4 clients instead of 1" in vllm_view.told_batching(rows)[0]
    assert "4.0 times as long for a token" in vllm_view.told_batching(rows)[1]
    assert vllm_view.best(rows)[0] in (1, 4)
    assert len(vllm_plots.draw_batching(rows, 2.0, "caption").axes) == 3
    assert len(vllm_plots.draw_computed(rows, "caption").axes[0].patches) == 4


def test_a_burst_fills_the_places_and_the_rest_waits(desk):
    rows = ask.burst_rows(desk, [30] * 10 + [60] * 2)
    asked = [row for row in rows if row["kind"] == "request"]
    seen = [row for row in rows if row["kind"] == "sample"]
    assert [row["output_tokens"] for row in asked] == [30] * 10 + [60] * 2
    assert all(0 <= row["start_s"] <= row["first_s"] <= row["last_s"] for row in asked)
    assert max(row["running"] for row in seen) <= 4
    figure = vllm_plots.draw_burst(rows, 4, "caption")
    assert len(figure.axes[0].patches) == 2 * len(asked)


def test_arithmetic_usage_and_counters_agree_on_the_prefix_cache(desk):
    rows = ask.prefix_rows(desk, rounds=3, seed=1, words=2)
    assert [row["kind"] for row in rows].count("same") == 3
    for row in rows:
        assert row["predicted_tokens"] == row["hits"] == row["usage_cached_tokens"], row
        assert row["queries"] == row["prompt_tokens"]
        assert bool(row["hits"]) == (row["kind"] == "same")
    figure = vllm_plots.draw_prefix(rows, "caption")
    assert len(figure.axes[1].patches) == 6
    first, second = vllm_view.told_prefix(rows)
    assert "median of 3 pairs" in first
    counted = f"{sum(row['hits'] for row in rows):,.0f}"
    assert second.count(counted) == 3


def test_the_edge_of_capacity_has_both_sides_of_p95(desk):
    slo = Slo(ttft_s=1.5)
    rows = ask.open_rows(desk, [0.5, 1.0], capacity_per_s=20, seconds=1.5, tokens=4, slo=slo, seed=1)
    for row in rows:
        assert metrics.from_rows(row["ttft_buckets"])[-1][1] == row["requests"]
    told = vllm_view.p95_rows(rows)
    assert all(0 < row["buckets, p95 (s)"] <= 10 for row in told)
    assert len(vllm_plots.draw_open(rows, slo, 2.0, "caption").axes) == 2
    assert vllm_plots.draw_buckets(rows[0], "caption").axes[0].patches


def test_a_bracket_starts_three_servers_and_speaks_of_the_noise(desk, fakes):
    rows = ask.bracket_rows(desk, [4, 1, 4], clients=4, tokens=4, repeats=1)
    assert [row["max_num_seqs"] for row in fakes.started] == [4, 1, 4]
    assert [row["turn"] for row in rows] == [0, 1, 2]
    assert len(vllm_plots.draw_bracket(rows, 0.5, "caption").axes) == 2
    quiet = [{"turn": n, "tokens_per_s": rate} for n, rate in enumerate((100.0, 40.0, 104.0))]
    assert "more than the noise" in vllm_view.told_bracket(quiet)[1]
    loud = [{"turn": n, "tokens_per_s": rate} for n, rate in enumerate((100.0, 110.0, 140.0))]
    assert "not clearly more" in vllm_view.told_bracket(loud)[1]


def test_room_in_the_cache_is_computed_from_the_shape(desk):
    (row,) = ask.space_rows(desk)
    assert row["bytes_per_token"] == 2 * 30 * 3 * 64 * 4  # keys and values, blocks, KV heads, head size, 32 bits
    assert row["predicted_tokens"] == int(0.25 * 2**30 / row["bytes_per_token"] / 8) * 8
    assert row["told_tokens"] == 8 * 40


def test_preemptions_are_the_growth_of_a_counter(desk):
    rows = ask.preempt_rows(desk, [2, 4], rounds=1, tokens=40, prompt=20)
    few, many = rows
    assert few["preemptions"] == 0 < many["preemptions"]
    assert many["blocks_needed"] == 2 * few["blocks_needed"]
    assert len(vllm_plots.draw_preempt(rows, 8, "caption").axes) == 3


def test_servers_are_compared_in_turn_with_the_same_work(desk, fakes):
    rows = ask.compare_rows(desk, [1, 2], rounds=1, tokens=4)
    assert {row["server"] for row in rows} == {"vLLM, float32", "llama-server, F16", "llama-server, Q4_1"}
    assert all(row["output_tokens"] == 4 * row["requests"] for row in rows)
    assert [row["name"] for row in fakes.started] == ["vllm", "llama_server", "llama_server"]
    assert len(vllm_view.table_rows(rows)) == 2 + 2 * 2
    assert len(vllm_plots.draw_compare(rows, ("vLLM", "vLLM"), "caption").axes) == 2


def test_one_ratio_for_two_programs_is_refuted_by_two_ratios():
    def side(server, clients, rate):
        return {"server": server, "clients": clients, "tokens_per_s": rate}

    rows = [
        side("vLLM, float32", 1, 20.0),
        side("llama-server, F16", 1, 60.0),
        side("vLLM, float32", 16, 90.0),
        side("llama-server, F16", 16, 80.0),
    ]
    assert vllm_view.table_claim(rows)["shown"] == "confirmed"
    rows[2]["tokens_per_s"] = 27.0
    assert vllm_view.table_claim(rows)["shown"] == "refuted"


def test_the_claims_step_asks_for_all_that_a_vllm_decides(desk):
    rows = ask.claim_rows(desk)
    assert [row["id"] for row in rows] == live.of("vllm")
    assert len(rows) >= 6


def test_start_and_places_are_drawn():
    rows = [{"server": "vLLM", "start_s": 60.0, "memory_bytes": 3e9}, {"server": "llama-server", "start_s": 1.0, "memory_bytes": 2e8}]
    assert len(vllm_plots.draw_start(rows, 10, 1, "caption").axes) == 2
    figure = vllm_plots.draw_places([4, 20, 6, 9], 2, True, "caption")
    assert len(figure.axes[0].patches) == 4
    assert "continuous" in figure.axes[0].get_title()
    assert "static" in vllm_plots.draw_places([4, 20, 6, 9], 2, False, "caption").axes[0].get_title()


# -- what the recorded run saw


def test_in_the_recorded_run_the_arithmetic_held():
    _, steps = recordings.load("18_vllm_serving")
    (space,) = steps["space"]
    assert space["predicted_tokens"] == space["told_tokens"]
    for row in steps["prefix"]:
        assert row["predicted_tokens"] == row["hits"] == row["usage_cached_tokens"]
    assert {row["shown"] for row in steps["claims"]} <= {"confirmed", "not-run"}
    assert max(row["running"] for row in steps["burst"] if row["kind"] == "sample") == 16
    levels = vllm_view.by(steps["batching"], "clients")
    assert vllm_view.median(levels[16], "tokens_per_s") > vllm_view.median(levels[1], "tokens_per_s")
    few, many = (vllm_view.by(steps["preempt"], "clients")[n] for n in (8, 16))
    assert all(row["blocks_needed"] <= row["blocks"] and row["preemptions"] == 0 for row in few)
    assert all(row["blocks_needed"] > row["blocks"] and row["preemptions"] > 0 for row in many)
