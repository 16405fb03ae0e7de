"""The commands as contract.md names them: data on stdout, sentences on stderr, exit codes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gguf_factory import write

from labkit import models

LABKIT = str(Path(sys.executable).parent / "labkit")
MODEL = "smollm2-135m"


def labkit(*words, **options):
    return subprocess.run([LABKIT, *map(str, words)], **{"capture_output": True, "text": True, "check": False, "timeout": 300} | options)


def rows(*words):
    done = labkit(*words, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "own.gguf")


def test_chat_streams_text_and_json_prints_one_record():
    done = labkit("chat", MODEL, "Why is the sky blue?", "--max-tokens", 12)
    assert done.returncode == 0
    assert len(done.stdout.split()) > 3
    assert "first token after" in done.stderr
    (record,) = rows("chat", MODEL, "Why is the sky blue?", "--max-tokens", 6, "--threads", 1, "--system", "Be brief.", "--seed", 3)
    assert record["output_tokens"] <= 6
    assert record["threads"] == 1
    assert record["settings"]["seed"] == 3


def test_bench_prints_a_record_a_repeat_for_each_thread_count(tiny):
    found = rows("bench", tiny, "--threads", "1,2", "--prompt-tokens", 20, "--output-tokens", 4, "--repeats", 3)
    assert sorted(r["threads"] for r in found) == [1, 1, 1, 2, 2, 2]
    assert {(r["prompt_tokens"], r["output_tokens"]) for r in found} == {(20, 4)}
    auto = rows("bench", tiny, "--prompt-tokens", 20, "--output-tokens", 4, "--repeats", 2)
    assert len(auto) == 2


def test_bench_over_an_endpoint(tiny):
    found = rows("bench", tiny, "--engine", "openai", "--prompt-tokens", 20, "--output-tokens", 4, "--repeats", 2)
    assert [r["engine"] for r in found] == ["openai"] * 2


def test_footprint_predicts_and_measures(tiny):
    (found,) = rows("footprint", tiny, "--context", 512, "--kv", "q8_0", "--measure")
    assert found["total_bytes"] == found["weights_bytes"] + found["kv_cache_bytes"] + found["compute_bytes"]
    assert found["measured_bytes"] > 0
    (phi,) = rows("footprint", "phi-4-mini", "--context", 4096)
    assert phi["kv_cache_bytes"] == 2**29


def test_models_and_cache(tmp_path):
    listed = rows("models")
    assert {"smollm2-135m", "phi-4-mini"} <= {r["name"] for r in listed}
    (verified,) = rows("models", "verify", MODEL)
    assert verified.keys() == {"path", "sha256", "ok", "why"}
    env = {**__import__("os").environ, "LABKIT_CACHE": str(tmp_path)}
    done = labkit("models", "shape", "gemma3-270m", "--type", "Q4_0", "--json", env=env)
    made = json.loads(done.stdout)
    assert made.keys() == {"path", "sha256", "bytes", "licence"}
    assert Path(made["path"]).stat().st_size == made["bytes"]
    assert json.loads(labkit("models", "rm", "gemma3-270m", "--json", env=env).stdout)["path"] == made["path"]
    assert labkit("cache", "--clean", "--json", env=env).returncode == 0
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_inspect(tiny):
    (found,) = rows("inspect", tiny)
    assert {"architecture", "parameters", "bits_per_weight", "tensors", "metadata"} <= found.keys()
    assert found["tensors"][0].keys() == {"name", "type", "shape", "bytes"}


def test_doctor_lists_every_part():
    found = rows("doctor")
    assert {"llamacpp", "openai", "llama_server", MODEL} <= {r["name"] for r in found}
    assert all({"name", "kind", "ready", "version", "missing", "install"} == r.keys() for r in found)
    assert all(r["ready"] or r["install"] for r in found)


def test_serve_answers_until_it_is_told_to_stop(tiny):
    server = subprocess.Popen([LABKIT, "serve", str(tiny), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = json.loads(server.stdout.readline())
    assert said["base_url"].endswith("/v1")
    assert said["replicas"][0]["pid"] == said["pid"]
    done = labkit("chat", tiny, "hello", "--url", said["base_url"], "--max-tokens", 3, "--json")
    assert json.loads(done.stdout)["engine"] == "openai", done.stderr
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    server.stdout.close()
    server.stderr.close()
    import psutil

    assert not psutil.pid_exists(said["pid"])


@pytest.mark.parametrize("command", [["chat", MODEL, "Tell me a very long story.", "--max-tokens", "1500"], ["serve", MODEL]])
def test_ctrl_c_is_130(command):
    running = subprocess.Popen([LABKIT, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.stdout.read(1)  # it has begun
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    try:
        _out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130, err
    assert "Traceback" not in err


NOTHING = "nothing there"
BAD = [
    ("chat", "smollm2-135mm", "hi"),
    ("chat", MODEL, "hi", "--engine", "lamacpp"),
    ("chat", MODEL, "hi", "--temperature", "-1"),
    ("chat", MODEL, "hi", "--max-tokens", "0"),
    ("chat", MODEL, "hi", "--maxtokens", "5"),
    ("chat", MODEL, "hi", "--url", "http://127.0.0.1:9/v1"),
    ("chat", MODEL),
    ("chat", "phi-4-mini", "hi"),
    ("bench", MODEL, "--threads", "many"),
    ("bench", MODEL, "--repeats", "x"),
    ("bench", "no/such/file.gguf"),
    ("footprint", MODEL, "--kv", "q2"),
    ("footprint", "smollm2-135mm"),
    ("inspect", "pyproject.toml"),
    ("models", "verify", "smollm2-135mm"),
    ("models", "shape", "qwen3-0.6b", "--type", "Q4_9"),
    ("models", "shape", "all-minilm-l6-v2"),
    ("serve", MODEL, "--port", "99999999"),
    ("serve", MODEL, "--server", "lama_server"),
    ("serve", MODEL, "--server", "haproxy"),
    ("serve", MODEL, "--replicas", "0"),
    ("run", "77"),
    ("run", "02", "-p", "modell", "x"),
    ("run", "02", "-p", "threads", "two"),
    ("run", "02", "-p", "model", "smollm2-135mm"),
    ("run", "02", "-p", "threads"),
    ("batch", "no_grid.yaml", "--out", "x"),
    ("report", "no_such_folder"),
    ("nosuchcommand",),
]


@pytest.mark.parametrize("words", BAD, ids=lambda words: " ".join(words))
def test_bad_input_gets_one_sentence_and_exit_code_2(words, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    done = labkit(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["inspect", "footprint", "bench", "chat"])
def test_a_truncated_file_is_named_by_every_command(command, tiny, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Path(tiny).read_bytes()[:-100])
    done = labkit(command, cut, *(["hi"] if command == "chat" else []))
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert "cut.gguf" in done.stderr


def test_a_wrong_checksum_is_exit_code_2(tmp_path):
    original = models.resolve(MODEL).path
    data = bytearray(original.read_bytes())
    data[-5] ^= 1
    changed = tmp_path / original.name
    changed.write_bytes(data)
    done = labkit("models", "verify", changed, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["ok"] is False
    assert "does not match" in done.stderr
