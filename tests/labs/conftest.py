"""How the labs are proven: the fixture lab next to the real ones, and nbval in a process of its own."""

from __future__ import annotations

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

from labkit.teach import notebooks
from labkit.teach.notebooks.build import dumps

FIXTURES = Path(__file__).parents[1] / "fixtures"
# the fixture lab shows that the proofs work, whatever labs there are; it needs no model
SOURCES = [*notebooks.sources(), *notebooks.sources(FIXTURES / "course")]
TIMEOUT_S = 600

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
        metafunc.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])


@pytest.fixture(autouse=True)
def exercises_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture lab's exercises, here and in kernels."""
    monkeypatch.syspath_prepend(FIXTURES)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FIXTURES), os.environ.get("PYTHONPATH")])))


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
