"""A course of its own for the fixture lab: it is copied anew for every test that asks for it."""

import os
import shutil
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def course(tmp_path, monkeypatch) -> Path:
    """A checkout with one lab, not built yet, whose exercises can be imported here and in kernels that start from here."""
    monkeypatch.syspath_prepend(FIXTURES)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FIXTURES), os.environ.get("PYTHONPATH")])))
    shutil.copytree(FIXTURES / "course", tmp_path / "course")
    return tmp_path / "course"


@pytest.fixture
def source(course) -> Path:
    return course / "labs" / "sources" / "90_fixture.py"
