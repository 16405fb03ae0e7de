"""Perplexity against a computation with the bare library, KL and agreement, multiple choice, and what is refused."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf_factory import write

from labkit import engines, models
from labkit.core.errors import BadInput, RunFailed
from labkit.core.records import ModelRef
from labkit.engines import Scorer
from labkit.measure import logits, quality
from labkit.models import catalog, shape
from labkit.quant import gguf

pytestmark = pytest.mark.usefixtures("cache")


def bare_logits(path, text, count, context, add_bos):
    """Windows and all their logits, with nothing but llama_cpp: one batch a window."""
    engines.open("llamacpp").missing()  # its log, not the screen
    import llama_cpp as lib

    params = lib.llama_model_default_params()
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    vocab = lib.llama_model_get_vocab(model)
    assert lib.llama_vocab_get_add_bos(vocab) == add_bos
    raw = text.encode()
    buffer = (lib.llama_token * (len(raw) + 8))()
    n = lib.llama_tokenize(vocab, raw, len(raw), buffer, len(raw) + 8, True, False)
    tokens = list(buffer[:n])[: count * context]
    settings = lib.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = context
    settings.n_threads = settings.n_threads_batch = 1
    ctx = lib.llama_init_from_model(model, settings)
    width = lib.llama_vocab_n_tokens(vocab)
    out = []
    for start in range(0, len(tokens), context):
        window = tokens[start : start + context]
        fed = [lib.llama_vocab_bos(vocab), *window[1:]] if add_bos else window
        lib.llama_memory_clear(lib.llama_get_memory(ctx), True)
        batch = lib.llama_batch_init(context, 0, 1)
        batch.n_tokens = context
        for i, token in enumerate(fed):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, True
            batch.seq_id[i][0] = 0
        assert lib.llama_decode(ctx, batch) == 0
        scores = np.ctypeslib.as_array(lib.llama_get_logits(ctx), shape=(context, width)).astype(np.float64)
        lib.llama_batch_free(batch)
        out.append((window, scores))
    lib.llama_free(ctx)
    lib.llama_model_free(model)
    return out


def surprises(found, context):
    """As llama.cpp's tool scores a window: position i of the second half predicts token i + 1."""
    out = []
    for window, scores in found:
        for i in range(context // 2, context - 1):
            row = scores[i]
            out.append(math.log(math.fsum(np.exp(row - row.max()))) + row.max() - row[window[i + 1]])
    return np.array(out)


@pytest.mark.parametrize(
    ("name", "count", "context", "add_bos"), [("stdlib-10m", 4, 256, True), ("stdlib-10m", 2, 509, True), ("smollm2-135m", 1, 256, False)]
)
def test_perplexity_is_that_of_the_bare_library(name, count, context, add_bos):
    ref = models.resolve(name)
    text = quality.text_for(ref)
    theirs = surprises(bare_logits(ref.path, text[:20_000], count, context, add_bos), context)
    found = quality.evaluate(ref, tokens=count * context + 7, context=context, threads=1, progress=False)
    assert found.perplexity == pytest.approx(math.exp(theirs.mean()), rel=1e-3)
    n = len(theirs)
    assert (found.tokens, found.scored_tokens) == (count * context, n)
    assert n == count * (context - context // 2 - 1)
    error = math.sqrt(((theirs**2).mean() - theirs.mean() ** 2) / (n - 1))
    assert found.perplexity_stderr == pytest.approx(math.exp(theirs.mean()) * error, rel=1e-3)
    assert (found.kl_mean, found.kl_stderr, found.top1_agreement) == (None, None, None)


def test_a_model_does_not_differ_from_itself(small):
    found = quality.evaluate(small, tokens=512, context=256, against=small, threads=1, progress=False)
    assert found.kl_mean == pytest.approx(0, abs=1e-6)
    assert found.kl_stderr == pytest.approx(0, abs=1e-6)
    assert found.top1_agreement == 1


def test_divergence_is_that_of_the_bare_library(small):
    other = gguf.quantize(small, "Q4_0", progress=False).ref()
    text = quality.text_for(small)[:20_000]
    ours, theirs = (bare_logits(ref.path, text, 1, 256, True)[0][1][128:255] for ref in (other, small))
    p, q = (np.exp(rows - rows.max(axis=1, keepdims=True)) for rows in (theirs, ours))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    kl = (p * np.log(p / q)).sum(axis=1)
    found = quality.evaluate(other, tokens=256, context=256, against=small, threads=1, progress=False)
    assert found.kl_mean == pytest.approx(kl.mean(), rel=0.02)
    assert found.kl_stderr == pytest.approx(kl.std() / math.sqrt(len(kl) - 1), rel=0.05)
    assert found.top1_agreement == pytest.approx((p.argmax(1) == q.argmax(1)).mean(), abs=0.02)


def test_fewer_bits_cost_quality(small):
    """F16 < Q4_0 << TQ2_0, on the course's own model."""
    found = {}
    for kind in ("F16", "Q4_0", "TQ2_0"):
        ref = gguf.quantize(small, kind, progress=False).ref()
        found[kind] = quality.evaluate(ref, tokens=4096, against=small, threads=1, progress=False)
    assert found["F16"].perplexity < found["Q4_0"].perplexity
    assert found["TQ2_0"].perplexity > found["F16"].perplexity + 10 * (found["Q4_0"].perplexity - found["F16"].perplexity)
    assert found["F16"].kl_mean < 1e-6 < found["Q4_0"].kl_mean < found["TQ2_0"].kl_mean / 10
    assert found["Q4_0"].top1_agreement > found["TQ2_0"].top1_agreement


def test_the_text_that_suits(small):
    python, english = "class ", "Qu"
    for name, word in [("stdlib-10m", python), ("stdlib-10m-Q4_0", python), ("smollm2-135m-F16-from-Q4_1", english), ("own", english)]:
        assert word in quality.text_for(ModelRef(name=name, path=small.path, format="gguf"))
    assert quality.text_for(small) != quality.text_for(small.model_copy(update={"name": "own"}))


# -- any scorer will do


class Fake:
    """A scorer of 8 tokens that always expects the next number; `bos` is 7. It remembers what it was asked."""

    bos = 7

    def __init__(self):
        self.asked = []

    def tokenize(self, text):
        return [int(c) for c in text]

    def logits(self, tokens):
        self.asked.append(list(tokens))
        for token in tokens:
            row = np.zeros(8, np.float32)
            row[(token + 1) % 7] = 3
            yield row


def test_windows_are_those_of_llama_perplexity():
    fake = Fake()
    assert isinstance(fake, Scorer)
    cut = quality.windows(fake, "0123456" * 6, 40, 12)
    assert [len(window) for window in cut] == [12, 12, 12]
    assert [window[0] for window in cut] == [7, 7, 7]
    assert cut[0][1:4] == [0, 1, 2]  # BOS stood in front of the text
    assert cut[1][1:3] == [5, 6]  # and takes the place of each later window's first token, here a 4
    scores = quality.score(quality.live(fake, cut), cut, progress=False)
    assert len(scores.nll) == 3 * 5
    assert scores.nll == pytest.approx(math.log(math.exp(3) + 7) - 3)
    assert [len(asked) for asked in fake.asked] == [11, 11, 11]
    fake.bos = None
    assert quality.windows(fake, "0123456", 7, 7) == [[0, 1, 2, 3, 4, 5, 6]]


def test_a_scorer_without_start_gives_the_same(small):
    with quality.opened(small, 256, 1) as session:
        ids = session.tokenize(quality.text_for(small))[:100]
        late = np.concatenate(list(logits.blocks(session, ids, start=70)))
        every = np.stack(list(session.logits(ids)))
        plain = type("Plain", (), {"logits": lambda self, tokens: session.logits(tokens)})()
        other = np.concatenate(list(logits.blocks(plain, ids, start=70)))
    assert late.shape == (30, 4096)
    assert late == pytest.approx(every[70:], abs=1e-4)
    assert other == pytest.approx(every[70:], abs=1e-4)


def test_a_kept_reference_is_the_live_one(small):
    with quality.opened(small, 64, 1) as session:
        cut = quality.windows(session, quality.text_for(small), 192, 64)
        with quality.kept(quality.live(session, cut), cut, session.n_vocab, progress=False) as source:
            for number in (2, 0, 1):
                assert np.array_equal(np.concatenate(list(source(number))), np.concatenate(list(quality.live(session, cut)(number))))
            found = quality.score(source, cut, quality.live(session, cut), progress=False)
    assert found.kl == pytest.approx(0, abs=1e-9)


def test_scores_that_are_no_numbers():
    fake = Fake()
    cut = quality.windows(fake, "0123456" * 2, 12, 12)
    with pytest.raises(RunFailed, match="not numbers"):
        quality.score(lambda _: iter([np.full((5, 8), np.nan, np.float32)]), cut, progress=False)
    with pytest.raises(BadInput, match="vocabularies differ: 8 and 9"):
        quality.score(quality.live(fake, cut), cut, lambda _: iter([np.zeros((5, 9), np.float32)]), progress=False)


def test_a_certain_reference_and_a_forbidden_token():
    p = logits.log_softmax(np.array([[0.0, -np.inf, 0.0], [800.0, 0.0, -800.0]], np.float32))
    q = logits.log_softmax(np.array([[0.0, 0.0, 0.0], [800.0, 0.0, -800.0]], np.float32))
    assert logits.divergence(p, q) == pytest.approx([math.log(3 / 2), 0])


def test_a_vocabulary_of_262k_stays_in_memory(tmp_path):
    path = write(tmp_path / "wide.gguf", vocab=262_144)
    # on Linux getrusage's peak of a child starts from its parent's, /proc's does not
    program = (
        "import pathlib, re, resource; from labkit import models; from labkit.measure import quality; from labkit.quant import gguf;"
        f"ref = models.resolve({str(path)!r}); made = gguf.quantize(ref, 'Q8_0', progress=False).ref();"
        "found = quality.evaluate(made, tokens=256, context=256, against=ref, threads=1, progress=False);"
        "status = pathlib.Path('/proc/self/status');"
        "high = re.search(r'VmHWM:\\s+(\\d+)', status.read_text())[1] if status.exists() else None;"
        "print(found.kl_mean, high or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    kl, peak = map(float, done.stdout.split())
    assert 0 < kl < 0.01
    assert peak * (1 if sys.platform == "darwin" else 1024) < 1.2e9


# -- multiple choice


def test_choices_sum_what_follows_the_context():
    fake = Fake()
    items = [
        {"id": "a", "context": "01", "choices": ["23", "222"], "answer": 0},
        {"id": "b", "context": "", "choices": ["11", "3"], "answer": 0},
    ]
    first, second = quality.choices(fake, items, progress=False)
    sure, other = 3 - math.log(math.exp(3) + 7), -math.log(math.exp(3) + 7)
    assert first["log_likelihoods"] == pytest.approx([2 * sure, sure + 2 * other])
    assert first["per_byte"] == pytest.approx([sure, (sure + 2 * other) / 3])
    assert (first["picked"], first["right"], first["right_per_byte"], first["chance"]) == (0, True, True, 0.5)
    assert second["picked"] == 1
    assert second["picked_per_byte"] == 0
    assert (second["right"], second["right_per_byte"]) == (False, True)
    found = quality.accuracy([first, second])
    assert (found.right, found.n, found.accuracy, found.chance) == (1, 2, 0.5, 0.5)
    assert quality.accuracy([first, second], "right_per_byte").accuracy == 1


def test_a_choice_that_begins_another_is_scored():
    (row,) = quality.choices(Fake(), [{"id": "a", "context": "0", "choices": ["1", "12"], "answer": 1}], progress=False)
    sure = 3 - math.log(math.exp(3) + 7)
    assert row["log_likelihoods"] == pytest.approx([sure, 2 * sure])


def test_choices_on_a_real_model(small):
    items = [{"id": 1, "context": "    def __init__(self", "choices": ["):\n", "!\n"], "answer": 0}]
    with quality.opened(small, 128, 1) as session:
        (row,) = quality.choices(session, items, progress=False)
        assert row["right"]
        with pytest.raises(BadInput, match="the context holds"):
            quality.choices(session, [items[0] | {"context": "x = 1\n" * 200}], progress=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"choices": ["1"]}, "two or more"),
        ({"choices": ["1", ""]}, "two or more"),
        ({"choices": "12"}, "two or more"),
        ({"answer": 2}, "not one of 0 to 1"),
        ({"answer": -1}, "not one of 0 to 1"),
        ({"answer": "1"}, "not one of 0 to 1"),
    ],
)
def test_items_of_another_form(change, says):
    item = {"id": "a", "context": "0", "choices": ["1", "2"], "answer": 0} | change
    with pytest.raises(BadInput, match=says):
        quality.choices(Fake(), [item])


def test_items_that_cannot_be_scored():
    with pytest.raises(BadInput, match="has no context"):
        quality.choices(Fake(), [{"id": "a", "choices": ["1", "2"], "answer": 0}])
    fake = Fake()
    fake.bos = None
    with pytest.raises(BadInput, match="nothing comes before"):
        quality.choices(fake, [{"id": "a", "context": "", "choices": ["1", "2"], "answer": 0}])
    with pytest.raises(BadInput, match="no answers"):
        quality.accuracy([])


def test_wilson():
    assert quality.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Agresti and Coull 1998's formula by hand
    assert quality.wilson(0, 10)[0] == 0
    assert quality.wilson(10, 10)[1] == pytest.approx(1)
    for bad in ((1, 0), (3, 2), (-1, 5)):
        with pytest.raises(BadInput):
            quality.wilson(*bad)


# -- what is refused


def test_what_cannot_be_evaluated(small, tmp_path):
    for options, says in [
        ({"text": "x = 1\n"}, r"the text has \d+ tokens, a window has 512"),
        ({"text": ""}, "a window has 512"),
        ({"tokens": 511}, "511 tokens are asked for"),
        ({"context": 1025}, "at most 1024 tokens"),
        ({"context": 16}, "too short"),
        ({"engine": "lamacpp"}, "did you mean llamacpp"),
        ({"against": models.resolve(write(tmp_path / "other.gguf"))}, "different vocabularies"),
    ]:
        with pytest.raises(BadInput, match=says):
            quality.evaluate(small, threads=1, progress=False, **options)
    row = catalog.get("stdlib-10m")
    sizes = row.shape.model_copy(update={"hidden": 256, "layers": 1, "ff": 256, "heads": 4, "kv_heads": 2, "vocab": 512})
    with pytest.raises(BadInput, match="no vocabulary"):
        quality.evaluate(shape.write(row.model_copy(update={"shape": sizes}), "F16", tmp_path), threads=1, progress=False)
    cut = Path(tmp_path / "cut.gguf")
    cut.write_bytes(small.path.read_bytes()[:1_000_000])
    with pytest.raises(BadInput, match="its tensors need"):
        quality.evaluate(ModelRef(name="cut", path=cut, format="gguf"), threads=1, progress=False)


def test_an_engine_without_scores(small, tmp_path):
    with pytest.raises(BadInput, match="gives no scores"):
        quality.evaluate(small, tokens=512, engine="openai", progress=False)
