"""A Python environment of its own, made by uv from a requirements file with checksums: for what cannot share the course's.

uv keeps what it fetched, and links files into an environment instead of copying them: a second one takes seconds.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from labkit.core import paths
from labkit.servers.runtimes import fetch
from labkit.servers.runtimes.base import NotThisWay, Say

# a setting of the surroundings that would make every start compile its modules anew
COMPILED: Mapping[str, str] = {"PYTHONDONTWRITEBYTECODE": ""}


def uv() -> str | None:
    """The program uv: the one that runs this process, the course's own in .tools, one on PATH, or that of the package `uv`."""
    name = "uv.exe" if os.name == "nt" else "uv"
    own = (paths.home() / ".tools" / "uv" / "bin" / name, Path(sys.executable).with_name(name))
    given = os.environ.get("UV")  # `uv run` says which uv it is
    return next((str(p) for p in (Path(given) if given else None, *own) if p and p.is_file()), shutil.which("uv"))


def make(folder: Path, python: str, requirements: Path, say: Say) -> None:
    """Fill an empty folder with Python `python` ("3.11") and the packages of a requirements file, each by its checksum.

    The environment can be renamed afterwards. Raises NotThisWay: there is no uv, or it could not get a package.
    """
    program = uv()
    if program is None:
        raise NotThisWay("uv is not installed (https://docs.astral.sh/uv)")
    fetch.run(
        [program, "venv", "--quiet", "--relocatable", "--python", python, str(folder)], {}, say, "uv is working", f"no Python {python}"
    )
    words = [program, "pip", "sync", "--quiet", "--require-hashes", "--python", str(interpreter(folder)), str(requirements)]
    fetch.run(words, {}, say, "uv is fetching and unpacking", "uv could not get its packages")


def interpreter(folder: Path) -> Path:
    """The environment's Python."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def packages(folder: Path) -> Path | None:
    """Where the environment's packages are; None where the folder is no environment."""
    return next(iter(sorted(folder.glob("lib/python3.*/site-packages"))), None)


def version_of(folder: Path, distribution: str) -> str | None:
    """The version of an installed package, read from the name of its notes: nothing is started. Names with "_", as in file names."""
    found = sorted(site.name for site in (packages(folder) or folder).glob(f"{distribution}-*.dist-info"))
    return found[0].removeprefix(f"{distribution}-").removesuffix(".dist-info") if found else None
