"""The contract of test_engine_contract.py for MLX, on the course's smallest model: on a PC it computes half a second a token."""

import numpy as np
import pytest

from labkit import engines, measure, models
from labkit.core.errors import BadInput, MissingPart
from labkit.core.records import Measurement, ModelRef, Request
from labkit.engines import Engine, Scorer, Session
from labkit.quant import folders, hf, mlx

CODE = "def area(self, width):\n    return self.height"


@pytest.fixture(scope="module")
def session():
    with engines.open("mlx").load(models.resolve("stdlib-10m"), context=64) as loaded:
        yield loaded


def run(session, **options):
    return measure.one(session, Request(prompt=CODE, **{"max_tokens": 2, "ignore_eos": True, **options}))


def test_the_protocols_are_met(session):
    assert isinstance(session, Session)
    assert isinstance(session, Scorer)
    assert isinstance(engines.open("mlx"), Engine)
    assert "mlx" in engines.names()


def test_a_record_is_complete_and_plausible(session):
    found = run(session)
    assert isinstance(found, Measurement)
    assert (found.output_tokens, found.finish_reason, found.engine, found.threads) == (2, "length", "mlx", None)
    assert found.prompt_tokens == len(session.tokenize(CODE, bos=True))
    assert found.ttft_s > 0
    assert found.decode_tokens_per_s > 0
    assert found.model_sha256 == session.model.sha256 == folders.digest(session.model.path)
    assert (found.settings["bits"], found.settings["group_size"]) == (4, 64)
    assert found.settings["device"] in ("cpu", "gpu")


def test_greedy_is_the_likeliest_token_and_repeatable(session):
    ids = session.prompt_tokens(Request(prompt=CODE))
    scores = list(session.logits(ids))
    assert len(scores) == len(ids)
    assert (scores[0].shape, scores[0].dtype) == ((session.n_vocab,), np.float32)
    assert np.array_equal(list(session.logits(ids, start=3)), scores[3:])
    found = [run(session, max_tokens=1).text for _ in range(2)]
    assert found == [session.token_text(int(scores[-1].argmax()))] * 2


def test_a_seed_is_repeatable_when_it_is_hot(session):
    hot = {"temperature": 3.0, "max_tokens": 1, "top_p": 0.99}
    texts = [run(session, seed=seed, **hot).text for seed in (5, 5, 6, 7, 8)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_a_stop_string_ends_the_text_before_it(session):
    whole = run(session).text
    stop = next(c for c in whole if not c.isspace())
    found = run(session, stop=(stop,))
    assert found.text == whole[: whole.find(stop)]
    assert found.finish_reason == "stop"


def test_cancelling_leaves_a_usable_session_and_its_cache(session):
    request = Request(prompt=CODE, max_tokens=20, ignore_eos=True)
    stream = session.stream(request)
    next(stream)
    stream.close()
    assert session.usage().finish_reason == "cancelled"
    cold = run(session, max_tokens=1)
    again = run(session, max_tokens=1, keep_cache=True)
    assert (cold.cached_tokens, again.cached_tokens) == (0, again.prompt_tokens - 1)
    assert again.text == cold.text


def test_token_prompts_are_exact_and_end_of_text_ends(session):
    found = measure.one(session, Request(tokens=tuple(range(300, 310)), max_tokens=1, ignore_eos=True))
    assert (found.prompt_tokens, found.output_tokens) == (10, 1)
    end = session.tokenize("<|endoftext|>", special=True)
    assert [session.is_end(token) for token in (*end, 300)] == [True, False]


def test_the_context_is_kept_to(session):
    with pytest.raises(BadInput, match="the context holds 64"):
        list(session.stream(Request(tokens=(5,) * 64)))
    with pytest.raises(BadInput, match="outside the vocabulary"):
        list(session.stream(Request(tokens=(10**7,))))
    with pytest.raises(BadInput, match="empty"):
        list(session.stream(Request(tokens=())))
    full = measure.one(session, Request(tokens=(500,) * 62, max_tokens=50, ignore_eos=True))
    assert (full.output_tokens, full.finish_reason) == (3, "length")


def test_scores_are_those_of_the_dequantized_weights(session):
    """MLX multiplies 4-bit weights as they are; transformers multiplies the same weights unpacked."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = session.tokenize(CODE)
    mine = torch.tensor(np.array(list(session.logits(ids)))).log_softmax(-1)
    with engines.open("llamacpp").load(models.resolve("stdlib-10m"), context=64, threads=1) as reference:
        theirs = torch.tensor(np.array(list(reference.logits(ids)))).log_softmax(-1)
    divergence = float((theirs.exp() * (theirs - mine)).sum(-1).mean())
    assert 0 < divergence < 0.5, "4 bits are near the original, and not the original"
    dense = AutoModelForCausalLM.from_pretrained(hf.to_hf(models.resolve("stdlib-10m")).path, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in dense.named_parameters():
            if parameter.ndim == 2:
                parts = [mlx.tensor(session.model.path, name.replace("weight", part)) for part in ("weight", "scales", "biases")]
                parameter.copy_(torch.tensor(mlx.affine.dequantize(mlx.affine.unpack(parts[0], 4), *parts[1:])))
        same = dense(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert float((same.exp() * (same - mine)).sum(-1).mean()) < 0.01


def test_the_tokens_are_llama_cpps(session):
    with engines.open("llamacpp").load(models.resolve("stdlib-10m"), context=64, threads=1) as reference:
        assert session.bos == reference.bos
        for text in (CODE, "  two  spaces\n\n\tx = 'é 東京 🙂'", "<|endoftext|>x"):
            for special in (True, False):
                assert session.tokenize(text, special=special) == reference.tokenize(text, special=special), (text, special)
            assert session.prompt_tokens(Request(prompt=text)) == reference.prompt_tokens(Request(prompt=text))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"thread": 1}, "did you mean threads"),
        ({"threads": "many"}, "threads"),
        ({"threads": 2}, "its threads itself"),
        ({"bits": 7}, "7 bits"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(BadInput, match=words):
        engines.open("mlx").load(models.resolve("stdlib-10m"), **options)


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(BadInput, match="reads MLX folders"):
        engines.open("mlx").load(ModelRef(name="x", path=tmp_path, format="onnx-genai"))


def test_a_model_that_does_not_fit_is_refused(session, monkeypatch):
    from labkit.core import machine

    monkeypatch.setattr(machine, "memory_available_bytes", lambda: 1000)
    with pytest.raises(BadInput, match="GB are free"):
        engines.open("mlx").load(session.model)


def test_a_missing_library_names_the_command(monkeypatch):
    monkeypatch.setenv("LABKIT_WITHOUT", "mlx")
    assert engines.open("mlx").missing().endswith(": uv sync --inexact --extra mlx")
    with pytest.raises(MissingPart, match="uv sync --inexact --extra mlx"):
        engines.open("mlx").load(models.resolve("stdlib-10m"))
