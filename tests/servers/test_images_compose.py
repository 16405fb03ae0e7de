"""A Compose stack for real, by podman-compose: it starts, is reached where it publishes, and goes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from labkit.core.errors import BadInput, RunFailed
from labkit.servers import images
from labkit.servers.base import free_port

STACK = Path(__file__).resolve().parents[1] / "fixtures" / "images" / "stack"


@pytest.fixture(autouse=True)
def podman(needs: Callable[[str], str]) -> str:
    assert images.missing_compose() is None
    return needs("podman")


def test_a_stack_starts_and_goes() -> None:
    port = free_port()
    with images.compose(STACK, project="try", env={"PORT": str(port), "WORD": "hello"}) as stack:
        assert set(stack.up()) == {"inner", "outer"}
        stack.wait()
        assert stack.url("outer", 8080) == f"http://127.0.0.1:{port}"
        assert httpx.get(stack.url("outer", 8080)).text.strip() == "hello"
        assert "inner | ready" in stack.logs() and "outer" not in stack.logs("inner")
        assert stack.peak_memory_bytes() > 1e6
        assert images.hardening(stack.container("outer"))["read_only_root"]
        with pytest.raises(BadInput, match="does not publish"):
            stack.url("inner", 8080)
        with pytest.raises(BadInput, match="did you mean outer"):
            stack.container("otter")
        here = images.leftovers()
        assert {"container", "network", "volume", "image"} <= {row.split()[0] for row in here}, here
        stack.container("outer").kill()
        assert not stack.container("outer").alive()
    left = [row for row in images.leftovers() if stack.project in row and not row.startswith("image")]
    assert left == [] and stack.services == {}


def test_a_file_that_is_no_stack_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no compose"):
        images.compose(tmp_path, project="none")
    (tmp_path / "compose.yaml").write_text("services: [", encoding="utf-8")
    with images.compose(tmp_path, project="broken") as stack, pytest.raises(RunFailed, match="compose"):
        stack.up()


SCRIPT = """
import sys, time
from labkit.servers import images
from labkit.servers.images import runs
stack = images.compose(sys.argv[1], project="killed", env={"PORT": sys.argv[2]})
stack.up()
print(runs.current().id, stack.project, flush=True)
time.sleep(600)
"""


def test_a_stack_whose_starter_is_killed_goes_too() -> None:
    words = [sys.executable, "-c", SCRIPT, str(STACK), str(free_port())]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        run, project = process.stdout.readline().split()
        here = images.leftovers(run, [project])
        assert {row.split()[0] for row in here} == {"container", "image", "network", "volume"}
        process.kill()
    end = time.monotonic() + 120
    while images.leftovers(run, [project]):
        assert time.monotonic() < end, images.leftovers(run, [project])
        time.sleep(0.5)
