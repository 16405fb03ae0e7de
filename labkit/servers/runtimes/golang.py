"""What a build as a Go module needs, whichever program it is."""

from __future__ import annotations

import os
import shutil
import subprocess

from labkit.servers.runtimes.base import NotThisWay


def program(oldest: str) -> str:
    """Go itself. Raises NotThisWay where it is not here, or older than this version."""
    go = shutil.which("go")
    if go is None or _numbers(output([go, "env", "GOVERSION"])) < _numbers(oldest):
        raise NotThisWay(f"Go {oldest} or newer is not installed")
    return go


def output(words: list[str], added: dict[str, str] | None = None) -> str:
    """Both streams of a short command; empty where it cannot run."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False, env=os.environ | (added or {}))
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _numbers(version: str) -> tuple[int, ...]:
    """ "go1.26.8" -> (1, 26, 8), for comparison."""
    digits = "".join(c if c.isdigit() else " " for c in version).split()
    return tuple(map(int, digits))
