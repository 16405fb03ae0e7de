"""ONNX Runtime GenAI beyond the engine contract: scores held against the original, its tokenizer, sampling, refusals."""

import json
import shutil
import tomllib

import numpy as np
import pytest

from labkit import engines, measure, models
from labkit.core import paths
from labkit.core.errors import BadInput, MissingPart
from labkit.core.records import ModelRef, Request
from labkit.engines import Scorer
from labkit.engines.hf_text import HfText
from labkit.measure import quality
from labkit.quant import folders, hf, onnx

CODE = "def area(self, width):\n    return self.height"


@pytest.fixture(scope="module")
def session():
    with engines.open("ortgenai").load(models.resolve("stdlib-10m"), context=64, threads=1) as loaded:
        yield loaded


def run(session, **options):
    return measure.one(session, Request(prompt=CODE, **{"max_tokens": 6, "ignore_eos": True, **options}))


def test_a_record_says_what_ran(session):
    found = run(session)
    assert (found.engine, found.threads, found.output_tokens, found.finish_reason) == ("ortgenai", 1, 6, "length")
    assert found.model_sha256 == folders.digest(session.model.path)
    assert (found.settings["recipe"], found.settings["device"], found.settings["context"]) == ("int4", "cpu", 64)
    assert found.prompt_tokens == len(session.tokenize(CODE, bos=True))
    assert found.decode_tokens_per_s > 0


def test_greedy_is_the_likeliest_token(session):
    assert isinstance(session, Scorer)
    ids = session.prompt_tokens(Request(prompt=CODE))
    scores = list(session.logits(ids))
    assert (len(scores), scores[0].shape, scores[0].dtype) == (len(ids), (session.n_vocab,), np.float32)
    assert np.array_equal(list(session.logits(ids, start=3)), scores[3:])
    assert run(session, max_tokens=1).text == session.token_text(int(scores[-1].argmax()))


def test_scores_in_steps_are_those_of_one_step(session, monkeypatch):
    ids = session.tokenize(CODE * 4)[:60]
    whole = np.array(list(session.logits(ids)))
    monkeypatch.setattr("labkit.engines.ortgenai._STEP", 7)
    for start in (0, 5, 7, 20):
        assert np.allclose(list(session.logits(ids, start=start)), whole[start:], atol=1e-3)


def test_unquantized_scores_are_llama_cpps():
    ref = models.resolve("stdlib-10m")
    text = quality.text_for(ref)
    found = [quality.evaluate(ref, text, 512, 256, threads=1, engine="llamacpp", progress=False)]
    for name in ("fp32", "int4"):
        model = onnx.convert(ref, name)
        found.append(quality.evaluate(model, text, 512, 256, threads=1, engine="ortgenai", progress=False))
    original, same, four_bit = (one.perplexity for one in found)
    assert same == pytest.approx(original, rel=1e-3)
    assert four_bit == pytest.approx(original, rel=0.1)
    assert four_bit != pytest.approx(original, rel=1e-5)


@pytest.mark.parametrize("name", ["stdlib-10m", "smollm2-135m"])
def test_the_tokens_are_llama_cpps_and_the_librarys_own(name):
    """On all evaluation texts, and on markers: perplexities compare only where the tokens are the same."""
    ref = models.resolve(name)
    folder = hf.to_hf(ref).path
    mine = HfText(folder)
    texts = [path.read_text(encoding="utf-8") for path in sorted(paths.data("evaluation").glob("*.txt"))]
    assert len(texts) >= 2
    texts += ["  two  spaces\n\n\tx = 'é 東京 🙂'", "<|endoftext|>x <|im_start|>"]
    with engines.open("llamacpp").load(ref, context=64, threads=1) as reference:
        assert mine.bos == reference.bos
        for text in texts:
            for special in (True, False):
                assert mine.tokenize(text, special=special) == reference.tokenize(text, special=special)
            assert mine.prompt_tokens(Request(prompt=text), 10**6) == reference.prompt_tokens(Request(prompt=text))
        chat = Request.chat("Why?", system="Be brief.")
        assert mine.chat_prompt(chat.messages) == reference.chat_prompt(chat.messages)
        assert mine.prompt_tokens(chat, 10**6) == reference.prompt_tokens(chat)


@pytest.mark.parametrize("name", ["stdlib-10m", "smollm2-135m"])
def test_the_librarys_own_tokenizer_gives_the_same_ids(name):
    """What an application gets that leaves the text to ONNX Runtime GenAI, as Foundry Local does."""
    with engines.open("ortgenai").load(models.resolve(name), context=64, threads=1) as loaded:
        theirs = loaded._og.Tokenizer(loaded._model)
        for path in sorted(paths.data("evaluation").glob("*.txt")):
            text = path.read_text(encoding="utf-8")
            assert [int(t) for t in theirs.encode(text)] == loaded.tokenize(text, special=True)


def test_a_seed_is_repeatable_whatever_was_asked_before(session):
    hot = {"temperature": 2.0, "top_p": 0.95, "max_tokens": 8, "keep_cache": True}
    first = run(session, seed=5, **hot)
    others = {run(session, seed=seed, **hot).text for seed in (6, 7, 8)}
    again = run(session, seed=5, **hot)
    assert (again.text, again.cached_tokens) == (first.text, 0)
    assert others - {first.text}


def test_the_kept_cache_gives_the_same_answer(session):
    cold = run(session)
    again = run(session, keep_cache=True)
    assert (cold.cached_tokens, again.cached_tokens) == (0, again.prompt_tokens - 1)
    assert again.text == cold.text
    longer = measure.one(session, Request(prompt=CODE + cold.text + "\nx", max_tokens=2, keep_cache=True, ignore_eos=True))
    assert longer.cached_tokens >= again.prompt_tokens


def test_an_end_token_ends_the_text_unless_it_is_told_not_to(session):
    (end,) = session.tokenize("<|endoftext|>", special=True)
    assert [session.is_end(token) for token in (end, 300)] == [True, False]
    run(session, max_tokens=1)
    scores = np.full((1, 1, session.n_vocab), -1e9, np.float32)
    scores[0, 0, end] = 1
    for ignore, expected in ((False, ("stop", 0)), (True, ("length", 4))):
        made = session._new

        def forced(request, made=made):
            generator = made(request)
            take, generator = generator.append_tokens, _Proxy(generator)
            generator.append_tokens = lambda ids: (take(ids), generator.real.set_logits(scores))
            return generator

        session._new = forced
        try:
            found = run(session, max_tokens=4, ignore_eos=ignore)
        finally:
            session._new = made
        assert (found.finish_reason, found.output_tokens) == expected


class _Proxy:
    """A generator whose first choice is forced."""

    def __init__(self, real):
        self.real = real

    def __getattr__(self, name):
        return getattr(self.real, name)


def test_other_threads_give_the_same_answer():
    with engines.open("ortgenai").load(models.resolve("stdlib-10m"), context=64, threads=1) as session:
        one = run(session)
        session.set_threads(2)
        two = run(session, keep_cache=True)
        assert (one.threads, two.threads, two.cached_tokens) == (1, 2, 0)
        assert two.text == one.text


def test_the_context_is_kept_to(session):
    with pytest.raises(BadInput, match="the context holds 64"):
        list(session.stream(Request(tokens=(5,) * 64)))
    with pytest.raises(BadInput, match="outside the vocabulary"):
        list(session.stream(Request(tokens=(10**7,))))
    with pytest.raises(BadInput, match="empty"):
        list(session.stream(Request(tokens=())))
    full = measure.one(session, Request(tokens=(500,) * 61, max_tokens=50, ignore_eos=True))
    assert (full.output_tokens, full.finish_reason) == (3, "length")
    with pytest.raises(BadInput, match="reads at most 1024"):
        engines.open("ortgenai").load(session.model, context=4096)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"thread": 1}, "did you mean threads"), ({"threads": "many"}, "threads"), ({"recipe": "int5"}, "no recipe 'int5'")],
)
def test_options_are_checked(options, words):
    with pytest.raises(BadInput, match=words):
        engines.open("ortgenai").load(models.resolve("stdlib-10m"), **options)


def test_other_formats_and_broken_folders_are_refused(session, tmp_path):
    with pytest.raises(BadInput, match="reads ONNX folders"):
        engines.open("ortgenai").load(ModelRef(name="x", path=tmp_path, format="mlx"))
    ref = ModelRef(name="x", path=tmp_path, format="onnx-genai")
    with pytest.raises(BadInput, match=r"genai_config\.json"):
        engines.open("ortgenai").load(ref)
    for name in ("genai_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(session.model.path / name, tmp_path)
    with pytest.raises(BadInput, match=r"no model\.onnx"):
        engines.open("ortgenai").load(ref)
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BadInput, match="cannot load"):
        engines.open("ortgenai").load(ref)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        engines.open("ortgenai").load(ref)


def test_a_model_that_does_not_fit_is_refused(session, monkeypatch):
    from labkit.core import machine

    monkeypatch.setattr(machine, "memory_available_bytes", lambda: 1000)
    with pytest.raises(BadInput, match="GB are free"):
        engines.open("ortgenai").load(session.model)


def test_a_missing_library_names_the_command(monkeypatch):
    monkeypatch.setenv("LABKIT_WITHOUT", "onnx")
    assert engines.open("ortgenai").missing().endswith("uv sync --inexact --extra onnx")
    with pytest.raises(MissingPart, match="uv sync --inexact --extra onnx"):
        engines.open("ortgenai").load(models.resolve("stdlib-10m"))


def test_the_versions_are_those_of_the_lock_file():
    """Olive 0.13 builds with onnxruntime-genai 0.14.1 and with no later one: the pins are part of the recipe."""
    found = tomllib.loads(paths.home().joinpath("pyproject.toml").read_text(encoding="utf-8"))
    extra = found["project"]["optional-dependencies"]["onnx"]
    note = folders.note_of(onnx.convert(models.resolve("stdlib-10m")).path)
    for name in ("olive-ai", "onnxruntime-genai"):
        assert f"{name}=={note['versions'][name]}" in extra
    assert json.dumps(note)
