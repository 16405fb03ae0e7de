"""Nothing of ours is found in correct files: documented forms of the vendors, other programs' variables, placeholders, fragments, prose."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from labkit.facts.lint import check_text
from labkit.facts.lint.fix import fixed

ROOT = Path(__file__).resolve().parents[2]
GOOD = ROOT / "tests" / "fixtures" / "lint" / "good"
SOURCES = yaml.safe_load((GOOD.parent / "good.yaml").read_text(encoding="utf-8"))


def own_files():
    """The repository's own files of kinds that lint knows."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    wanted = r"README\.md|[A-Z]+\.md|docs/.*\.md|\.github/.*|binder/.*|scripts/.*\.sh|data/.*\.md|labs/stacks/.*"
    return [name for name in names if re.fullmatch(wanted, name) and (ROOT / name).is_file()]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_nothing_is_found_in_a_correct_file(name):
    text = (GOOD / name).read_text(encoding="utf-8")
    assert [(found.line, found.rule, found.message) for found in check_text(name, text).findings] == []
    assert fixed(name, text) == text


def test_there_are_enough_and_half_follow_a_documented_form():
    there = {str(path.relative_to(GOOD)) for path in GOOD.rglob("*") if path.is_file()}
    assert there == set(SOURCES)
    assert len(there) >= 40
    assert sum(source.startswith("https://") for source in SOURCES.values()) >= len(there) / 2


@pytest.mark.parametrize("name", own_files())
def test_this_repository_is_clean(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert [(found.line, found.rule, found.message) for found in check_text(name, text).findings] == []
