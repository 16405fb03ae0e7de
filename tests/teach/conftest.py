"""A checkout of its own for the fixture lab: it is built anew for every test that asks for it."""

import os
import shutil
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def exercises_importable(monkeypatch):
    """The fixture's exercises, here and in the kernels that start from here."""
    monkeypatch.syspath_prepend(FIXTURES)
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FIXTURES), *([path] if path else [])]))


@pytest.fixture
def checkout(tmp_path, exercises_importable) -> Path:
    """A course with one lab, not built yet."""
    shutil.copytree(FIXTURES / "labs", tmp_path / "course" / "labs")
    return tmp_path / "course"


@pytest.fixture
def source(checkout) -> Path:
    return checkout / "labs" / "sources" / "90_fixture.py"
