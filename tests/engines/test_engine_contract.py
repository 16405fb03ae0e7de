"""One contract, every engine, and every server through the engine `openai`. A new one is one line in WAYS.

What a way to a model honestly cannot do stands in its `cannot`, with the reason; the tests then want to see that it says
so. Nothing is skipped.
"""

import threading
import time
from dataclasses import dataclass, field

import pytest

from labkit import engines, measure, models, servers
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import Measurement, ModelRef, Request
from labkit.engines import Engine, Session
from labkit.quant import folders

# what `cannot` may name, and what the test wants to see then
PROPERTIES = {
    "tokens": "a prompt of token ids: it is refused",
    "prompt": "a plain text without messages: it is refused",
    "ignore_eos": "to go on past the end of text: it is refused, or the text ends there all the same (ignored)",
    "cached_tokens": "to say how many prompt tokens came from the KV cache: it is None",
    "keep_cache": "to keep the KV cache for the next request: it is refused, or nothing is taken from it (ignored)",
    "cold": "to forget the last prompt when keep_cache is not set: its tokens are counted as cached",
}


@dataclass(frozen=True)
class Way:
    """An engine alone, or a server through the engine `openai`; with its model, its options and what it cannot do."""

    engine: str
    server: str = ""
    model: str = "smollm2-135m"
    options: dict = field(default_factory=lambda: {"context": 512})
    cannot: dict = field(default_factory=dict)  # property -> the reason
    calm_s: float = 0  # what its server needs after a dropped stream: see "Ollama takes requests" in docs/troubleshooting.md

    @property
    def name(self):
        return self.server or self.engine


PER_SERVER = {"context": 512, "parallel": 4}
OLLAMA = {
    "tokens": "in its API a prompt is a string",
    "ignore_eos": "its API has no such option",
    "cached_tokens": "it has a prompt cache and does not say what it held",
}
KEPT_APART = "labkit's engine sends keep_cache only to a server that it started itself"

FOUNDRY = dict.fromkeys(("tokens", "prompt"), "its web service has /v1/chat/completions only") | {
    "ignore_eos": "its web service has no such field; a whole session can go on: ignore_eos=True at loading",
    "keep_cache": "its web service computes every request from the first token",
}

VLLM = {"context": 512, "threads": 1, "max_num_seqs": 4, "kv_gib": 0.125, "block_size": 32, "dtype": "float32"}
BLOCKS = {"keep_cache": "it keeps whole blocks of 32 tokens and more, and this prompt is shorter"}

WAYS = [
    Way("llamacpp"),
    Way("openai"),
    Way("mlx", model="stdlib-10m"),  # MLX computes on the CPU where there is no Mac's GPU; its own tests are beside this file
    Way("ortgenai", model="stdlib-10m"),
    Way("ollama", options={"context": 512, "own": True}, cannot=OLLAMA),
    Way("openai", "llama_server", options=PER_SERVER, cannot={"cold": KEPT_APART}),
    Way("openai", "ollama", options=PER_SERVER, cannot=OLLAMA, calm_s=0.3),  # the engine ollama waits by itself
    Way("foundry", cannot=FOUNDRY),
    Way("openai", "foundry", cannot=FOUNDRY),
    Way("openai", "vllm", model="stdlib-10m", options=VLLM, cannot=BLOCKS),
    Way("openai", "onnx", options=PER_SERVER, cannot={"keep_cache": "every request starts with an empty KV cache"}),
]
BY_NAME = {f"{way.engine}-{way.server}" if way.server else way.engine: way for way in WAYS}
every_way = pytest.mark.parametrize("way", WAYS, ids=BY_NAME, scope="module", indirect=True)
every_server = pytest.mark.parametrize("way", [w for w in WAYS if w.server], ids=lambda w: w.server, scope="module", indirect=True)


def test_every_engine_and_every_server_is_in_the_table():
    assert {w.engine for w in WAYS if not w.server} == set(engines.names())
    assert {w.server for w in WAYS if w.server} == set(servers.names())
    assert {p for w in WAYS for p in w.cannot} <= set(PROPERTIES)
    assert all(reason.strip() for w in WAYS for reason in w.cannot.values())


@pytest.fixture(scope="module")
def way(request):
    return request.param


@pytest.fixture(scope="module")
def running(way):
    """The server of this way; None where the engine stands alone."""
    if not way.server:
        yield None
        return
    with servers.open(way.server).start(models.resolve(way.model), **way.options) as server:
        yield server


def connect(way, url):
    """Through the engine `openai`, as anyone would who has a base URL."""
    return engines.open("openai").load(models.resolve(way.model), url=url)


@pytest.fixture(scope="module")
def session(way, running):
    loaded = connect(way, running.base_url) if running else engines.open(way.engine).load(models.resolve(way.model), **way.options)
    yield loaded
    loaded.close()


def text(session, **options):
    return measure.one(session, Request.chat("Name three colours.", **{"max_tokens": 12, **options}))


# -- every engine, every server


@every_way
def test_the_protocols_are_met(way, session):
    assert isinstance(session, Session)
    assert isinstance(engines.open(session.engine_name), Engine)
    assert engines.open(session.engine_name).missing() is None


@every_way
def test_a_record_is_complete_and_plausible(way, session):
    found = text(session)
    assert isinstance(found, Measurement)
    assert found.text.strip()
    assert 1 <= found.output_tokens <= 12
    assert found.prompt_tokens > 5
    assert found.ttft_s > 0
    path = session.model.path
    assert found.model_sha256 == (models.sha256_of(path) if path.is_file() else folders.digest(path))
    assert found.engine == session.engine_name
    assert found.finish_reason in ("stop", "length")


@every_way
def test_a_stream_comes_in_pieces(way, session):
    pieces = [chunk.text for chunk in session.stream(Request.chat("Name three colours.", max_tokens=12)) if chunk.text]
    assert len(pieces) > 2
    assert "".join(pieces) == text(session).text


@every_way
def test_max_tokens_ends_with_length(way, session):
    found = text(session, max_tokens=3)
    assert (found.output_tokens, found.finish_reason) == (3, "length")


@every_way
def test_greedy_is_repeatable_and_a_seed_too(way, session):
    assert text(session).text == text(session).text
    hot = {"temperature": 1.5, "max_tokens": 16}
    assert text(session, seed=5, **hot).text == text(session, seed=5, **hot).text
    assert len({text(session, seed=n, **hot).text for n in range(4)}) > 1


@every_way
def test_a_stop_string_ends_the_text_before_it(way, session):
    whole = text(session, max_tokens=24).text
    stop = whole[len(whole) // 2 :][:3]
    found = text(session, max_tokens=24, stop=(stop,))
    assert found.text == whole[: whole.find(stop)]
    assert found.finish_reason == "stop"


@every_way
def test_cancelling_in_the_middle_leaves_a_usable_session(way, session):
    stream = session.stream(Request.chat("Tell me a long story.", max_tokens=200))
    assert [next(stream) for _ in range(3)]
    stream.close()
    time.sleep(way.calm_s)
    assert session.usage().finish_reason == "cancelled"
    assert text(session).output_tokens


@every_way
def test_token_prompts_are_exact_or_refused(way, session):
    request = Request(tokens=tuple(range(300, 340)), max_tokens=4)
    if "tokens" in way.cannot:
        with pytest.raises((BadInput, RunFailed)):  # BadInput from an engine of its own, RunFailed with a server's answer
            measure.one(session, request)
    else:
        assert measure.one(session, request).prompt_tokens == 40


@every_way
def test_a_plain_text_is_continued_or_refused(way, session):
    request = Request(prompt="The capital of France is", max_tokens=4)
    if "prompt" in way.cannot:
        with pytest.raises((BadInput, RunFailed)):
            measure.one(session, request)
    else:
        assert measure.one(session, request).output_tokens


@every_way
def test_a_benchmark_can_go_on_past_the_end_of_text_or_is_told_that_it_cannot(way, session):
    kind = {"max_tokens": 12, "ignore_eos": True}
    request = Request.chat("The end.", **kind) if "prompt" in way.cannot else Request(prompt="The end.", **kind)
    if "ignore_eos" not in way.cannot:
        assert measure.one(session, request).output_tokens == 12
    elif way.server:  # the server drops the field without a word, so nothing changes
        plain = measure.one(session, request.model_copy(update={"ignore_eos": False}))
        assert measure.one(session, request).text == plain.text
    else:
        with pytest.raises(BadInput, match="end"):
            measure.one(session, request)


@every_way
def test_a_kept_prefix_is_not_computed_again(way, session):
    first = Request.chat("Count from one to ten, please, slowly and in words.", max_tokens=2, keep_cache=True)
    if "keep_cache" in way.cannot and not way.server:
        with pytest.raises(BadInput, match="cache"):
            measure.one(session, first)
        return
    measure.one(session, first)
    again = measure.one(session, first)
    cold = measure.one(session, first.model_copy(update={"keep_cache": False}))
    if "cached_tokens" in way.cannot:
        assert again.cached_tokens is None
        assert again.prefill_tokens_per_s is None, "a rate whose token count is unknown"
    elif "keep_cache" in way.cannot:
        assert again.cached_tokens == 0
    else:
        assert again.cached_tokens >= again.prompt_tokens - 2
        assert (cold.cached_tokens > 0) == ("cold" in way.cannot)


@pytest.mark.parametrize("way", [w for w in WAYS if not w.server], ids=lambda w: w.name)
def test_options_are_checked_by_name_and_type(way):
    ref = models.resolve(way.model)
    with pytest.raises(BadInput, match="did you mean threads"):
        engines.open(way.engine).load(ref, thread=1)
    with pytest.raises(BadInput, match="threads"):
        engines.open(way.engine).load(ref, threads="many")


def test_unknown_engine():
    with pytest.raises(BadInput, match="did you mean llamacpp"):
        engines.open("lamacpp")


# -- every server, through the engine `openai`


@every_server
def test_it_is_healthy_and_its_process_is_ours(way, running):
    assert running.alive()
    assert running.healthy()
    assert running.base_url.startswith("http://127.0.0.1:")


@every_server
def test_four_requests_at_once(way, running):
    found = []

    def ask(n):
        session = connect(way, running.base_url)
        found.append(measure.one(session, Request.chat(f"Say the number {n}.", max_tokens=8)))
        session.close()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(found) == 4
    assert all(m.output_tokens for m in found)


@every_server
def test_a_remote_model_that_is_not_there(way, running):
    with pytest.raises(BadInput, match="has no model"):
        engines.open("openai").load(ModelRef(name="other", path="other", format="endpoint"), url=running.base_url)


def test_no_server_answers():
    with pytest.raises(MissingPart, match="no server answers"):
        engines.open("openai").load(models.resolve("smollm2-135m"), url=f"http://127.0.0.1:{servers.base.free_port()}/v1")


@every_server
def test_a_server_killed_in_the_middle_and_started_again(way):
    ref = models.resolve(way.model)
    server = servers.open(way.server).start(ref, **way.options)
    session = connect(way, server.base_url)
    stream = session.stream(Request.chat("Tell me a very long story.", max_tokens=300))
    next(stream)
    server.process.kill()
    with pytest.raises(RunFailed):
        list(stream)
    server.stop()
    port = int(server.url.rsplit(":", 1)[1])
    with servers.open(way.server).start(ref, port=port, **way.options):
        assert text(session).output_tokens
    session.close()
