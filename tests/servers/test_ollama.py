"""The real Ollama: on loopback, with a store of its own that goes; what the engine leaves on an Ollama that is not ours."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from labkit import engines, measure, models, servers
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import ModelRef, Request
from labkit.servers import ollama

REF = "stdlib-10m"


@pytest.fixture(scope="module")
def running():
    with servers.open("ollama").start(models.resolve(REF), context=256, parallel=2, threads=1) as server:
        yield server


def gone(pid, seconds=30):
    end = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def test_it_listens_on_loopback_keeps_to_its_folder_and_leaves_nothing():
    home = Path.home() / ".ollama"
    before = sorted(home.rglob("*")) if home.exists() else None
    with servers.open("ollama").start(models.resolve(REF), context=256, parallel=1) as server:
        listening = [c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert set(listening) == {"127.0.0.1"}
        httpx.post(server.url + "/api/generate", json={"model": REF, "prompt": "def", "options": {"num_predict": 2}}, timeout=60)
        children = [p.pid for p in psutil.Process(server.pid).children(recursive=True)]
        assert children, "a process for the model"
        assert (server.folder / "models").is_dir()
    assert all(gone(pid) for pid in [server.pid, *children])
    assert not server.folder.exists()
    assert (sorted(home.rglob("*")) if home.exists() else None) == before


def test_a_killed_server_leaves_no_children():
    server = servers.open("ollama").start(models.resolve(REF), context=256, parallel=1)
    httpx.post(server.url + "/api/generate", json={"model": REF, "prompt": "def", "options": {"num_predict": 2}}, timeout=60)
    children = [p.pid for p in psutil.Process(server.pid).children(recursive=True)]
    server.process.kill()
    server.stop()
    assert children
    assert all(gone(pid) for pid in children)
    assert not server.folder.exists()


def test_it_does_not_outlive_a_killed_parent():
    code = (
        "import os, signal\nfrom labkit import models, servers\n"
        f"r = servers.open('ollama').start(models.resolve({REF!r}), context=256, parallel=1)\n"
        "print(r.pid, r.folder, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid, folder = done.stdout.split()
    assert done.returncode == -signal.SIGKILL
    assert gone(int(pid))
    end = time.monotonic() + 20
    while Path(folder).exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(folder).exists()


def test_its_settings_reach_the_loaded_model(running):
    httpx.post(running.url + "/api/generate", json={"model": REF, "prompt": "def", "options": {"num_predict": 2}}, timeout=60)
    row = httpx.get(running.url + "/api/ps").json()["models"][0]
    assert row["context_length"] == 256
    shown = httpx.post(running.url + "/api/show", json={"model": REF}).json()
    assert "num_thread" in shown["parameters"]
    assert servers.open("ollama").version() == ollama.answers(running.url)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"contxt": 1}, "did you mean context"), ({"parallel": 0}, "parallel"), ({"kv": "q8_0"}, "flash attention")],
)
def test_options_are_checked_before_anything_starts(options, words):
    with pytest.raises(BadInput, match=words):
        servers.open("ollama").start(models.resolve(REF), **options)


def test_a_file_that_ollama_does_not_read_gets_its_words(running, tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"no model" * 20)  # behind a good magic number it would take any bytes
    with pytest.raises(RunFailed, match="made no model"):
        ollama.create(running.url, "bad", bad)
    assert "bad" not in ollama.names(running.url)
    with pytest.raises(BadInput, match="reads GGUF"):
        servers.open("ollama").start(ModelRef(name="x", path=tmp_path, format="hf"))


# -- the engine on an Ollama that is not its own


def ask(session, **options):
    return measure.one(session, Request(prompt="def area(self):", **{"max_tokens": 4, **options}))


def test_a_file_gets_a_name_of_ours_that_goes_with_the_session(running):
    other = models.resolve("smollm2-135m")
    with engines.open("ollama").load(other, url=running.base_url, context=256) as session:
        assert session.remote_name.startswith("labkit-smollm2-135m-")
        assert session.remote_name in ollama.names(running.url)
        assert ask(session).output_tokens
        assert session.load_s > 0
    assert ollama.names(running.url) == [REF]


def test_the_same_file_under_its_own_name_is_used_and_stays(running):
    with engines.open("ollama").load(models.resolve(REF), url=running.url, context=256, threads=1) as session:
        assert session.remote_name == REF
        found = ask(session)
        assert (found.settings["ollama"], found.threads, found.engine_version) == ("given", 1, ollama.answers(running.url))
    assert ollama.names(running.url) == [REF]


def test_what_a_killed_process_left_is_swept(running):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = f"labkit-old-p{dead.pid}-abcdef"
    ollama.create(running.url, left, models.resolve(REF).path)
    mine = f"labkit-old-p{os.getpid()}-abcdef"
    ollama.create(running.url, mine, models.resolve(REF).path)
    engines.open("ollama").load(models.resolve("smollm2-135m"), url=running.url, context=256).close()
    assert left not in ollama.names(running.url)
    assert mine in ollama.names(running.url), "its process lives"
    ollama.delete(running.url, mine)


def test_the_users_running_ollama_is_found_by_its_address(running, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", running.url.removeprefix("http://"))
    ref = ModelRef(name=REF, path=Path(REF), format="endpoint")
    with engines.open("ollama").load(ref, context=256) as session:
        assert session.url == running.url
        assert ask(session).output_tokens
    assert running.alive()
    with pytest.raises(BadInput, match=f"has no model 'other', it has: {REF}"):
        engines.open("ollama").load(ref.model_copy(update={"name": "other"}))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0:9", "http://127.0.0.1:9"),
        (":9", "http://127.0.0.1:9"),
        ("box", "http://box:11434"),
        ("https://box/", "https://box:443"),
        ("[::1]:9", "http://[::1]:9"),
    ],
)
def test_addresses_are_read_as_ollama_reads_them(given, url):
    assert ollama.address(given) == url


def test_no_ollama_answers():
    with pytest.raises(MissingPart, match="no Ollama answers"):
        engines.open("ollama").load(models.resolve(REF), url=f"http://127.0.0.1:{servers.base.free_port()}")
    with pytest.raises(BadInput, match="valid port"):
        ollama.address("127.0.0.1:high")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(tokens=(1, 2)), "token ids"),
        (Request(prompt="x", ignore_eos=True), "ignore_eos"),
        (Request(prompt=""), "empty"),
    ],
    ids=["token ids", "ignore_eos", "empty"],
)
def test_what_the_api_cannot_do_is_refused(running, request_, words):
    with engines.open("ollama").load(models.resolve(REF), url=running.url, context=256) as session, pytest.raises(BadInput, match=words):
        session.stream(request_)


def test_greedy_text_is_llama_cpps(running):
    """The same weights, the same raw prompt, no penalty: the first tokens agree with llama.cpp in this process."""
    with engines.open("ollama").load(models.resolve(REF), url=running.url, context=256) as session:
        theirs = ask(session, max_tokens=3)
    with engines.open("llamacpp").load(models.resolve(REF), context=256, threads=1) as session:
        ours = ask(session, max_tokens=3)
    assert theirs.prompt_tokens == ours.prompt_tokens
    assert theirs.text[:4] == ours.text[:4]
