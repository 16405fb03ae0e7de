"""The real vLLM on a CPU: on loopback, with its settings, leaving nothing behind; and what is refused before it is started."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx
import psutil
import pytest

from labkit import models, servers
from labkit.core import machine, paths
from labkit.core.errors import BadInput, MissingPart
from labkit.core.records import Message, ModelRef
from labkit.engines import templates
from labkit.servers import vllm

REF = "stdlib-10m"
SMALL = {"context": 256, "threads": 1, "max_num_seqs": 2, "kv_gib": 0.0625, "block_size": 32}


def gone(pids, seconds=60):
    """Have all of them ended? One that is dead and not yet collected by its parent counts as ended."""
    end = time.monotonic() + seconds
    while any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def shared():
    """The files in the machine's shared memory that Python's multiprocessing makes: a killed program can leave such files for ever."""
    return {path for pattern in ("sem.mp-*", "psm_*") for path in Path("/dev/shm").glob(pattern)}


def test_it_keeps_to_loopback_and_its_settings_and_a_killed_one_leaves_nothing():
    before = shared()
    server = servers.open("vllm").start(models.resolve(REF), **SMALL)
    tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    try:
        assert len(tree) > 1, "the engine is a process of its own"
        listening = {c.laddr.ip for p in tree for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        row = httpx.get(f"{server.base_url}/models", timeout=30).json()["data"][0]
        assert (row["id"], row["max_model_len"]) == (REF, SMALL["context"])
        metrics = httpx.get(f"{server.url}/metrics", timeout=30).text
        config = next(line for line in metrics.splitlines() if line.startswith("vllm:cache_config_info"))
        assert f'block_size="{SMALL["block_size"]}"' in config
        assert 'enable_prefix_caching="True"' in config
        seen = tree[0].environ()  # the engine's own title lies where its environment was
        assert {seen[name] for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE")} == {"1"}
        assert seen["TMPDIR"] == str(server.folder)
    finally:
        server.process.kill()
        server.stop()
    assert gone([p.pid for p in tree])
    assert not server.folder.exists()
    assert shared() <= before


def test_it_does_not_outlive_a_killed_parent():
    code = (
        "import os, psutil, signal\nfrom labkit import models, servers\n"
        f"r = servers.open('vllm').start(models.resolve({REF!r}), **{SMALL!r})\n"
        "print(r.folder, r.pid, *(p.pid for p in psutil.Process(r.pid).children(recursive=True)), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder, *pids = done.stdout.split()
    assert gone(map(int, pids))
    end = time.monotonic() + 20
    while Path(folder).exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(folder).exists()


def test_its_flags_are_those_of_this_version():
    known = tomllib.loads(paths.data("lint", "vllm.toml").read_text(encoding="utf-8"))
    assert servers.open("vllm").version() == f"{known['version']}+cpu"
    for chosen in (vllm.Options(), vllm.Options(prefix_caching=False, chunked_prefill=False, max_num_batched_tokens=4096)):
        given = {word.removeprefix("--").removeprefix("no-") for word in vllm.flags(chosen) if word.startswith("--")}
        assert given <= set(known["flags"])
    assert "--no-enable-prefix-caching" in vllm.flags(vllm.Options(prefix_caching=False))
    assert "--enforce-eager" not in vllm.flags(vllm.Options(eager=False))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"contxt": 1}, "did you mean context"),
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"block_size": 48}, "multiple of 32"),
        ({"context": 4096}, "at most 1024 tokens.*context=1024"),
        ({"chunked_prefill": False, "context": 256, "max_num_batched_tokens": 64}, "hold a whole prompt.*max_num_batched_tokens=256"),
        ({"context": 256, "kv_gib": 4096.0}, "GiB are free.*kv_gib"),
    ],
)
def test_options_are_checked_before_anything_starts(options, words):
    with pytest.raises(BadInput, match=words):
        servers.open("vllm").start(models.resolve(REF), **options)


def test_what_is_not_a_model_for_it_is_refused(monkeypatch):
    with pytest.raises(BadInput, match="reads Hugging Face folders and GGUF files"):
        servers.open("vllm").command(ModelRef(name="x", path="x", format="onnx-genai"), 1, {})
    monkeypatch.setenv("LABKIT_WITHOUT", "hf")
    with pytest.raises(MissingPart, match=r"after it was unpacked.*--extra hf"):
        servers.open("vllm").command(models.resolve(REF), 1, {})


def test_memory_is_weights_in_the_chosen_type_and_the_cache_and_the_programs():
    folder = vllm.as_hf(models.resolve(REF)).path
    half, full = (vllm.needed_bytes(folder, vllm.Options(dtype=kind, kv_gib=1)) for kind in ("bfloat16", "float32"))
    weights = (folder / "model.safetensors").stat().st_size
    assert full == vllm.PROGRAM_BYTES + weights + 2**30
    assert full - half == weights - weights // 2


def test_a_model_without_a_chat_template_gets_its_texts_as_labkits_engines_give_them():
    command = servers.open("vllm").command(models.resolve(REF), 1, {"context": 256, "kv_gib": 0.0625})
    given = command[command.index("--chat-template") + 1]
    said = [Message(role="system", content="Be short."), Message(role="user", content="Hello {{ you }}")]
    assert templates.render(given, said) == templates.plain(said)


def test_a_folder_whose_path_is_too_long_for_a_socket_is_said():
    assert vllm.SERVER.environment(1, Path("/tmp/labkit-vllm-12345678"))
    with pytest.raises(BadInput, match="a path too long"):
        vllm.SERVER.environment(1, Path("/" + 80 * "x"))


def test_threads_are_all_cores_unless_given_and_nothing_is_asked_of_the_network(short_folder):
    server = servers.open("vllm")
    assert server.settings({})["OMP_NUM_THREADS"] == str(machine.cores())
    assert server.settings({"threads": 3})["OMP_NUM_THREADS"] == "3"
    given = server.environment(1, short_folder)
    assert {given[name] for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")} == {"1"}
    assert {given[name] for name in ("TMPDIR", "HF_HOME", "VLLM_CONFIG_ROOT")} == {str(short_folder)}
    assert os.access(given["VLLM_CACHE_ROOT"], os.W_OK)
