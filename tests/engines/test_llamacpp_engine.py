"""What llama.cpp in this process can do beyond the contract of test_engine_contract.py: scores, files of any shape, limits."""

import pytest
from gguf_factory import write

from labkit import engines, measure, models
from labkit.core.errors import BadInput
from labkit.core.records import ModelRef, Request
from labkit.engines import Scorer


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
        found = measure.one(session, Request.chat("Name three colours.", max_tokens=3))
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
