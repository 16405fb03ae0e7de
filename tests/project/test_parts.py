"""The fixtures of tests/conftest.py: a missing part is listed at the end of a run, and fails it with CI=true."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEST = """
def test_it(needs):
    needs("a-program-that-nobody-has")
"""


@pytest.fixture
def outcome(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """One test that needs a missing program, run with CI set to this."""
    for name in ("conftest.py", "parts.py", "side_by_side.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / name)
    (tmp_path / "test_it.py").write_text(TEST, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    return lambda ci: subprocess.run(command, cwd=tmp_path, env=os.environ | {"CI": ci}, capture_output=True, text=True, check=False)


def test_a_missing_part_is_listed_at_the_end(outcome: Callable) -> None:
    done = outcome("")
    assert done.returncode == 0
    listed = done.stdout.split("not tested")[1]
    assert "test_it.py::test_it: a-program-that-nobody-has is missing" in listed


def test_a_missing_part_fails_in_ci(outcome: Callable) -> None:
    done = outcome("true")
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert "a-program-that-nobody-has is missing" in done.stdout


def test_offline_reaches_loopback_and_nothing_else(offline: Callable) -> None:
    talk = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=2)
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2)
except OSError as error:
    print("cut off:", error.strerror)
"""
    done = offline([sys.executable, "-c", talk])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cut off:")


def test_the_installed_model_answers_without_a_network(offline: Callable) -> None:
    command = Path(sys.executable).with_name("labkit")
    done = offline([str(command), "chat", "smollm2-135m", "Hello", "--max-tokens", "4", "--json"])
    assert done.returncode == 0, done.stderr
    assert '"output_tokens":4' in done.stdout.replace(" ", "")
