"""One contract, every engine: stream, usage, stop, seed, max_tokens, cancel, unknown option, broken model."""

import threading

import httpx
import pytest
from gguf_factory import write

from labkit import engines, measure, models, servers
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import Measurement, ModelRef, Request
from labkit.engines import Engine, Scorer, Session
from labkit.quant import folders

# MLX computes on the CPU wherever there is no Mac's GPU, so it gets the course's small model; its own tests are beside this file
MODELS = {"mlx": "stdlib-10m"}


@pytest.fixture(scope="module", params=engines.names())
def session(request):
    loaded = engines.open(request.param).load(models.resolve(MODELS.get(request.param, "smollm2-135m")), context=512)
    yield loaded
    loaded.close()


def text(session, **options):
    return measure.one(session, Request.chat("Name three colours.", **{"max_tokens": 12, **options}))


def test_the_protocols_are_met(session):
    assert isinstance(session, Session)
    assert isinstance(engines.open(session.engine_name), Engine)


def test_a_record_is_complete_and_plausible(session):
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


def test_max_tokens_ends_with_length(session):
    found = text(session, max_tokens=3, ignore_eos=True)
    assert (found.output_tokens, found.finish_reason) == (3, "length")


def test_greedy_is_repeatable_and_a_seed_too(session):
    assert text(session).text == text(session).text
    hot = {"temperature": 1.5, "max_tokens": 16}
    assert text(session, seed=5, **hot).text == text(session, seed=5, **hot).text
    assert len({text(session, seed=n, **hot).text for n in range(4)}) > 1


def test_a_stop_string_ends_the_text_before_it(session):
    whole = text(session, max_tokens=24).text
    stop = whole[len(whole) // 2 :][:3]
    found = text(session, max_tokens=24, stop=(stop,))
    assert found.text == whole[: whole.find(stop)]
    assert found.finish_reason == "stop"


def test_cancelling_in_the_middle_leaves_a_usable_session(session):
    stream = session.stream(Request.chat("Tell me a long story.", max_tokens=200))
    assert [next(stream) for _ in range(3)]
    stream.close()
    assert session.usage().finish_reason == "cancelled"
    assert text(session).output_tokens


def test_prompt_tokens_are_exact_for_token_prompts(session):
    found = measure.one(session, Request(tokens=tuple(range(300, 340)), max_tokens=4, ignore_eos=True))
    assert (found.prompt_tokens, found.output_tokens) == (40, 4)


def test_a_kept_prefix_is_not_computed_again(session):
    first = Request.chat("Count from one to ten, please, slowly and in words.", max_tokens=2, keep_cache=True)
    measure.one(session, first)
    again = measure.one(session, first)
    assert again.cached_tokens >= again.prompt_tokens - 2
    cold = measure.one(session, first.model_copy(update={"keep_cache": False}))
    assert cold.cached_tokens == 0


@pytest.mark.parametrize("name", engines.names())
def test_options_are_checked_by_name_and_type(name):
    ref = models.resolve("smollm2-135m")
    with pytest.raises(BadInput, match="did you mean threads"):
        engines.open(name).load(ref, thread=1)
    with pytest.raises(BadInput, match="threads"):
        engines.open(name).load(ref, threads="many")


def test_unknown_engine():
    with pytest.raises(BadInput, match="did you mean llamacpp"):
        engines.open("lamacpp")


# -- what only one of them can do


def test_llamacpp_scores_like_it_generates():
    """The likeliest token by `logits` is what greedy decoding takes."""
    with engines.open("llamacpp").load(models.resolve("smollm2-135m"), context=256, ubatch=32) as session:
        assert isinstance(session, Scorer)
        ids = session.tokenize("The capital of France is the city of Paris, and the capital of Italy is the city of")
        scores = list(session.logits(ids * 3))
        assert len(scores) == len(ids) * 3
        assert scores[0].shape == (session.n_vocab,)
        made = measure.one(session, Request(tokens=tuple(ids), max_tokens=1))
        assert made.text == session.token_text(int(list(session.logits(ids))[-1].argmax()))


@pytest.mark.parametrize(
    ("options", "template"),
    [({}, True), ({"template": False}, False), ({"architecture": "gemma3", "vocab": 262144, "window": 64}, True)],
    ids=["seen never before", "no chat template", "262k vocabulary, sliding window"],
)
def test_files_that_labkit_has_never_seen(tmp_path, options, template):
    ref = models.resolve(write(tmp_path / "own.gguf", **options))
    with engines.open("llamacpp").load(ref, context=512, threads=1) as session:
        assert session.has_chat_template == template
        long = Request.chat("word " * 150, max_tokens=8, ignore_eos=True)
        assert measure.one(session, long).output_tokens == 8
        assert len(next(iter(session.logits(session.tokenize("def f(x):"))))) == session.n_vocab


def test_a_model_without_a_vocabulary_takes_bytes_as_tokens(tmp_path):
    from labkit.models import catalog, shape

    ref = shape.write(catalog.get("gemma3-270m"), "Q4_0", tmp_path)
    with engines.open("llamacpp").load(ref, context=256, threads=1) as session:
        found = text(session, max_tokens=3)
        assert found.prompt_tokens == len("Name three colours.")
        assert found.text.count("<") == 3


def test_prompts_that_do_not_fit_are_refused():
    with engines.open("llamacpp").load(models.resolve("smollm2-135m"), context=256) as session:
        with pytest.raises(BadInput, match="the context holds 256"):
            list(session.stream(Request(tokens=(5,) * 300)))
        with pytest.raises(BadInput, match="outside the vocabulary"):
            list(session.stream(Request(tokens=(10**7,))))
        full = measure.one(session, Request(tokens=(500,) * 250, max_tokens=50, ignore_eos=True))
        assert full.finish_reason == "length"
        assert full.output_tokens <= 7


def test_a_broken_file_gets_a_sentence(tmp_path):
    data = bytearray(write(tmp_path / "own.gguf").read_bytes())
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(bytes(data).replace(b"llama.block_count", b"llama.block_kount"))
    with pytest.raises(BadInput, match="cannot load"):
        engines.open("llamacpp").load(ModelRef(name="x", path=broken, format="gguf"))


# -- the server behind the openai engine


@pytest.fixture(scope="module")
def running():
    with servers.open("llama_server").start(models.resolve("smollm2-135m"), context=512, parallel=4) as server:
        yield server


def test_health_and_metrics(running):
    assert running.healthy()
    assert "llamacpp:" in httpx.get(running.url + "/metrics").text


def test_four_requests_at_once(running):
    found = []

    def ask(n):
        session = engines.open("openai").load(models.resolve("smollm2-135m"), url=running.base_url)
        found.append(measure.one(session, Request.chat(f"Say the number {n}.", max_tokens=8)))
        session.close()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(found) == 4
    assert all(m.output_tokens for m in found)


def test_a_remote_model_that_is_not_there(running):
    with pytest.raises(BadInput, match="has no model"):
        engines.open("openai").load(ModelRef(name="other", path="other", format="endpoint"), url=running.base_url)


def test_no_server_answers():
    with pytest.raises(MissingPart, match="no server answers"):
        engines.open("openai").load(models.resolve("smollm2-135m"), url=f"http://127.0.0.1:{servers.base.free_port()}/v1")


def test_a_server_killed_in_the_middle_and_started_again():
    ref = models.resolve("smollm2-135m")
    server = servers.open("llama_server").start(ref, context=512, parallel=1)
    session = engines.open("openai").load(ref, url=server.base_url)
    stream = session.stream(Request.chat("Tell me a very long story.", max_tokens=300, ignore_eos=True))
    next(stream)
    server.process.kill()
    with pytest.raises(RunFailed):
        list(stream)
    server.stop()
    port = int(server.url.rsplit(":", 1)[1])
    with servers.open("llama_server").start(ref, port=port, context=512, parallel=1):
        assert text(session).output_tokens
    session.close()
