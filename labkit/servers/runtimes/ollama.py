"""Ollama: the official release archive, else conda-forge's package, else built as a Go module.

The Go build takes about 6 to 12 CPU-minutes once; Go's own cache makes it quick afterwards. A module archive leaves out
folders named `vendor`, so three header libraries come from llama-cpp-python's source archive, which uv.lock pins.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

from labkit.core import machine, paths
from labkit.servers.runtimes import fetch, golang
from labkit.servers.runtimes.base import NotThisWay, Runtime, Say

# without these the compiler makes code for the oldest processor, several times slower; one that has AVX2 has the others
_AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mbmi2")


class Ollama(Runtime):
    name = "ollama"
    program = "bin/ollama.exe" if os.name == "nt" else "bin/ollama"
    elsewhere = "install it from https://ollama.com/download, then open a new terminal"

    def ways(self) -> list[tuple[str, Callable[[Path, Say], None]]]:
        return [("the official archive", self._archive), ("conda-forge", self._conda), ("a build as a Go module", self._go)]

    def version_of(self, program: Path) -> str | None:
        return _version_of(str(program), program.stat().st_mtime_ns) if program.is_file() else None

    def _archive(self, folder: Path, say: Say) -> None:
        here = (platform.system(), platform.machine())
        row = next((a for a in self.data["archive"] if (a["system"], a["machine"]) == here), None)
        if row is None:
            raise NotThisWay(f"labkit has no archive for {' '.join(here)}")
        gpu = shutil.which("nvidia-smi") is not None
        # the GPU libraries are most of the archive, and of no use without such a GPU
        heavy = () if gpu or here[0] == "Darwin" else ("/cuda", "/mlx", "/vulkan")
        fetch.archive(row["url"], row["sha256"], row.get("bytes"), folder, lambda name: not any(k in name for k in heavy), say)
        flat = folder / "ollama"  # macOS's archive has no bin
        if flat.is_file():
            (folder / "bin").mkdir()
            for path in [p for p in folder.iterdir() if p.name != "bin"]:
                path.rename(folder / "bin" / path.name)

    def _conda(self, folder: Path, say: Say) -> None:
        conda = next(filter(None, map(shutil.which, ("micromamba", "mamba", "conda"))), None)
        if conda is None:
            raise NotThisWay("no conda, mamba or micromamba is installed")
        words = [conda, "create", "--yes", "--quiet", "--prefix", str(folder), "--channel", "conda-forge", "--override-channels"]
        fetch.run([*words, f"ollama={self.version}"], {}, say, "conda is working", "conda could not get it")

    def _go(self, folder: Path, say: Say) -> None:
        go = golang.program(self.data["go_oldest"])
        if not any(map(shutil.which, ("gcc", "cc", "clang"))) or not any(map(shutil.which, ("g++", "c++", "clang++"))):
            raise NotThisWay("no C++ compiler is installed")
        include = folder / "include"
        self._headers(include, say)
        flags = " ".join(["-O3", *(_AVX2 if "avx2" in machine.fingerprint()["isa"] else ())])
        added = {"C_INCLUDE_PATH": str(include), "CPLUS_INCLUDE_PATH": str(include), "GOBIN": str(folder / "bin")}
        module = self.data["go_module"]
        words = [go, "install", "-ldflags", f"-X={module}/version.Version={self.version}", f"{module}@v{self.version}"]
        say("  about 6 to 12 minutes of one core the first time; Go keeps what it compiled")
        fetch.run(words, added | {"CGO_CFLAGS": flags, "CGO_CXXFLAGS": flags}, say, "still building", "Go could not build it")
        shutil.rmtree(include)

    def _headers(self, include: Path, say: Say) -> None:
        """The header libraries that a Go module archive lacks."""
        lock = tomllib.loads((paths.home() / "uv.lock").read_text(encoding="utf-8"))
        package = next(p for p in lock["package"] if p["name"] == self.data["headers_package"])
        source = package["sdist"]
        wanted = tuple(f"/vendor/llama.cpp/vendor/{name}/" for name in self.data["headers"])
        unpacked = include / "source"
        sha256 = source["hash"].removeprefix("sha256:")
        fetch.archive(source["url"], sha256, source["size"], unpacked, lambda name: any(w in name for w in wanted), say)
        for name in self.data["headers"]:
            found = next(unpacked.glob(f"*/vendor/llama.cpp/vendor/{name}"), None)
            if found is None:
                raise NotThisWay(f"{self.data['headers_package']}'s source has no {name}")
            found.rename(include / name)
        shutil.rmtree(unpacked)


RUNTIME = Ollama()


@functools.lru_cache
def _version_of(program: str, _changed: int) -> str | None:
    """What `ollama --version` says of the program itself: with a server running it names the server's version first."""
    said = golang.output([program, "--version"], {"OLLAMA_HOST": "127.0.0.1:1"})
    words = [line.rsplit(" ", 1)[-1] for line in said.splitlines() if "version is" in line]
    return words[-1] if words else None
