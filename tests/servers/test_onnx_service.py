"""The ONNX service as a whole: what it answers, whom it refuses, what its health says, how it ends. The contract is tested elsewhere."""

import json
import shutil
import signal
import threading
import time

import httpx
import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from labkit import engines, measure, models, servers
from labkit.core.errors import BadInput, RunFailed
from labkit.core.records import ModelRef, Request
from labkit.quant import onnx

MODEL = "stdlib-10m"
TURNS = [{"role": "user", "content": "def area(width, height):"}]
LIMITS = {"context": 512, "threads": 1, "parallel": 2, "queue_length": 1}
LONG = {"max_tokens": 450, "extra_body": {"ignore_eos": True}}  # it takes some seconds


def start(**options):
    return servers.open("onnx").start(models.resolve(MODEL), **(LIMITS | options))


@pytest.fixture(scope="module")
def running():
    with start() as found:
        yield found


def client(running):
    http = httpx.Client(trust_env=False)
    return openai.OpenAI(base_url=running.base_url, api_key="none", max_retries=0, timeout=120, http_client=http)


def ask(running, **options):
    with client(running) as one:
        return one.chat.completions.create(model=MODEL, messages=TURNS, **{"max_tokens": 8, "temperature": 0, **options})


def events(running, **options):
    """A stream's events, read while its client is open."""
    with client(running) as one:
        yield from one.chat.completions.create(model=MODEL, messages=TURNS, stream=True, **{"max_tokens": 8, "temperature": 0, **options})


def get(running, path):
    return httpx.get(running.url + path, timeout=30, trust_env=False)


OUTPUT = {"gen_ai_token_type": "output"}


def metric(running, name, **labels):
    families = text_string_to_metric_families(get(running, "/metrics").text)
    return sum(s.value for f in families for s in f.samples if s.name == name and labels.items() <= s.labels.items())


def until(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


class Streams:
    """Long answers, read in threads; each is whole, an error, or still on its way."""

    def __init__(self, running, count, **options):
        self.begun, self.ends = threading.Semaphore(0), []
        self.threads = [threading.Thread(target=self._read, args=(running, {**LONG, **options})) for _ in range(count)]
        [one.start() for one in self.threads]

    def _read(self, running, options):
        reason, began = None, False
        try:
            for event in events(running, **options):
                reason = (event.choices and event.choices[0].finish_reason) or reason
                if not began and event.choices and event.choices[0].delta.content:
                    began = True
                    self.begun.release()
        except (openai.APIError, httpx.TransportError) as error:
            reason = error
        self.ends.append(reason)

    def wait_until_begun(self, count):
        for _ in range(count):
            assert self.begun.acquire(timeout=60)

    def all_ends(self):
        [one.join(120) for one in self.threads]
        return self.ends


# -- answers


def test_its_text_is_that_of_the_engine_on_the_same_folder(running):
    request = Request.chat(TURNS[0]["content"], max_tokens=24, temperature=0)
    with engines.open("ortgenai").load(models.resolve(MODEL), recipe="int4-shared", context=512, threads=1) as session:
        found = measure.one(session, request)
    answer = ask(running, max_tokens=24)
    assert answer.choices[0].message.content == found.text
    assert answer.usage.prompt_tokens == found.prompt_tokens
    assert answer.usage.completion_tokens == found.output_tokens


def test_a_stream_has_a_role_pieces_one_reason_and_usage_only_when_asked_for(running):
    for wanted in (True, False):
        seen = list(events(running, **({"stream_options": {"include_usage": True}} if wanted else {})))
        assert seen[0].choices[0].delta.role == "assistant"
        assert [e.choices[0].finish_reason for e in seen if e.choices].count("length") == 1
        assert [bool(e.usage) for e in seen] == [False] * (len(seen) - 1) + [wanted]
        assert "".join(e.choices[0].delta.content or "" for e in seen if e.choices) == ask(running).choices[0].message.content
    with client(running) as one:
        raw = one.chat.completions.with_raw_response.create(model=MODEL, messages=TURNS, max_tokens=2, stream=True)
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.http_response.read().endswith(b"data: [DONE]\n\n")


def test_a_prompt_may_be_a_text_or_its_ids(running):
    text = TURNS[0]["content"]
    with client(running) as one, engines.open("ortgenai").load(models.resolve(MODEL), recipe="int4-shared", context=64) as session:
        ids = session.prompt_tokens(Request(prompt=text, max_tokens=1))
        answers = [one.completions.create(model=MODEL, prompt=prompt, max_tokens=6, temperature=0) for prompt in (text, ids)]
        outside = {"model": MODEL, "prompt": [10**6]}
    assert answers[0].choices[0].text == answers[1].choices[0].text
    assert answers[0].usage.prompt_tokens == len(ids)
    assert httpx.post(running.base_url + "/completions", json=outside, trust_env=False).status_code == 400


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"model": "no-such-model"}, 404, "model_not_found"),
        ({"max_tokens": 600}, 400, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x = 1\n" * 600}]}, 400, "context_length_exceeded"),
        ({"messages": []}, 422, "invalid_value"),
        ({"n": 2}, 422, "invalid_value"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 422, "invalid_value"),
        ({"temperature": 3}, 422, "invalid_value"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 422, "invalid_value"),
    ],
)
def test_what_it_refuses_has_a_status_a_sentence_and_a_code(running, changed, status, code):
    body = {"model": MODEL, "messages": TURNS, "max_tokens": 2} | changed
    headers = {"Content-Type": "application/json"}
    reply = httpx.post(running.base_url + "/chat/completions", content=json.dumps(body), headers=headers, trust_env=False)
    told = reply.json()["error"]
    assert (reply.status_code, told["code"], told["type"]) == (status, code, "invalid_request_error")
    assert len(told["message"]) > 10


# -- many


@pytest.mark.alone  # its answers must still run when the queue has been seen to be full
def test_beyond_the_bound_it_refuses_at_once_and_says_when_to_come_again(running):
    before = metric(running, "onnx_service_rejected_total", reason="queue_full")
    streams = Streams(running, LIMITS["parallel"])
    streams.wait_until_begun(LIMITS["parallel"])
    waiting = Streams(running, LIMITS["queue_length"])
    until(lambda: metric(running, "onnx_service_queue_length") == LIMITS["queue_length"])
    assert metric(running, "onnx_service_in_flight") == LIMITS["parallel"]
    with pytest.raises(openai.RateLimitError) as refused:
        ask(running)
    assert all(one.is_alive() for one in streams.threads), "it did not wait for an answer to end"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert refused.value.code == "queue_full"
    assert metric(running, "onnx_service_rejected_total", reason="queue_full") == before + 1
    assert streams.all_ends() + waiting.all_ends() == ["length"] * 3


def test_its_health_is_heard_while_it_computes(running):
    streams, looks = Streams(running, 2), []
    streams.wait_until_begun(2)
    started = time.monotonic()
    with httpx.Client(base_url=running.url, trust_env=False, timeout=60) as http:
        while any(one.is_alive() for one in streams.threads):
            began = time.monotonic()
            assert http.get("/health/ready").status_code == 200
            looks.append(time.monotonic() - began)
    assert max(looks) < 0.5 * (time.monotonic() - started), "it was silent for half of the answers"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_generation(running, stream):
    body = {"model": MODEL, "messages": TURNS, "max_tokens": 450, "stream": stream, "ignore_eos": True}
    before = metric(running, "gen_ai_server_request_duration_seconds_count", error_type="cancelled")
    began = time.monotonic()
    assert ask(running, **LONG).choices[0].finish_reason == "length"
    whole = time.monotonic() - began
    with httpx.Client(base_url=running.base_url, trust_env=False, timeout=60) as http:
        if stream:
            with http.stream("POST", "/chat/completions", json=body) as reply:
                next(reply.iter_bytes())
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post("/chat/completions", json=body, timeout=httpx.Timeout(60, read=0.1 * whole))
    left = time.monotonic()
    until(lambda: metric(running, "gen_ai_server_request_duration_seconds_count", error_type="cancelled") == before + 1)
    assert metric(running, "onnx_service_in_flight") == 0
    assert time.monotonic() - left < 0.5 * whole, "it is not computed to its end"


def test_metrics_have_opentelemetrys_names_and_count_what_happened(running):
    names = {"gen_ai_operation_name": "chat", "gen_ai_request_model": MODEL}
    base = "gen_ai_server_"
    kinds = ("request_duration_seconds_count", "time_to_first_token_seconds_count", "time_per_output_token_seconds_count")
    before = [metric(running, base + kind, **names) for kind in kinds]
    tokens = metric(running, "onnx_service_tokens_total", **OUTPUT)
    found = ask(running)
    assert [metric(running, base + kind, **names) for kind in kinds] == [count + 1 for count in before]
    assert metric(running, "onnx_service_tokens_total", **OUTPUT) == tokens + found.usage.completion_tokens
    assert metric(running, "onnx_service_ready") == 1


# -- health, and the end


def test_two_processes_on_loopback_and_the_engine_ends_with_the_front():
    with start() as running:
        front = psutil.Process(running.pid)
        (engine,) = front.children()
        assert {c.laddr.ip for c in front.net_connections() if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        assert not engine.net_connections()
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE, 10)


def test_a_dead_engine_is_said_by_health_and_to_every_client():
    with start() as running:
        streams = Streams(running, 1)
        streams.wait_until_begun(1)
        psutil.Process(running.pid).children()[0].kill()
        assert isinstance(streams.all_ends()[0], openai.APIError)
        assert get(running, "/health/ready").status_code == 503
        assert get(running, "/health/live").status_code == 503, "only a restart helps"
        with pytest.raises(openai.InternalServerError) as refused:
            ask(running)
        assert refused.value.status_code == 503


def test_it_is_not_ready_without_its_models_folder(tmp_path):
    folder = tmp_path / "model"
    made = onnx.convert(models.resolve(MODEL), "int4-shared", progress=False)
    shutil.copytree(made.path, folder)
    with servers.open("onnx").start(ModelRef(name=MODEL, path=folder, format="onnx-genai"), **LIMITS) as running:
        folder.rename(tmp_path / "away")
        reply = get(running, "/health/ready")
        assert reply.status_code == 503
        assert "no model" in reply.json()["why"]
        assert get(running, "/health/live").status_code == 200, "a restart would not help"
        (tmp_path / "away").rename(folder)
        assert get(running, "/health/ready").status_code == 200
        assert ask(running).usage.completion_tokens


def test_a_broken_model_ends_it_with_a_sentence(tmp_path):
    made = onnx.convert(models.resolve(MODEL), "int4-shared", progress=False)
    folder = tmp_path / "model"
    shutil.copytree(made.path, folder)
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(RunFailed, match=r"ended with code 1: the model in .* could not be loaded"):
        servers.open("onnx").start(ModelRef(name=MODEL, path=folder, format="onnx-genai"), **LIMITS)


def test_told_to_stop_it_finishes_what_it_has_begun_and_takes_nothing_new():
    with start(drain_seconds=60) as running:
        streams = Streams(running, 2, max_tokens=300)
        streams.wait_until_begun(2)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: get(running, "/health/ready").status_code == 503, 5)
        assert get(running, "/health/live").status_code == 200
        with pytest.raises(openai.InternalServerError) as refused:
            ask(running)
        assert refused.value.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert streams.all_ends() == ["length", "length"]
        assert running.process.wait(10) == 0


def test_an_answer_that_takes_too_long_is_ended_with_an_error_and_the_service_all_the_same_with_0():
    with start(drain_seconds=0.1, parallel=8) as running:  # a fast machine makes one long answer in the time that the stop takes
        streams = Streams(running, 8)
        streams.wait_until_begun(8)
        told = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        assert time.monotonic() - told < 5
        ends = streams.all_ends()
        assert [type(end) for end in ends] == [openai.APIError] * 8
        assert all("shutting down" in str(end) for end in ends)


def test_an_idle_one_stops_at_once():
    with start() as running:
        told = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0
        assert time.monotonic() - told < 5


def test_what_cannot_be_started_is_said_before():
    onnx_server = servers.open("onnx")
    with pytest.raises(BadInput, match="did you mean queue_length"):
        onnx_server.start(models.resolve(MODEL), queue_lenght=1)
    with pytest.raises(BadInput, match="endpoint"):
        onnx_server.start(ModelRef(name="x", path="x", format="endpoint"))
