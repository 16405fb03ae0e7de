"""Writes labs/stacks/onnx/requirements.txt out of uv.lock: the service's packages and what they need, for an image, with hashes.

A container's pip then installs what the tests have tested, and nothing whose bytes differ. Run it after `make lock`.

    .venv/bin/python scripts/stack_requirements.py
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "labs" / "stacks" / "onnx" / "requirements.txt"
WANTED = ("fastapi", "onnxruntime-genai", "prometheus-client", "uvicorn")
_IMAGE = {  # docker.io/library/python:3.11-slim, on either processor
    "python_version": "3.11", "python_full_version": "3.11.14", "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix",
    "implementation_name": "cpython", "platform_python_implementation": "CPython", "platform_machine": "x86_64", "extra": "",
}  # fmt: skip


def closure(lock: dict[str, Any]) -> list[dict[str, Any]]:
    """The lock's entries of those packages and of all that they need on Linux, by name."""
    found: dict[str, dict[str, Any]] = {}
    left = list(WANTED)
    while left:
        name = left.pop()
        if name in found:
            continue
        entries = [one for one in lock["package"] if one["name"] == name and _fits(one)]
        if len(entries) != 1:
            raise SystemExit(f"uv.lock has {len(entries)} versions of {name} for the image, not one")
        found[name] = entries[0]
        left += [one["name"] for one in entries[0].get("dependencies", []) if "marker" not in one or Marker(one["marker"]).evaluate(_IMAGE)]
    return [found[name] for name in sorted(found)]


def _fits(package: dict[str, Any]) -> bool:
    markers = package.get("resolution-markers", [])
    return not markers or any(Marker(one).evaluate(_IMAGE) for one in markers)


def hashes(package: dict[str, Any]) -> list[str]:
    """Of the wheels that CPython 3.11 on Linux may take."""
    kept = []
    for wheel in package["wheels"]:
        tags = parse_wheel_filename(wheel["url"].rpartition("/")[2])[3]
        fits = any(
            (tag.interpreter in ("cp311", "py3") or tag.abi == "abi3") and (tag.platform == "any" or tag.platform.startswith("manylinux"))
            and not tag.abi.endswith("t")
            for tag in tags
        )  # fmt: skip
        if fits:
            kept.append(wheel["hash"])
    return sorted(kept)


def text() -> str:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    lines = ["# made by scripts/stack_requirements.py from uv.lock; do not edit"]
    for package in closure(lock):
        lines.append(" \\\n    ".join([f"{package['name']}=={package['version']}", *(f"--hash={one}" for one in hashes(package))]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(TARGET)
