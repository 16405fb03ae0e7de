"""Loki, built as a Go module: its releases are not on any index of packages, and a Go module is what it is published as.

`go install` refuses a module that replaces others, as Loki's does, so a module of our own asks for it and takes its lines over.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.servers.runtimes import fetch, golang
from labkit.servers.runtimes.base import NotThisWay, Runtime, Say


class Loki(Runtime):
    name = "loki"
    program = "bin/loki.exe" if os.name == "nt" else "bin/loki"
    elsewhere = "take it from https://github.com/grafana/loki/releases and put it on the PATH as `loki`"

    def ways(self) -> list[tuple[str, Callable[[Path, Say], None]]]:
        return [("a build as a Go module", self._go)]

    def version_of(self, program: Path) -> str | None:
        return _version_of(str(program), program.stat().st_mtime_ns) if program.is_file() else None

    def _go(self, folder: Path, say: Say) -> None:
        go = golang.program(self.data["go_oldest"])
        module, version = self.data["go_module"], f"v{self.version}"
        say("  5 to 11 minutes of processor time the first time; Go keeps what it compiled")
        with tempfile.TemporaryDirectory() as temporary:
            here = Path(temporary)
            (here / "go.mod").write_text(_module(go, module, version, here), encoding="utf-8")
            added = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}
            told = f"-s -w -X {module}/pkg/util/build.Version={self.version}"
            words = [go, "build", "-C", str(here), "-ldflags", told, "-o", f"{folder / 'bin'}{os.sep}", f"{module}/cmd/loki"]
            fetch.run(words, added, say, "still building", "Go could not build it")


RUNTIME = Loki()


def _module(go: str, module: str, version: str, folder: Path) -> str:
    """The text of a go.mod that requires it, with its own replacements but for those by a folder of its source."""
    said = _json([go, "mod", "download", "-json", f"{module}@{version}"], folder)
    own = _json([go, "mod", "edit", "-json", str(said["GoMod"])], folder)
    lines = ["module labkit.invalid/loki", f"go {own['Go']}", f"require {module} {version}"]
    for row in own.get("Replace") or []:
        old, new = row["Old"], row["New"]
        if "Version" in new:
            lines.append(f"replace {old['Path']} {old.get('Version', '')} => {new['Path']} {new['Version']}")
    lines += [f"exclude {row['Path']} {row['Version']}" for row in own.get("Exclude") or []]
    return "\n".join(lines) + "\n"


def _json(words: list[str], folder: Path) -> dict[str, Any]:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise NotThisWay(f"Go could not fetch it: {lines[-1][:200] if lines else f'exit code {done.returncode}'}")
    return dict(json.loads(done.stdout))


@functools.lru_cache
def _version_of(program: str, _changed: int) -> str | None:
    words = golang.output([program, "--version"]).split()
    # "loki, version 3.7.8 (branch: …"
    return words[2] if words[:2] == ["loki,", "version"] else None
