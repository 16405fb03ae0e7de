"""Where things are: the servers, programs and libraries that the checks of claims look at.

A lab fills in the server that it has started and asks for the claims that this server decides; a test fills in a stub that
behaves as a claim says. What is None is not here, and the claims that need it are not run.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

# what a check saw: does it support the ledger's truth (None: it cannot be decided here), and a sentence that quotes it
Seen = tuple[bool | None, str]
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what moves a terminal's cursor


@dataclass(frozen=True)
class World:
    """Addresses are web roots without a path (http://127.0.0.1:11434); models are names that the server knows.

    watts and price_per_kwh are assumptions of yours for the claim on cost; gpu_gigabytes is the GPU that the claim on Phi names.
    """

    ollama_url: str | None = None
    ollama_model: str | None = None
    ollama_program: str | None = None
    ollama_defaults: bool = False  # was it started without settings of its own?
    foundry_url: str | None = None
    foundry_model: str | None = None
    foundry_alias: str | None = None
    foundry_folder: Path | None = None
    foundry_ready_s: float | None = None  # from its start until it could answer
    llama_url: str | None = None
    vllm_url: str | None = None
    vllm_model: str | None = None
    onnx_url: str | None = None  # of labs/stacks/onnx/naive.py
    containers_tool: Any = None  # the package labkit.servers.images, or a stand-in
    programs: Mapping[str, str | None] = field(default_factory=dict)  # stand-ins by name; others are looked up on the path
    modules: Mapping[str, Any] = field(default_factory=dict)  # stand-ins by name; others are imported; None: not here
    folders: Mapping[str, Path | None] = field(default_factory=dict)  # of packages: stand-ins by name; others are looked up
    licences: Mapping[str, str] = field(default_factory=dict)  # of packages: stand-ins by name; others are read
    system: str = field(default_factory=platform.system)
    gpu_gigabytes: float = 6.0
    watts: float = 30.0
    price_per_kwh: float = 0.30

    def program(self, name: str) -> str | None:
        """Path of a program, or None."""
        return self.programs[name] if name in self.programs else shutil.which(name)

    def module(self, name: str) -> Any:
        """A module, imported now, or None where it is not installed."""
        if name in self.modules:
            return self.modules[name]
        try:
            return importlib.import_module(name)
        except ImportError:
            return None

    def folder(self, package: str) -> Path | None:
        """The folder of an installed package, found without importing it."""
        if package in self.folders:
            return self.folders[package]
        spec = importlib.util.find_spec(package)
        return Path(spec.origin).parent if spec and spec.origin else None

    def licence(self, distribution: str) -> str | None:
        """The text of the licence that came with an installed package, or None."""
        if distribution in self.licences:
            return self.licences[distribution]
        try:
            files = importlib.metadata.files(distribution) or []
        except importlib.metadata.PackageNotFoundError:
            return None
        found = [Path(str(f.locate())) for f in files if "LICENSE" in f.name.upper() or "LICENCE" in f.name.upper()]
        return "\n".join(p.read_text(encoding="utf-8", errors="replace") for p in found if p.is_file()) or None

    def url(self, server: str) -> str:
        """The web root of `ollama`, `foundry`, `llama` or `onnx`; a check that needs it is only run where it is there."""
        return str(getattr(self, f"{server}_url"))


def ask(url: str, body: Any = None, *, method: str | None = None, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """One request on loopback: GET, or POST where there is a body. Proxies of the environment are not used."""
    with httpx.Client(trust_env=False, timeout=120) as client:
        return client.request(method or ("GET" if body is None else "POST"), url, json=body, headers=headers)


def call(program: str, *words: str, seconds: float = 60, cwd: Path | None = None, **environment: str) -> tuple[int, str]:
    """A program's exit code and all that it wrote, stdout first; its input is empty."""
    done = subprocess.run(
        [program, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    return done.returncode, _CONTROL.sub("", done.stdout + done.stderr).strip()


def quote(text: str, length: int = 120) -> str:
    """What was said, on one line and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
