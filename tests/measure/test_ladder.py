"""The ladder: its rungs, its cache, what a broken run leaves, and when two rungs are tied."""

import json
import shutil

import numpy as np
import pytest

from labkit import engines, models
from labkit.core import machine, paths
from labkit.core.errors import BadInput
from labkit.measure import ladder, quality
from labkit.models import inspect
from labkit.quant import gguf

pytestmark = pytest.mark.usefixtures("cache")
KINDS = ["F16", "Q8_0", "TQ2_0"]


def climb(ref, kinds=KINDS, tokens=512, threads=1, **options):
    return ladder.climb(ref, kinds, tokens, threads, context=256, progress=False, **options)


@pytest.fixture(scope="module")
def rungs(small):
    return climb(small)


def notes():
    return sorted(paths.cache("ladder").glob("*.json"))


def test_the_rungs(small, rungs):
    assert [r.type for r in rungs] == KINDS
    for rung in rungs:
        alone = quality.evaluate(models.resolve(rung.path), quality.text_for(small), 512, 256, small, 1, progress=False)
        assert rung.perplexity == pytest.approx(alone.perplexity, rel=1e-6)
        assert rung.kl_mean == pytest.approx(alone.kl_mean, abs=1e-9)
        assert (rung.top1_agreement, rung.tokens) == (alone.top1_agreement, 512)
        assert rung.bits_per_weight == inspect.read(rung.path).bits_per_weight
        assert rung.bytes == rung.path.stat().st_size
        assert rung.decode_tokens_per_s > 0
        assert rung.memory_bytes > rung.bytes
        assert not rung.cached
        assert np.exp(np.mean(rung.nll)) == pytest.approx(rung.perplexity, rel=1e-5)
    assert (rungs[0].kl_mean, rungs[0].top1_agreement, rungs[0].path) == (0, 1, small.path)
    fields = json.loads(rungs[1].model_dump_json()).keys()
    assert {"type", "bytes", "bits_per_weight", "perplexity", "perplexity_stderr", "kl_mean", "top1_agreement"} <= fields
    assert {"decode_tokens_per_s", "cached"} <= fields
    assert not {"nll", "kl"} & fields


def test_the_second_run_computes_nothing(small, rungs, monkeypatch):
    monkeypatch.setattr(quality, "opened", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(engines, "open", lambda *_: pytest.fail("a model was loaded"))
    again = climb(small)
    assert [r.cached for r in again] == [True] * 3
    assert [r.model_copy(update={"cached": False}) for r in again] == rungs
    assert [r.type for r in climb(small, ["tq2_0", "F16", "TQ2_0"])] == ["TQ2_0", "F16"]


def test_a_run_that_breaks_keeps_what_it_has(small, monkeypatch):
    real, calls = quality.score, []

    def breaks(*words, **options):
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*words, **options)

    before = len(notes())
    kinds = ["Q8_0", "F16", "Q4_0", "TQ2_0"]
    with monkeypatch.context() as patch:
        patch.setattr(quality, "score", breaks)
        with pytest.raises(KeyboardInterrupt):
            climb(small, kinds, tokens=1024)
    assert len(notes()) == before + 2
    assert [p.name for p in paths.cache("ladder").iterdir() if p.suffix != ".json"] == []
    again = climb(small, kinds, tokens=1024)
    assert [(r.type, r.cached) for r in again] == [("Q8_0", True), ("F16", True), ("Q4_0", False), ("TQ2_0", False)]
    assert all(r.decode_tokens_per_s for r in again)


def test_other_tokens_another_text_and_a_broken_note_are_measured(small, rungs):
    assert not climb(small, ["Q8_0"], tokens=256)[0].cached
    assert not climb(small, ["Q8_0"], text=quality.text_for(small)[500:])[0].cached
    for note in notes():
        if "Q8_0" in note.name:
            note.write_text(note.read_text()[:100])
    again = climb(small, ["Q8_0"])[0]
    assert not again.cached
    assert again.perplexity == rungs[1].perplexity


def test_a_speed_belongs_to_a_machine_and_a_thread_count(small, rungs, monkeypatch):
    asked = []
    monkeypatch.setattr(ladder, "_speeds", lambda files, threads, _: asked.append(threads) or dict.fromkeys(files, 5.0))
    assert [r.decode_tokens_per_s for r in climb(small, threads=machine.cores() + 1)] == [5.0] * 3
    monkeypatch.setattr(machine, "fingerprint", lambda: {"id": "another", "isa": []})
    assert [r.decode_tokens_per_s for r in climb(small)] == [5.0] * 3
    assert asked == [machine.cores() + 1, 1]


def test_a_quantized_source_is_compared_with_its_own_16_bits(small, tmp_path):
    shutil.copyfile(gguf.quantize(small, "Q4_1", progress=False).path, tmp_path / "own.gguf")
    found = {r.type: r for r in climb(models.resolve(tmp_path / "own.gguf"), ["F16", "Q4_1"], tokens=256)}
    assert found["F16"].name == "own-F16-from-Q4_1"
    assert found["Q4_1"].name == "own-Q4_1-from-Q4_1"
    assert found["F16"].kl_mean == 0
    assert found["Q4_1"].kl_mean < 1e-3  # the same weights, but for how they are multiplied


@pytest.mark.parametrize(("kinds", "says"), [(["Q9_0"], "no quantization type"), (["IQ2_XS"], "importance matrix"), ([], "needs a rung")])
def test_types_that_cannot_be_had(small, kinds, says):
    with pytest.raises(BadInput, match=says):
        climb(small, kinds)


def rung(kind, nll, kl=None):
    size = len(nll)
    values = {"nll": tuple(nll), "kl": tuple(kl if kl is not None else nll)}
    return ladder.Rung(
        type=kind, name=kind, path="x", bytes=1, bits_per_weight=1, perplexity=float(np.exp(np.mean(nll))), perplexity_stderr=1,
        kl_mean=float(np.mean(values["kl"])), kl_stderr=0.1, top1_agreement=1, tokens=2 * size, scored_tokens=size, memory_bytes=1,
        decode_tokens_per_s=None, cached=False, **values,
    )  # fmt: skip


def test_ties_are_paired():
    rng = np.random.default_rng(3)
    hard = rng.gamma(2, 2, 1000)  # what every rung finds hard
    noise = rng.normal(0, 0.05, (2, 1000))
    rungs = [rung("A", hard), rung("B", hard + noise[0]), rung("C", hard + 0.02 + noise[1])]
    found = {(p["a"], p["b"]): p for p in ladder.tied(rungs)}
    assert found["A", "B"]["tied"]
    assert not found["A", "C"]["tied"]
    gap = found["A", "C"]
    assert gap["difference"] == pytest.approx(np.log(rungs[2].perplexity / rungs[0].perplexity))
    assert gap["stderr"] < 0.1 * hard.std() / np.sqrt(1000)  # two separate errors would call them tied
    assert [p["figure"] for p in ladder.tied(rungs, "kl_mean")] == ["kl_mean"] * 3
    assert ladder.tied([rungs[0], rungs[0]])[0]["tied"]
    with pytest.raises(BadInput, match="different tokens"):
        ladder.tied([rungs[0], rung("D", hard[:10])])
