"""scripts/setup.sh and the Makefile over it: quick when nothing is to be done, one sentence when something is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = ["sh", "scripts/setup.sh"]
TOOLS = ["sh", "ls", "awk", "sed", "dirname", "uname", "id", "env", "getconf", "grep", "cat", "tr", "rm", "mkdir"]


def run(*words: str, cwd: Path = ROOT, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PATH": path} if path else {})
    return subprocess.run([*SETUP, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A checkout without .venv and .tools, as far as setup.sh reads it."""
    for name in ("uv.lock", "pyproject.toml", "scripts/setup.sh", "scripts/system-packages.txt"):
        target = tmp_path / "checkout" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return tmp_path / "checkout"


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder of programs with no compiler, no uv and no python3."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return folder


@pytest.mark.parametrize("words", [["run", "default"], ["run", "all"], ["test"], ["stacks"], ["docs"]])
def test_nothing_to_do_takes_under_ten_seconds_and_removes_nothing(words: list[str], offline: Callable, needs: Callable) -> None:
    needs("uv")
    before = installed()
    start = time.monotonic()
    done = offline([*SETUP, *words], cwd=ROOT)
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    assert "packages: all there" in done.stderr
    assert installed() == before, "each target leaves what the others installed"
    assert seconds < 10


def installed() -> set[str]:
    return {path.name for path in Path(sysconfig.get_path("purelib")).glob("*.dist-info")}


def test_a_missing_uv_is_one_sentence(fresh: Path, bare_path: Path) -> None:
    done = run("run", "default", cwd=fresh, path=str(bare_path))
    assert done.returncode == 2
    assert "astral.sh/uv/install" in done.stderr.splitlines()[-1]
    assert not (fresh / ".venv").exists()


def test_a_missing_compiler_is_one_sentence_before_anything_is_installed(fresh: Path, bare_path: Path, tmp_path: Path) -> None:
    uv = bare_path / "uv"  # says its version and where its cache would be; installs nothing
    uv.write_text(
        f'#!/bin/sh\ncase "$1" in --version) echo uv 0.13.9 ;; cache) echo {tmp_path}/cache ;; *) exit 99 ;; esac\n', encoding="utf-8"
    )
    uv.chmod(0o755)
    done = run("run", "default", cwd=fresh, path=str(bare_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "compiler" in done.stderr


@pytest.mark.parametrize(("macro", "off"), [("__AMX_TILE__", True), ("__AVX2__", False)])
def test_a_processor_with_amx_is_built_for_without_it(macro: str, off: bool, fresh: Path, bare_path: Path, tmp_path: Path) -> None:
    for name, script in {
        "c++": f'echo "#define {macro} 1"',
        "uv": f'case "$1" in --version) echo uv 0.13.9 ;; cache) echo {tmp_path}/cache ;; *) echo "CXXFLAGS=$CXXFLAGS" ;; esac',
    }.items():
        (bare_path / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (bare_path / name).chmod(0o755)
    (bare_path / "sleep").symlink_to(str(shutil.which("sleep")))
    done = run("run", "default", cwd=fresh, path=str(bare_path))
    assert done.returncode == 0, done.stderr
    assert ("-mno-amx-tile" in done.stderr) == off


@pytest.mark.parametrize(("words", "says"), [(["run", "everything"], "SET=everything"), (["fly"], "usage"), ([], "usage")])
def test_an_unknown_word_is_one_sentence(words: list[str], says: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["scripts/setup.sh", ".ci/run", "binder/postBuild", "binder/start"])
def test_scripts_parse_and_may_be_run(name: str) -> None:
    path = ROOT / name
    shell = "bash" if "bash" in path.read_text(encoding="utf-8").splitlines()[0] else "sh"
    subprocess.run([shell, "-n", path], check=True)
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize(("test", "stacks"), [(0, 0), (3, 0), (0, 4), (3, 4)])
def test_ci_runs_both_targets_and_fails_if_either_fails(test: int, stacks: int, tmp_path: Path) -> None:
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    targets = f"test:\n\t@echo these are the tests; exit {test}\nstacks:\n\t@echo these are the stacks; exit {stacks}\n"
    (tmp_path / "Makefile").write_text(targets, encoding="utf-8")
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert "these are the tests" in done.stdout and "these are the stacks" in done.stdout
    assert re.findall(r"make (\w+) took \d+ min \d+ s", done.stdout) == ["test", "stacks"]
    assert (done.returncode == 0) == (test == stacks == 0)


def test_every_folder_of_tests_is_run_by_one_target_and_one_only(needs: Callable[[str], str]) -> None:
    dry = {
        target: subprocess.run([needs("make"), "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for target in ("test", "stacks")
    }
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert settings["testpaths"] == ["tests"]
    left_out = set(re.findall(r"--ignore=(\S+)", dry["test"] + settings["addopts"]))
    assert left_out == set(re.findall(r"-m pytest (tests/\S+)", dry["stacks"])) == {"tests/stacks"}
    assert not re.search(r"-m pytest (?!-)\S", dry["test"]), "make test names no folder, so it runs all others"
    tracked = subprocess.run([needs("git"), "ls-files", "*test_*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert all(path.startswith(("tests/", "labs/stacks/")) for path in tracked), tracked


def test_make_has_the_promised_targets(needs: Callable[[str], str]) -> None:
    listed = subprocess.run([needs("make"), "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"run", "lab", "test", "stacks", "docs", "lock", "build", "system", "help"} <= set(re.findall(r"make (\w+)", listed))
    dry = subprocess.run([needs("make"), "-n", "run", "SET=all"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "setup.sh run all" in dry
    assert "labkit run" in dry and "build/report/index.html" in dry


def test_every_system_package_is_named_once_with_its_reason() -> None:
    lines = [line for line in (ROOT / "scripts/system-packages.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    names = [line.split("#")[0].strip() for line in lines]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name) for name in names)
    assert all(line.split("#")[1].strip() for line in lines)


def wheel(name: str, tag: str, size: int) -> dict:
    return {"url": f"https://example.org/{name}-1.0-{tag}.whl", "size": size}


def test_fetch_size_counts_what_an_extra_adds(fetch_size) -> None:
    lock = {
        "package": [
            {
                "name": "labkit",
                "dependencies": [{"name": "here"}],
                "optional-dependencies": {"heavy": [{"name": "big"}, {"name": "elsewhere", "marker": "sys_platform == 'nowhere'"}]},
            },
            {"name": "here", "version": "1.0", "wheels": [wheel("here", "py3-none-any", 1)]},
            {"name": "elsewhere", "version": "1.0", "wheels": [wheel("elsewhere", "py3-none-any", 10_000)]},
            {
                "name": "big",
                "version": "1.0",
                "dependencies": [{"name": "source", "extra": ["more"]}],
                "wheels": [wheel("big", "cp27-cp27m-win32", 5_000), wheel("big", "py3-none-any", 20)],
            },
            {
                "name": "source",
                "version": "1.0",
                "sdist": {"size": 300},
                "optional-dependencies": {"more": [{"name": "deep"}]},
            },
            {"name": "deep", "version": "1.0", "dependencies": [{"name": "big"}], "wheels": [wheel("deep", "py3-none-any", 4_000)]},
        ]
    }
    fetch_size.installed = lambda package: package["name"] == "here"
    assert fetch_size.missing(lock) == [("big", "1.0", 20), ("deep", "1.0", 4_000), ("source", "1.0", 300)]


def test_fetch_size_knows_every_file_of_the_real_lock(fetch_size) -> None:
    fetch_size.installed = lambda package: False
    rows = fetch_size.missing(tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8")))
    assert not [name for name, _, size in rows if size == 0]
    assert {"llama-cpp-python", "nbgrader", "numpy"} <= {name for name, _, _ in rows}


@pytest.fixture
def fetch_size():
    """scripts/fetch_size.py as a module, fresh for each test."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("fetch_size", ROOT / "scripts" / "fetch_size.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
