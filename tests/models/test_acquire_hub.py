"""Pulling from the Hub: its official client and our download, against a stand-in of the Hub on loopback."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from labkit import models
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.models import acquire, pulled, store
from labkit.models.sources import http
from labkit.servers.hub_stand_in import HubStandIn, Repo

pytestmark = pytest.mark.usefixtures("own_cache", "only_loopback")

GGUF = b"GGUF" + hashlib.shake_256(b"weights").digest(300_000)
HEADER = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
SAFETENSORS = len(HEADER).to_bytes(8, "little") + HEADER + b"\0" * 8


class Boom:
    """Its pickle calls a function when it is loaded; nobody loads it here."""

    def __reduce__(self):
        return print, ("this ran while the file was being read",)


PICKLE = pickle.dumps({"w": Boom()})


@pytest.fixture
def hub():
    repos = {
        "course/tiny-gguf": Repo({"tiny-Q8_0.gguf": GGUF, "README.md": b"# tiny", "LICENSE": b"MIT"}, "mit"),
        "course/two": Repo({"a-Q4_0.gguf": GGUF, "a-Q8_0.gguf": GGUF + b"8"}, "apache-2.0"),
        "course/folder": Repo(
            {"model.safetensors": SAFETENSORS, "pytorch_model.bin": PICKLE, "config.json": b"{}", "tokenizer.json": b"{}", "m.py": b"1"},
            "other",
        ),
        "course/old": Repo({"pytorch_model.bin": PICKLE, "config.json": b"{}"}),
        "course/disguised": Repo({"model.safetensors": PICKLE, "config.json": b"{}"}),
        "course/gated": Repo({"model.gguf": GGUF}, gated=True),
        "course/unlicensed": Repo({"model.gguf": GGUF}, licence=None),
        "course/climber": Repo({"../../escape.gguf": GGUF}),
        "course/readme": Repo({"README.md": b"nothing here"}),
    }
    with HubStandIn(repos) as service:
        yield service


def pull(hub, name, **options):
    return acquire.pull(name, endpoint=hub.url, **{"accept_licence": True, **options})


def test_a_model_is_pulled_verified_and_found_by_its_name(hub):
    done = pull(hub, "course/tiny-gguf")
    assert done.sha256 == hashlib.sha256(GGUF).hexdigest() == models.resolve("course/tiny-gguf").sha256
    assert (done.licence, done.verified_by, done.bytes) == ("mit", "sha256", len(GGUF) + len(b"MIT"))
    assert done.path.read_bytes() == GGUF
    ref = models.resolve("course/tiny-gguf")
    assert (ref.path, ref.format, ref.licence) == (done.path, "gguf", "mit")
    # again: nothing is fetched that is here
    hub.asked.clear()
    assert pull(hub, "course/tiny-gguf") == done
    assert not any("resolve" in line for line in hub.asked)
    # gone: the name is unknown again
    assert {row["bytes"] for row in store.remove("course/tiny-gguf")} >= {len(GGUF)}
    with pytest.raises(BadInput, match="no file course/tiny-gguf"):
        models.resolve("course/tiny-gguf")
    with pytest.raises(BadInput, match="in the cache"):
        store.remove("course/tiny-gguf")


def test_a_catalogue_name_finds_what_was_pulled_for_it(hub):
    with pytest.raises(MissingPart, match=r"labkit models pull qwen3-0.6b"):
        models.resolve("qwen3-0.6b")
    done = pull(hub, "qwen3-0.6b", repo="course/tiny-gguf")
    assert models.resolve("qwen3-0.6b").path == done.path == models.known_path("qwen3-0.6b")
    assert models.resolve("qwen3-0.6b").name == "qwen3-0.6b"


def test_a_folder_holds_safetensors_and_text_only(hub):
    done = pull(hub, "course/folder")
    assert sorted(path.name for path in done.path.iterdir()) == ["config.json", "labkit.json", "model.safetensors", "tokenizer.json"]
    assert models.resolve("course/folder").format == "hf"
    assert done.licence == "a licence of its own"
    lines = "".join(
        f"{hashlib.sha256((done.path / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("config.json", "model.safetensors", "tokenizer.json")
    )
    assert done.sha256 == hashlib.sha256(lines.encode()).hexdigest()


# -- broken downloads


@pytest.mark.parametrize("cuts", [[0], [1], [3], [len(GGUF) - 1], [70_000], [1, 2, 65_536, 65_537, 299_999]], ids=str)
def test_a_broken_connection_is_resumed_at_the_very_byte(hub, cuts, monkeypatch):
    monkeypatch.setattr(http, "_PAUSE_S", 0.01)
    hub.cuts["tiny-Q8_0.gguf"] = list(cuts)
    assert pull(hub, "course/tiny-gguf").path.read_bytes() == GGUF
    asked = [line.partition("bytes=")[2] for line in hub.asked if "Q8_0" in line]
    assert asked == ["", *("" if cut == 0 else f"{cut}-" for cut in cuts)]


def test_a_download_that_was_given_up_goes_on_in_the_next_process(hub, tmp_path):
    hub.cuts["tiny-Q8_0.gguf"] = [123_457] * (http.ATTEMPTS + 1)
    first = command(hub, tmp_path, "course/tiny-gguf", "--accept-licence", "--json")
    assert (first.returncode, first.stdout) == (1, "")
    assert f"broke at byte 123457 of {len(GGUF)}" in first.stderr
    assert "Traceback" not in first.stderr
    hub.asked.clear()
    second = command(hub, tmp_path, "course/tiny-gguf", "--json")  # the licence was accepted before
    assert second.returncode == 0, second.stderr
    row = json.loads(second.stdout)
    assert sorted(row) == ["bytes", "licence", "path", "sha256"]
    assert row["sha256"] == hashlib.sha256(GGUF).hexdigest()
    assert any(line.endswith("bytes=123457-") for line in hub.asked)


def test_the_rest_of_another_version_is_never_appended(hub, monkeypatch):
    monkeypatch.setattr(http, "_PAUSE_S", 0.01)
    hub.cuts["tiny-Q8_0.gguf"] = [100_000] * (http.ATTEMPTS + 1)
    with pytest.raises(RunFailed, match="goes on where it stopped"):
        pull(hub, "course/tiny-gguf")
    newer = b"GGUF" + GGUF[::-1]
    hub.repos["course/tiny-gguf"].files["tiny-Q8_0.gguf"] = newer
    assert pull(hub, "course/tiny-gguf").path.read_bytes() == newer


@pytest.mark.parametrize(("name", "file"), [("course/tiny-gguf", "tiny-Q8_0.gguf"), ("course/folder", "tokenizer.json")])
def test_a_damaged_file_is_deleted_and_said(hub, name, file):
    hub.damaged.add(file)
    with pytest.raises(RunFailed, match=rf"{file} arrived damaged: its (sha256|git-sha1) is not .* deleted"):
        pull(hub, name)
    folder = pulled.folder_of(name, "hub")
    assert not list(folder.rglob(f"{file}*"))
    with pytest.raises(BadInput):
        models.resolve(name)
    hub.damaged.clear()
    assert pull(hub, name).bytes


def test_a_full_disk_is_said_before_anything_is_fetched(hub, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(10, 9, 1))
    with pytest.raises(BadInput, match="GB are needed"):
        pull(hub, "course/tiny-gguf")
    assert not any("resolve" in line for line in hub.asked)


def test_a_file_that_was_changed_here_is_fetched_again(hub):
    done = pull(hub, "course/tiny-gguf")
    done.path.write_bytes(b"GGUF" + b"x" * (len(GGUF) - 4))
    assert pull(hub, "course/tiny-gguf").path.read_bytes() == GGUF


# -- what is refused


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("course/nothing-of-that-name", {}, BadInput, "has no repository"),
        ("course/old", {}, BadInput, "as pickle only"),
        ("course/old", {"file": "*.bin"}, BadInput, "is a pickle"),
        ("course/folder", {"file": "m.py"}, BadInput, "no model"),
        ("course/disguised", {}, RunFailed, "holds a pickle, whatever its name says.*deleted"),
        ("course/gated", {}, BadInput, "gated.*hf auth login"),
        ("course/two", {}, BadInput, "several models: a-Q4_0.gguf, a-Q8_0.gguf — labkit models pull course/two --file a-Q4_0.gguf"),
        ("course/two", {"file": "*Q5*"}, BadInput, r"has no file \*Q5\* \(it has a-Q4_0.gguf, a-Q8_0.gguf\)"),
        ("course/climber", {}, BadInput, "no safe file name"),
        ("course/readme", {}, BadInput, "no weights that labkit reads"),
        ("course/a/b", {}, BadInput, "no repository's name"),
        ("qwen3-0.6", {}, BadInput, "did you mean qwen3-0.6b"),
        ("stdlib-10m", {}, BadInput, "--from package"),
        ("course/two", {"source": "hubb"}, BadInput, "did you mean hub"),
    ],
)
def test_what_is_refused(hub, own_cache, name, options, error, words):
    with pytest.raises(error, match=words):
        pull(hub, name, **options)
    assert not list(own_cache.rglob("*.bin"))
    assert not list(own_cache.rglob("*.gguf"))
    assert not list(own_cache.rglob("*.safetensors"))


def test_one_of_several_files_is_chosen(hub):
    assert pull(hub, "course/two", file="*Q8_0.gguf").path.read_bytes() == GGUF + b"8"
    assert pull(hub, "course/two", file="*Q4_0.gguf").path.name == "a-Q4_0.gguf"
    assert models.resolve("course/two").path.name == "a-Q4_0.gguf"  # a folder holds one version


def test_no_hub_is_said_with_the_way_out(hub):
    hub.stop()
    with pytest.raises(MissingPart, match=r"cannot be reached.*unbundle"):
        pull(hub, "course/tiny-gguf")


# -- licences


def test_a_licence_is_shown_and_accepted_once(hub, capsys):
    with pytest.raises(BadInput, match=r"comes under mit.*labkit models pull course/tiny-gguf --accept-licence"):
        pull(hub, "course/tiny-gguf", accept_licence=False)
    assert "licence mit (https://huggingface.co/course/tiny-gguf)" in capsys.readouterr().err
    with pytest.raises(BadInput, match="not accepted"):
        pull(hub, "course/tiny-gguf", accept_licence=False, ask=lambda question: False)
    asked = []
    assert pull(hub, "course/tiny-gguf", accept_licence=False, ask=lambda question: not asked.append(question))
    assert asked == ["Have you read and do you accept the licence of course/tiny-gguf?"]
    assert pull(hub, "course/tiny-gguf", accept_licence=False)
    hub.repos["course/tiny-gguf"].licence = "cc-by-nc-4.0"
    with pytest.raises(BadInput, match=r"cc-by-nc-4.0, which was not accepted"):
        pull(hub, "course/tiny-gguf", accept_licence=False)


def test_no_licence_is_no_permission(hub):
    with pytest.raises(BadInput, match="no licence stated: without one you have no right to use it"):
        pull(hub, "course/unlicensed", accept_licence=False)
    assert pull(hub, "course/unlicensed").licence is None


# -- the command


def command(hub, tmp_path, *words):
    env = {**os.environ, "LABKIT_CACHE": str(tmp_path / "cache"), "HF_ENDPOINT": hub.url, "NO_COLOR": "1", "COLUMNS": "200"}
    started = [str(Path(sys.executable).parent / "labkit"), "models", "pull", *words]
    return subprocess.run(started, env=env, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)


def test_the_command_asks_nobody_in_a_script(hub, tmp_path):
    done = command(hub, tmp_path, "course/tiny-gguf")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--accept-licence" in done.stderr.splitlines()[-1]
