"""What is ready on this machine, and what to type for the rest."""

from __future__ import annotations

import importlib.metadata
import shutil
from typing import Any

from labkit import engines, models, servers
from labkit.core import extras
from labkit.models import catalog
from labkit.servers import images, runtimes

# programs that some commands call: name -> (what for, how to get it)
_PROGRAMS = {
    "uv": ("sets up the project", "make run fetches it; or: pip install uv"),
    "c++": ("compiles llama-cpp-python", "apt install g++ · xcode-select --install · Visual Studio Build Tools"),
    "chromium": ("the browser test", "apt install chromium"),
}


def parts() -> list[dict[str, Any]]:
    """One row a part: name, kind, ready, version, missing (a sentence or None), install (a command or None)."""
    rows = [_row(name, "engine", engines.open(name)) for name in engines.names()]
    rows += [_row(name, "server", servers.open(name)) for name in servers.names()]
    rows += [_row(name, "server", servers.companion(name)) for name in servers.companions()]
    rows += runtimes.rows()
    for model in catalog.load().values():
        if model.package:
            here = models.known_path(model.name) is not None
            version, missing = (model.package.version, None) if here else (None, "its weights are not installed")
            rows.append(_part(model.name, "model", version, missing, model.package.install))
    for name, (purpose, install) in _PROGRAMS.items():
        found = shutil.which(name) or (shutil.which("g++") or shutil.which("clang++") if name == "c++" else None)
        rows.append(_part(name, "program", "found" if found else None, None if found else f"not on PATH: {purpose}", install))
    gone = images.missing()
    rows.append(_part("containers", "program", None if gone else images.version(), gone, gone.rsplit("; install it: ")[-1] if gone else ""))
    rows.append(_extra("nbgrader", "grading", "make run SET=all"))
    for name in (n for n in extras.names() if n not in engines.names()):  # an engine has its row already
        missing = extras.missing(name)
        rows.append(_part(name, "extra", None if missing else extras.version(name), missing, extras.install(name)))
    return rows


def _row(name: str, kind: str, part: Any) -> dict[str, Any]:
    missing = part.missing()
    return _part(name, kind, None if missing else part.version(), missing, missing.rsplit(": ", 1)[-1] if missing else "")


def _extra(distribution: str, kind: str, install: str) -> dict[str, Any]:
    try:
        return _part(distribution, kind, importlib.metadata.version(distribution), None, install)
    except importlib.metadata.PackageNotFoundError:
        return _part(distribution, kind, None, f"{distribution} is not installed", install)


def _part(name: str, kind: str, version: str | None, missing: str | None, install: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "ready": missing is None,
        "version": version,
        "missing": missing,
        "install": install if missing else None,
    }
