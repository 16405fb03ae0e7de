"""Base images by their public names: here already, else pulled, else made on this machine without a registry.

What is made here is a stand-in with the public name, so that a Containerfile stays what a user would write. It has the same
programs in the same places, from other packages; it carries the label `labkit.stand-in` and labkit says when it makes one.
The one table of how is data/images.toml.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import httpx

from labkit.core import paths
from labkit.core.errors import BadInput, MissingPart, RunFailed, nearest
from labkit.servers import runtimes
from labkit.servers.images import long, runs
from labkit.servers.runtimes import fetch
from labkit.servers.runtimes.base import Say, to_stderr

STAND_IN = "labkit.stand-in"
_ANSWERS = {"docker.io": "registry-1.docker.io"}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def public_names() -> list[str]:
    """The images that data/images.toml has, without their other names."""
    return [str(row["ref"]) for row in _rows()]


def table() -> dict[str, dict[str, Any]]:
    """Public name -> its row of data/images.toml."""
    return {name: row for row in _rows() for name in (row["ref"], *row.get("aliases", ()))}


def _rows() -> list[dict[str, Any]]:
    return list(tomllib.loads(paths.data("images.toml").read_text(encoding="utf-8"))["image"])


def normal(ref: str) -> str:
    """The full name: "python:3.11-slim" -> "docker.io/library/python:3.11-slim"."""
    first, slash, _ = ref.partition("/")
    if not slash:
        ref = f"docker.io/library/{ref}"
    elif not ("." in first or ":" in first or first == "localhost"):
        ref = f"docker.io/{ref}"
    return ref if ":" in ref.rsplit("/", 1)[1] or "@" in ref else f"{ref}:latest"


def here(ref: str) -> bool:
    return runs.current().tool.run(["image", "inspect", normal(ref)], check=False).returncode == 0


def stand_in(ref: str) -> str | None:
    """What a stand-in is made of, by its label; None for a real one. Raises RunFailed where the image is not here."""
    about = json.loads(runs.current().tool.run(["image", "inspect", normal(ref)]).stdout)[0]
    return ((about.get("Config") or {}).get("Labels") or about.get("Labels") or {}).get(STAND_IN)


def ensure(ref: str, say: Say = to_stderr) -> str:
    """Its full name, once the image is here. Raises RunFailed: cannot be pulled and is in no row of data/images.toml."""
    full = normal(ref)
    if here(full):
        return full
    if full.startswith("localhost/"):
        raise BadInput(f"image {full} is not here, and no registry has it", "build it first")
    with filelock.FileLock(paths.cache("images") / f".{_slug(full)}.lock"):
        if here(full):  # another process was quicker
            return full
        why = _pull(full, say)
        if why is None:
            return full
        rows = table()
        if full not in rows:
            known = nearest(full, rows)
            raise RunFailed(f"image {full} cannot be pulled ({why}), and labkit has no way to make it ({known})", "a registry that answers")
        row = rows[full]
        say(f"{full}: cannot be pulled ({why}); a stand-in is made here: {row['what']}")
        _made(full, row, say)
        say(f"{full} {row['version']} is here, as a stand-in")
    return full


def _pull(full: str, say: Say) -> str | None:
    """None where it was pulled; else why not. A registry that does not answer is given up within seconds."""
    host = full.partition("/")[0]
    if why := _silent(_ANSWERS.get(host, host)):
        return why
    tool = runs.current().tool
    try:
        long.run([tool.path, "pull", full], f"pulling {full}", say, "labkit doctor")
    except RunFailed as error:
        return error.cause
    return None


@functools.lru_cache
def _silent(host: str) -> str | None:
    """None where a registry answers there; else why it is of no use, remembered for this process."""
    try:
        status = httpx.get(f"https://{host}/v2/", timeout=httpx.Timeout(10, connect=fetch.CONNECT_S)).status_code
    except httpx.HTTPError as error:
        return f"{host} cannot be reached: {error or type(error).__name__}"
    return None if status in (200, 401) else f"{host} answers {status}"


def _made(full: str, row: dict[str, Any], say: Say) -> None:
    """Make it; what an earlier recipe left in the cache goes."""
    kept = paths.cache("images") / f"{_slug(full)}-{_key(row)}.tar"
    if row.get("kept") and kept.is_file():
        say(f"  from labkit's cache: {kept}")
    _HOW[row["how"]](full, row, kept, say)
    for old in kept.parent.glob(f"{_slug(full)}-*.tar"):
        if old != kept:
            old.unlink()


def _mmdebstrap(full: str, row: dict[str, Any], kept: Path, say: Say) -> None:
    """A Debian from its packages: a tar in the cache, imported."""
    tool = runs.current().tool
    if not kept.is_file():
        program = shutil.which("mmdebstrap")
        if program is None:
            raise MissingPart(f"{full} is made from Debian's packages, and mmdebstrap is not installed", "sudo apt-get install mmdebstrap")
        paths.check_room(kept.parent, 600_000_000, full)
        options = [f"--dpkgopt=path-exclude={path}" for path in row["without"]]
        options += [f"--include={','.join(row['packages'])}"] if row.get("packages") else []
        with paths.atomic_path(kept) as temporary:
            words = [program, "--variant=minbase", "--format=tar", f"--architectures={_ARCHITECTURES[platform.machine()]}", *options]
            long.run([*words, row["suite"], str(temporary)], f"{full} from Debian's packages", say, "labkit doctor")
    changes = [f"LABEL {STAND_IN}={json.dumps(row['what'])}", f"LABEL labkit.version={row['version']}", *row.get("changes", ())]
    tool.run(["import", *(word for change in changes for word in ("--change", change)), str(kept), full])


def _containerfile(full: str, row: dict[str, Any], kept: Path, say: Say) -> None:
    """Built from a folder in data/images/, with a runtime's folder where it says so."""
    from labkit.servers.images.build import made  # which asks this module for its own base images

    tool = runs.current().tool
    if row.get("kept") and kept.is_file():
        tool.run(["load", "--input", str(kept)])
        return
    contexts = {row["runtime"]: _runtime(row["runtime"], row["version"], say)} if "runtime" in row else {}
    labels = {STAND_IN: row["what"], "labkit.version": row["version"]}
    folder = paths.data("images", row["folder"])
    words = [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
    made(folder, folder / "Containerfile", full, words, say, contexts=contexts)
    _check(full, row["check"])
    if row.get("kept"):
        with paths.atomic_path(kept) as temporary:
            temporary.unlink()
            tool.run(["save", "--output", str(temporary), full])


def _check(full: str, words: list[str]) -> None:
    """Does its program run? One that was built on this machine may want newer libraries than Debian's. Removed where it does not."""
    run = runs.current()
    run.kept()
    try:
        run.tool.run(["run", "--rm", "--label", run.label, "--network=none", f"--entrypoint={words[0]}", full, *words[1:]])
    except RunFailed as error:
        run.tool.run(["rmi", full], check=False)
        raise RunFailed(f"the stand-in for {full} does not run: {error.cause}", "a registry that has the image") from error


def _runtime(name: str, version: str, say: Say) -> Path:
    """The folder of a runtime in that very version: the one labkit installed, or the one on PATH copied beside its libraries."""
    runtime = runtimes.open(name)
    found = runtime.install(say)
    if found.version != version:
        raise RunFailed(
            f"the image has {name} {version}, and {found.path} is {found.version}", f"a registry that has the image, or {name} {version}"
        )
    return found.path.resolve().parents[1]


_HOW: dict[str, Callable[[str, dict[str, Any], Path, Say], None]] = {"mmdebstrap": _mmdebstrap, "containerfile": _containerfile}


def _slug(full: str) -> str:
    return full.removeprefix("docker.io/").removeprefix("library/").replace("/", "-").replace(":", "-")


def _key(row: dict[str, Any]) -> str:
    """Its version, and a hash of how it is made."""
    text = repr(sorted(row.items()))
    if "folder" in row:
        folder = paths.data("images", row["folder"])
        text += "".join(path.read_text(encoding="utf-8") for path in sorted(folder.iterdir()))
    return f"{row['version']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
