"""quantize, evaluate and ladder as contract.md names them."""

import json
import math

import pytest

from labkit import models
from labkit.cli import run
from labkit.core import machine
from labkit.models import inspect

MODEL = "stdlib-10m"
QUANTIZED = {"path", "type", "bytes", "bits_per_weight", "sha256", "source_sha256"}
RUNG = {"type", "bytes", "bits_per_weight", "perplexity", "perplexity_stderr", "kl_mean", "top1_agreement", "decode_tokens_per_s", "cached"}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COLUMNS", "120")
        patch.setattr(machine, "cores", lambda: 1)  # on a busy machine, threads wait for each other
        yield


@pytest.fixture
def rows(capsys):
    def call(*words):
        assert run([*map(str, words), "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def test_quantize(rows, tmp_path, capsys):
    found = rows("quantize", MODEL, "q4_0", "F16", "Q4_0", "--out", tmp_path / "out")
    assert [row["type"] for row in found] == ["Q4_0", "F16"]
    for row in found:
        assert row.keys() == QUANTIZED
        header = inspect.read(row["path"])
        assert (row["bytes"], row["bits_per_weight"]) == (header.file_bytes, header.bits_per_weight)
        assert row["sha256"] == models.sha256_of(header.path)
        assert row["source_sha256"] == models.sha256_of(models.resolve(MODEL).path)
        assert run(["models", "verify", row["path"]]) == 0
    assert "sha256 is the one in" in capsys.readouterr().err
    assert run(["quantize", MODEL, "Q4_0"]) == 0
    assert "bits per weight" in capsys.readouterr().out


def test_evaluate(rows, tmp_path, capsys):
    (found,) = rows("evaluate", MODEL, "--tokens", 600, "--context", 256)
    assert found.keys() == {"perplexity", "perplexity_stderr", "tokens", "scored_tokens"}
    assert found["tokens"] == 512
    assert found["scored_tokens"] == 2 * 127
    (made,) = rows("quantize", MODEL, "Q4_0")
    own = tmp_path / "own.txt"
    own.write_text("def f(x):\n    return x + 1\n" * 40, encoding="utf-8")
    (found,) = rows("evaluate", made["path"], "--against", MODEL, "--text", own, "--tokens", 128, "--context", 64, "--engine", "llamacpp")
    assert {"kl_mean", "kl_stderr", "top1_agreement"} <= found.keys()
    assert found["kl_mean"] > 0
    assert math.isfinite(found["perplexity"])
    assert run(["evaluate", made["path"], "--against", MODEL, "--tokens", "64", "--context", "64"]) == 0
    out = capsys.readouterr().out
    assert "KL divergence from stdlib-10m" in out
    assert "one standard error" in out


def test_ladder(rows, capsys):
    words = ("ladder", MODEL, "--types", "F16,Q8_0,TQ2_0", "--tokens", 512)
    first, second = rows(*words), rows(*words)
    assert [row["type"] for row in first] == ["F16", "Q8_0", "TQ2_0"]
    assert all(row.keys() >= RUNG for row in first)
    assert [row["cached"] for row in first + second] == [False] * 3 + [True] * 3
    assert [row | {"cached": False} for row in second] == first
    assert run([*map(str, words)]) == 0
    found = capsys.readouterr()
    assert "tied with" in found.out
    assert "Tied: on this text" in found.err
    assert "its F16 copy" not in found.err


def test_a_quantized_file_says_what_its_f16_is(tmp_path, capsys, rows):
    (made,) = rows("quantize", MODEL, "Q4_1", "--out", tmp_path / "out")
    assert run(["ladder", made["path"], "--types", "F16", "--tokens", "512"]) == 0
    assert "The file is Q4_1: its F16 copy" in capsys.readouterr().err


def test_inspect_shows_what_the_bytes_are_for(capsys, rows):
    assert run(["inspect", MODEL]) == 0
    assert "embedding and output" in capsys.readouterr().out
    header = inspect.read(models.resolve(MODEL).path)
    assert sum(header.kinds.values()) == header.tensor_bytes
    assert header.kinds == {
        "feed-forward": 2 * 4 * 3 * 512 * 768,
        "attention": 2 * 4 * (2 * 512 * 512 + 2 * 512 * 128),
        "embedding and output": 2 * 4096 * 512,
        "norms": 4 * 9 * 512,
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["quantize", MODEL, "Q9_9"], "no quantization type"),
        (["quantize", MODEL, "IQ1_M"], "importance matrix"),
        (["quantize", MODEL], "Missing argument"),
        (["quantize", "stdlib-10n", "Q4_0"], "did you mean stdlib-10m"),
        (["quantize", "no/such.gguf", "Q4_0"], "no file"),
        (["quantize", MODEL, "Q4_0", "Q9_9"], "no quantization type"),
        (["evaluate", MODEL, "--tokens", "10"], "greater than or equal to 32"),
        (["evaluate", MODEL, "--tokens", "100"], "100 tokens are asked for"),
        (["evaluate", MODEL, "--context", "4096", "--tokens", "5000"], "at most 1024"),
        (["evaluate", MODEL, "--text", "no/such.txt"], "cannot read"),
        (["evaluate", MODEL, "--text", "SHORT"], "a window has 512"),
        (["evaluate", MODEL, "--text", "BINARY"], "no UTF-8 text"),
        (["evaluate", MODEL, "--text", "FOLDER"], "cannot read"),
        (["evaluate", MODEL, "--against", "zzz"], "zzz"),
        (["evaluate", MODEL, "--engine", "lamacpp"], "did you mean llamacpp"),
        (["evaluate", "CUT"], "its tensors need"),
        (["ladder", MODEL, "--types", "F16,Q9_9"], "no quantization type"),
        (["ladder", MODEL, "--types", ","], "needs a rung"),
        (["ladder", MODEL, "--types", "F16", "--tokens", "511"], "511 tokens are asked for"),
    ],
)
def test_one_sentence_and_exit_code_2(words, says, tmp_path, capsys):
    (tmp_path / "short.txt").write_text("x = 1\n")
    (tmp_path / "binary.txt").write_bytes(b"abc \xff\xfe")
    (tmp_path / "cut.gguf").write_bytes(models.resolve(MODEL).path.read_bytes()[:500_000])
    files = {"SHORT": "short.txt", "BINARY": "binary.txt", "FOLDER": ".", "CUT": "cut.gguf"}
    assert run([str(tmp_path / files[word]) if word in files else word for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    sentence = captured.err.strip().splitlines()[-1]
    assert says in sentence
    assert "Traceback" not in captured.err
