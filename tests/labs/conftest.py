"""How the labs are proven: the fixture lab next to the real ones, and nbval in a process of its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from parts import network_namespace

from labkit.core import paths
from labkit.servers import images
from labkit.teach import notebooks
from labkit.teach.notebooks.build import dumps

FIXTURES = Path(__file__).parents[1] / "fixtures"
# the fixture lab shows that the proofs work, whatever labs there are; it needs no model
SOURCES = [*notebooks.sources(), *notebooks.sources(FIXTURES / "course")]
TIMEOUT_S = 800
# what a lab's images fetch is fetched before, as on a machine where they were built once: the lab itself runs without a network
STACKS = {"16": [("ollama", {"MODEL": "none"}), ("ollama/proxy", {})], "17": [("onnx", {"MODEL": "none"})]}

# Labs on containers and on vLLM take minutes, and are executed once, in the solved form: its cells are the learner's and, between them,
# the exercises, of which test_structure proves that no other cell uses an answer.
ONCE = ("16", "17", "18", "19")

# told by nbval's own items which cell ran, how it ended and what it put out
PLUGIN = """\
import json
import pathlib
import pytest

cells = {}

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        cells[item.cell["id"]] = {"outcome": report.outcome, "outputs": item.test_outputs or [], "said": str(report.longrepr or "")}
    return report

def pytest_sessionfinish():
    pathlib.Path("cells.json").write_text(json.dumps(cells))
"""


@dataclass(frozen=True)
class Ran:
    """What nbval saw of one cell."""

    outcome: str
    outputs: list[dict[str, Any]]
    said: str


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "source" in metafunc.fixturenames:
        once = ONCE if metafunc.function.__name__ == "test_the_learners_form_runs" else ()
        rows = [source for source in SOURCES if source.stem[:2] not in once]
        metafunc.parametrize("source", rows, ids=[source.stem for source in rows])


@pytest.fixture(autouse=True)
def exercises_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture lab's exercises, here and in kernels."""
    monkeypatch.syspath_prepend(FIXTURES)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FIXTURES), os.environ.get("PYTHONPATH")])))


@pytest.fixture(autouse=True)
def layers(request: pytest.FixtureRequest) -> None:
    """The layers of a lab's images are here before nbval runs it. Without containers the lab plays its recording."""
    if {"source", "nbval"} <= set(request.fixturenames) and images.missing() is None:
        _make_layers(request.getfixturevalue("source").stem[:2])


@functools.cache
def _make_layers(lab: str) -> None:
    for folder, args in STACKS.get(lab, ()):
        images.build(paths.labs("stacks", *folder.split("/")), "layers", args=args).remove()


@pytest.fixture
def nbval(tmp_path: Path) -> Callable[[Any], dict[str, Ran]]:
    """nbval(notebook) -> by cell id what it saw, having failed with nbval's words where a cell failed."""

    def run(notebook: Any) -> dict[str, Ran]:
        folder = tmp_path / "nbval"
        folder.mkdir()
        (folder / "lab.ipynb").write_text(dumps(notebook), encoding="utf-8")
        (folder / "conftest.py").write_text(PLUGIN, encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--color=no", "-c", "pytest.ini", "lab.ipynb"]
        # with nothing but loopback, where the system allows it: test_the_proofs_run_offline says whether it does
        command = [*(network_namespace() or []), *command]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert (folder / "cells.json").is_file(), done.stdout + done.stderr
        cells = {name: Ran(**cell) for name, cell in json.loads((folder / "cells.json").read_text(encoding="utf-8")).items()}
        failed = "\n".join(cell.said for cell in cells.values() if cell.outcome != "passed")
        assert done.returncode == 0 and not failed, failed or done.stdout
        code = {cell.id for cell in notebook.cells if cell.cell_type == "code"}
        assert cells.keys() == code, f"{len(code - cells.keys())} code cells were not run"
        return cells

    return run
