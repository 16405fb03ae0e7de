"""The files of the stacks as the linters see them, and what is pinned in them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from stack_table import FOLDER, STACKS

BIN = Path(sys.executable).parent
ROOT = FOLDER.parents[1]
RECIPES = sorted(FOLDER.rglob("Containerfile"))
COMPOSES = sorted(FOLDER.glob("*/compose*.yaml"))


def short(path: Path) -> str:
    return str(path.relative_to(FOLDER))


@pytest.mark.parametrize("recipe", RECIPES, ids=short)
def test_hadolint_finds_nothing_and_each_exception_has_its_reason(recipe: Path) -> None:
    done = subprocess.run([str(BIN / "hadolint"), str(recipe)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    lines = recipe.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        for rule in re.findall(r"DL\d+|SC\d+", line.partition("hadolint ignore=")[2]):
            above = lines[number - 1] if number else ""
            assert re.match(rf"# {rule} .{{30,}}", above), f"the line above line {number + 1} does not say why {rule} is ignored: {above}"


@pytest.mark.parametrize("recipe", RECIPES, ids=short)
def test_an_image_is_pinned_not_root_checked_and_hears_signals(recipe: Path) -> None:
    text = re.sub(r"\\\n", " ", recipe.read_text(encoding="utf-8"))
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases and all(re.fullmatch(r"[\w.]+/[\w./-]+:[\w.-]+", base) and not base.endswith(":latest") for base in bases)
    last = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["', last, re.MULTILINE), "in words: a shell around it would keep the signals to itself"
    assert re.search(r'^HEALTHCHECK .*CMD \["', last, re.MULTILINE)
    assert "curl" not in last.partition("HEALTHCHECK")[2] and "wget" not in last.partition("HEALTHCHECK")[2]


@pytest.mark.parametrize("file", COMPOSES, ids=short)
def test_a_compose_file_fits_the_schema_and_hardens_every_service(file: Path) -> None:
    words = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, service in yaml.safe_load(file.read_text(encoding="utf-8"))["services"].items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"mem_limit", "memswap_limit", "cpus", "pids_limit", "tmpfs", "restart", "stop_grace_period"} <= set(service), name
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name


@pytest.mark.parametrize("folder", sorted(path for path in FOLDER.iterdir() if path.is_dir()), ids=short)
def test_a_stack_is_whole_and_in_the_table(folder: Path) -> None:
    there = {path.name for path in folder.iterdir()}
    assert {"compose.yaml", "README.md", ".containerignore", ".dockerignore"} <= there and list(folder.rglob("Containerfile"))
    assert (folder / ".containerignore").read_text() == (folder / ".dockerignore").read_text()
    assert folder.name in [*(row.name for row in STACKS), "monitoring"], "no test starts it"


@pytest.mark.parametrize("file", [FOLDER / "llama" / "requirements.txt"], ids=short)
def test_what_pip_installs_is_what_the_projects_lock_has(file: Path) -> None:
    locked = {row["name"]: row for row in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]}
    pinned = re.findall(r"^([\w.-]+)==(\S+)((?:\s*\\\n\s+--hash=\S+)+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    for name, version, hashes in pinned:
        known = {wheel["hash"] for wheel in locked[name].get("wheels", [])}
        assert version == locked[name]["version"], name
        assert set(re.findall(r"--hash=(\S+)", hashes)) <= known, name
