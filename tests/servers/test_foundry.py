"""Foundry Local's web service in a child process: what it serves, what it refuses, and that nothing of it stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from labkit import engines, measure, models, servers
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import ModelRef, Request
from labkit.measure import bench
from labkit.servers import foundry


def small(**options):
    return servers.open("foundry").start(models.resolve("stdlib-10m"), **options)


@pytest.fixture(scope="module")
def running():
    with small(context=256, threads=1) as found:
        yield found


def ask(running, model=None, **options):
    client = openai.OpenAI(base_url=running.base_url, api_key="none", max_retries=0)
    said = [{"role": "user", "content": "def area("}]
    return client.chat.completions.create(model=model or "stdlib-10m-generic-cpu:1", messages=said, **{"max_tokens": 4, **options})


def test_the_official_client_gets_an_answer_on_loopback_only(running):
    answer = ask(running)
    assert answer.usage.completion_tokens == 4
    listening = [c.laddr.ip for c in psutil.Process(running.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert set(listening) == {"127.0.0.1"}
    assert running.base_url.endswith("/catalogs/local/v1")
    assert foundry.load_s(running) > 0


def test_its_process_sends_no_telemetry(running):
    assert psutil.Process(running.pid).environ()["CI"] == "true"


@pytest.mark.parametrize("name", ["stdlib-10m", "stdlib-10m-generic-cpu", "nobody:1"], ids=["its alias", "no version", "unknown"])
def test_only_the_whole_id_is_known_over_http(running, name):
    with pytest.raises(openai.NotFoundError):
        ask(running, name)


def test_it_has_no_metrics_and_no_plain_completions(running):
    assert {httpx.get(running.url + path).status_code for path in ("/metrics", "/api/metrics", "/health")} == {404}
    assert httpx.post(running.base_url + "/completions", json={"prompt": "x"}).status_code == 404


def test_what_the_folder_must_say_itself_is_said_beside_it(tmp_path):
    source = foundry.as_onnx(models.resolve("stdlib-10m")).path
    before = (source / foundry.CONFIG).read_text()
    made = foundry.configured(source, tmp_path / "model", threads=1, context=64, ignore_eos=True)
    config = json.loads((made / foundry.CONFIG).read_text())
    assert config["model"]["decoder"]["session_options"]["intra_op_num_threads"] == 1
    assert config["search"]["max_length"] == config["search"]["min_length"] == config["model"]["context_length"] == 64
    assert (made / "model.onnx.data").resolve() == (source / "model.onnx.data").resolve()
    assert (source / foundry.CONFIG).read_text() == before, "the model's own folder is not touched"


def test_a_text_longer_than_the_context_is_told_so(running):
    session = engines.open("foundry").load(models.resolve("stdlib-10m"), url=running.base_url)
    with pytest.raises(RunFailed, match="maximum context length of 256"):
        measure.one(session, Request.chat("x = 1\n", max_tokens=300))
    session.close()


def test_a_session_that_goes_on_past_the_end():
    with engines.open("foundry").load(models.resolve("stdlib-10m"), ignore_eos=True, context=128) as session:
        assert measure.one(session, Request.chat("def f(x):\n    return x\n", max_tokens=100, ignore_eos=True)).output_tokens == 100
        assert session.load_s > 0
        assert session.has_chat_template is False


def test_a_benchmark_sends_messages_of_the_wanted_length():
    rows = bench.bench(engines.open("foundry"), models.resolve("stdlib-10m"), prompt_tokens=40, output_tokens=8, repeats=2)
    assert len(rows) == 2
    assert all(30 < row.prompt_tokens < 120 and 1 <= row.output_tokens <= 8 for row in rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"thread": 1}, "did you mean threads"),
        ({"context": "long"}, "option context of foundry"),
        ({"context": 10**6}, "trained for 1024 tokens"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(BadInput, match=words):
        small(**options)


def test_folders_that_it_cannot_read(tmp_path):
    with pytest.raises(BadInput, match="reads ONNX GenAI folders"):
        servers.open("foundry").start(ModelRef(name="x", path=tmp_path, format="mlx"))
    with pytest.raises(BadInput, match=r"no readable genai_config\.json"):
        servers.open("foundry").start(ModelRef(name="x", path=tmp_path, format="onnx-genai"))


def test_a_model_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr("labkit.core.machine.memory_available_bytes", lambda: 1000)
    with pytest.raises(BadInput, match="GB are free"):
        small()


def test_a_missing_sdk_names_the_command(monkeypatch):
    monkeypatch.setenv("LABKIT_WITHOUT", "foundry")
    assert servers.open("foundry").missing().endswith("uv sync --inexact --extra foundry")
    for load in (small, lambda: engines.open("foundry").load(models.resolve("stdlib-10m"))):
        with pytest.raises(MissingPart, match="--extra foundry"):
            load()


def test_a_service_behind_a_url_keeps_its_own_settings(running):
    with pytest.raises(BadInput, match="runs with its own threads"):
        engines.open("foundry").load(models.resolve("stdlib-10m"), url=running.base_url, threads=2)


def test_no_service_answers():
    with pytest.raises(MissingPart, match="--server foundry"):
        engines.open("foundry").load(models.resolve("stdlib-10m"), url=f"http://127.0.0.1:{servers.base.free_port()}/v1")


# -- nothing stays behind


def test_stopped_or_killed_its_registration_goes_with_it():
    with small() as stopped:
        folder = stopped.folder
        assert (folder / "cache").is_dir(), "the registration is in its own folder"
    assert not folder.exists()
    killed = small()
    killed.process.kill()
    killed.stop()
    assert not killed.folder.exists()


def test_a_parent_that_is_killed_leaves_no_service_and_no_folder():
    code = (
        "import os, signal\nfrom labkit import models, servers\n"
        "r = servers.open('foundry').start(models.resolve('stdlib-10m'))\n"
        "print(r.pid, r.folder, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid, folder = done.stdout.split()
    end = time.monotonic() + 30
    while Path(folder).exists() or (psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE):
        assert time.monotonic() < end, "still there"
        time.sleep(0.2)


def test_the_command_line_chats_and_serves_and_ctrl_c_leaves_nothing(tmp_path):
    labkit, environment = Path(sys.executable).parent / "labkit", os.environ | {"TMPDIR": str(tmp_path)}
    words = [labkit, "serve", "stdlib-10m", "--server", "foundry", "--json"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        served = json.loads(child.stdout.readline())
        assert list(tmp_path.glob("labkit-foundry-*"))
        chat = [labkit, "chat", "stdlib-10m", "def f(", "--engine", "foundry", "--url", served["base_url"], "--max-tokens", "4", "--json"]
        record = json.loads(subprocess.run(chat, env=environment, capture_output=True, text=True, check=True).stdout)
        assert (record["engine"], record["output_tokens"]) == ("foundry", 4)
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 130
        assert b"Traceback" not in child.stderr.read()
    assert not list(tmp_path.glob("labkit-foundry-*"))
    assert not psutil.pid_exists(served["pid"])
