"""`labkit load` as contract.md names it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from labkit.measure import load
from labkit.servers import echo

LABKIT = str(Path(sys.executable).parent / "labkit")
COUNTS = {"ok", "refused", "error", "cut", "timeout"}


@pytest.fixture(scope="module")
def url():
    with echo.start(ttft_s=0.02, tpot_s=0.005) as running:
        yield running.base_url


def labkit(*words, **options):
    return subprocess.run([LABKIT, "load", *map(str, words)], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("how", [("--rate", 20), ("--concurrency", 3)], ids=str)
def test_json_prints_one_summary(url, how):
    done = labkit(url, "--model", "echo", *how, "--seconds", 2, "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert COUNTS | {"ttft_s", "tpot_s", "e2e_s", "tokens_per_s", "goodput_per_s"} <= found.keys()
    assert sum(found[name] for name in COUNTS) == found["n"] == found["ok"] > 10
    for key in ("ttft_s", "tpot_s", "e2e_s"):
        assert 0 < found[key]["p50"] <= found[key]["p95"] <= found[key]["p99"]
        assert found[key]["n"] == found["ok"]
    assert found["machine"]["cores"] >= 1


def test_people_get_a_table(url, tmp_path):
    (tmp_path / "times").write_text("0\n0.1\n0.2\n")
    done = labkit(
        url, "--model", "echo", "--trace", tmp_path / "times", "--output-tokens", 4, "--ttft", 5, "--out", tmp_path / "runs.jsonl"
    )
    assert done.returncode == 0, done.stderr
    assert "first token" in done.stdout
    assert "3 ok" in done.stderr
    (run,) = load.read(tmp_path / "runs.jsonl")
    assert (len(run.outcomes), run.plan.kind, run.plan.slo.ttft_s) == (3, "trace", 5)


def test_exit_code_1_when_nothing_was_answered(url):
    done = labkit(url, "--model", "echo:503", "--rate", 10, "--requests", 3, "--json")
    assert (done.returncode, json.loads(done.stdout)["refused"]) == (1, 3)
    assert "planted 503" in done.stderr
    assert "Traceback" not in done.stderr


BAD = [
    ("--rate", 1, "--concurrency", 1, "--seconds", 1),
    ("--seconds", 1),
    ("--rate", 1),
    ("--rate", -1, "--seconds", 1),
    ("--rate", 1, "--seconds", 1, "--arrivals", "bursts"),
    ("--rate", "fast", "--seconds", 1),
    ("--trace", "no_such_file"),
    ("--trace", "words.txt"),
    ("--rate", 1, "--seconds", 1, "--ca", "no_such_file"),
    ("--rate", 1, "--seconds", 1, "--ttft", 0),
]


@pytest.mark.parametrize("words", BAD, ids=lambda words: " ".join(map(str, words)))
def test_bad_input_gets_one_sentence(words, url, tmp_path):
    (tmp_path / "words.txt").write_text("soon\n")
    done = labkit(url, "--model", "echo", *words, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines()), done.stdout) == (2, 1, ""), done.stderr


@pytest.mark.parametrize("where", ["http://example.org/v1", "http://127.0.0.1:9/v1"])
def test_elsewhere_and_nobody_there(where):
    done = labkit(where, "--model", "m", "--rate", 1, "--seconds", 1)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr


def test_ctrl_c_is_130_and_keeps_what_was_finished(url, tmp_path):
    words = [LABKIT, "load", url, "--model", "echo", "--rate", "20", "--seconds", "200", "--json", "--out", str(tmp_path / "runs.jsonl")]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process, end = psutil.Process(running.pid), time.monotonic() + 120
    while not [c for c in process.net_connections() if c.status == psutil.CONN_ESTABLISHED] and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(3)  # sixty requests
    running.send_signal(signal.SIGINT)
    try:
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130, err
    assert "Traceback" not in err
    found = json.loads(out)
    assert found["interrupted"]
    assert found["ok"] > 5
    (run,) = load.read(tmp_path / "runs.jsonl")
    assert run.interrupted
    assert len(run.outcomes) == found["n"]
