"""Runtimes: found in order, installed whole or not at all, quick to give a way up, removed; with stand-ins for the downloads."""

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.servers import runtimes
from labkit.servers.base import free_port
from labkit.servers.runtimes import fetch
from labkit.servers.runtimes.base import NotThisWay, Runtime
from labkit.servers.stand_in import StandIn, sha256

PROGRAM = "#!/bin/sh\necho client version is 9.9.9\n"


class Tool(Runtime):
    """A runtime whose ways are a test's."""

    name, program, elsewhere = "labkit-test-tool", "bin/tool", "get it yourself"
    version = "1.0"
    tries = ()

    def ways(self):
        return list(self.tries)

    def version_of(self, program):
        return "1.0" if program.is_file() and "version" in program.read_text() else None


def fills(text=PROGRAM):
    def fill(folder, say):
        (folder / "bin").mkdir()
        (folder / "bin" / "tool").write_text(text)

    return fill


def refuses(folder, say):
    (folder / "half").write_text("what was fetched so far")
    raise NotThisWay("there is no network")


@pytest.fixture
def tool(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    return Tool()


def left(tmp_path):
    return sorted(p.name for p in (tmp_path / "runtimes").iterdir() if not p.name.endswith(".lock"))


def test_the_next_way_is_tried_and_what_was_half_done_goes(tool, tmp_path):
    tool.tries = [("a download", refuses), ("a build", fills())]
    said = []
    found = tool.install(said.append)
    assert (found.version, found.how) == ("1.0", "in labkit's cache")
    assert left(tmp_path) == ["labkit-test-tool-1.0"]
    assert any("no network" in line for line in said)
    assert tool.missing() is None
    tool.tries = []
    assert tool.install(said.append) == found, "what is here stays"


@pytest.mark.parametrize("last", [refuses, fills("does not run")])
def test_where_no_way_works_all_reasons_are_said_and_nothing_stays(tool, tmp_path, last):
    tool.tries = [("a download", refuses), ("a build", last)]
    with pytest.raises(RunFailed, match=r"a download: there is no network; a build: .*get it yourself"):
        tool.install(lambda _: None)
    assert left(tmp_path) == []
    assert tool.missing().endswith(": labkit runtimes install labkit-test-tool")
    with pytest.raises(MissingPart, match="labkit runtimes install"):
        tool.require()


def test_an_interrupted_install_leaves_nothing(tool, tmp_path):
    def interrupted(folder, say):
        fills()(folder, say)
        raise KeyboardInterrupt

    tool.tries = [("a build", interrupted), ("another", fills())]
    with pytest.raises(KeyboardInterrupt):
        tool.install(lambda _: None)
    assert left(tmp_path) == []


def test_two_installs_at_once_do_it_once(tool):
    count = []

    def slow(folder, say):
        count.append(1)
        time.sleep(0.3)
        fills()(folder, say)

    tool.tries = [("a build", slow)]
    both = [threading.Thread(target=tool.install, args=(lambda _: None,)) for _ in range(2)]
    [t.start() for t in both]
    [t.join() for t in both]
    assert len(count) == 1


def test_one_on_path_comes_first_and_is_not_ours_to_remove(tool, tmp_path, monkeypatch):
    tool.tries = [("a build", fills())]
    tool.install(lambda _: None)
    own = tmp_path / "elsewhere" / tool.name
    own.parent.mkdir()
    own.write_text(PROGRAM)
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(own.parent), prepend=os.pathsep)
    assert tool.find().how == "on PATH"
    assert tool.remove() == tool.folder()
    assert tool.find().path == own
    assert tool.remove() is None


# -- downloads


def archive(members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, kind in members.items():
            entry = tarfile.TarInfo(name)
            if kind == "link":
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(entry)
            else:
                entry.size = len(kind)
                tar.addfile(entry, io.BytesIO(kind))
    return raw.getvalue()


def get(data, folder, wanted=lambda name: True, digest=None):
    with StandIn({"/a.tgz": data}) as service:
        fetch.archive(f"{service.url}/a.tgz", digest or sha256(data), len(data), folder, wanted, lambda _: None)


def test_an_archive_is_compared_and_only_what_is_wanted_is_unpacked(tool, tmp_path):
    data = archive({"x/bin/tool": b"tool", "x/cuda/big": b"big"})
    get(data, tmp_path / "out", lambda name: "/cuda" not in name)
    assert [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["x/bin/tool"]
    with pytest.raises(RunFailed, match="damaged"):
        get(data, tmp_path / "other", digest="0" * 64)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("bad", [{"../out.txt": b"x"}, {"/tmp/labkit-absolute": b"x", "../b": b"x"}, {"a": "link"}])
def test_an_archive_cannot_write_outside(tool, tmp_path, bad):
    with pytest.raises(NotThisWay, match="cannot be unpacked"):
        get(archive(bad), tmp_path / "in" / "out")
    assert not [p for p in tmp_path.rglob("*") if p.name in ("out.txt", "b", "passwd")]


@pytest.mark.parametrize(
    "url", [f"http://127.0.0.1:{free_port()}/a.tgz", "http://no-such-host.invalid/a.tgz"], ids=["no server", "no name"]
)
def test_a_dead_network_gives_up_within_seconds(tool, tmp_path, url):
    start = time.monotonic()
    with pytest.raises(NotThisWay, match="cannot be reached"):
        fetch.archive(url, "0" * 64, None, tmp_path / "out", lambda name: True, lambda _: None)
    assert time.monotonic() - start < 2 * fetch.CONNECT_S


def test_a_long_command_says_that_it_is_alive_and_how_it_failed(monkeypatch):
    monkeypatch.setattr(fetch, "_TICK_S", 0.1)
    said = []
    words = [sys.executable, "-c", "import time, sys; time.sleep(0.5); sys.exit('no such module')"]
    with pytest.raises(NotThisWay, match="it failed: no such module"):
        fetch.run(words, {}, said.append, "still building", "it failed")
    assert said
    assert all("still building" in line for line in said)


# -- Ollama's own recipe


def test_the_pins_are_whole():
    data = runtimes.open("ollama").data
    assert len(data["archive"]) >= 3
    for row in data["archive"]:
        assert f"v{data['version']}/" in row["url"]
        assert len(row["sha256"]) == 64
    assert data["checked"]


def test_ollama_is_here_in_the_pinned_version_or_on_path():
    found = runtimes.open("ollama").require()
    assert found.how == "on PATH" or found.version == runtimes.open("ollama").version
    said = subprocess.run([found.path, "--version"], capture_output=True, text=True, check=True)
    assert found.version in said.stdout + said.stderr


def test_go_and_a_compiler_are_asked_for_before_anything_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    ways = dict(runtimes.open("ollama").ways())
    for name, words in (("a build as a Go module", "Go 1.26"), ("conda-forge", "no conda")):
        with pytest.raises(NotThisWay, match=words):
            ways[name](tmp_path / "x", lambda _: None)
    assert not (tmp_path / "x").exists()


def test_a_system_without_an_archive_gets_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    with pytest.raises(NotThisWay, match="no archive for Plan9"):
        dict(runtimes.open("ollama").ways())["the official archive"](tmp_path, lambda _: None)


def test_unknown_names_are_refused():
    with pytest.raises(BadInput, match="did you mean ollama"):
        runtimes.open("olama")


def test_the_command_lists_installs_and_removes(tmp_path):
    labkit = Path(sys.executable).with_name("labkit")

    def run(*words, **environment):
        return subprocess.run([labkit, "runtimes", *words], capture_output=True, text=True, check=False, env=os.environ | environment)

    listed = [json.loads(line) for line in run("--json").stdout.splitlines()]
    assert {"name", "kind", "ready", "version", "missing", "install"} == set(listed[0])
    assert [(row["name"], row["kind"]) for row in listed] == [(name, "runtime") for name in runtimes.names()]
    bare = {"LABKIT_CACHE": str(tmp_path), "PATH": str(tmp_path)}
    gone = [json.loads(line) for line in run("--json", **bare).stdout.splitlines()]
    assert [(row["ready"], row["install"]) for row in gone] == [(False, f"labkit runtimes install {name}") for name in runtimes.names()]
    done = run("remove", "ollama", **bare)
    assert (done.returncode, "no ollama" in done.stderr) == (0, True)
    assert run("install", "olama").returncode == 2
