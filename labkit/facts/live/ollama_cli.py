"""What the program `ollama` says: Modelfiles, environment names, and what it does without a server."""

from __future__ import annotations

import secrets
import socket
import tempfile
from pathlib import Path

from labkit.facts.live import ollama_api
from labkit.facts.live.world import Seen, World, ask, call, quote

_REAL = ("OLLAMA_NUM_PARALLEL", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_KEEP_ALIVE", "OLLAMA_FLASH_ATTENTION")
_UNREAL = ("OLLAMA_NUM_GPU", "OLLAMA_NUM_THREAD", "OLLAMA_GPU_LAYERS")


def run(
    world: World, *words: str, host: str | None = None, seconds: float = 60, cwd: Path | None = None, **environment: str
) -> tuple[int, str]:
    """`ollama WORDS` against the world's server, or another address."""
    address = host or (world.ollama_url or "").removeprefix("http://")
    return call(str(world.ollama_program), *words, seconds=seconds, cwd=cwd, OLLAMA_HOST=address, **environment)


def create(world: World, line: str) -> tuple[int, str]:
    """`ollama create` of a Modelfile with one line more than FROM; what it made is deleted."""
    name = f"labkit-claim-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="labkit-claim-") as folder:
        file = Path(folder, "Modelfile")
        Path(folder, "guidelines.txt").write_text("Answer briefly.\n", encoding="utf-8")
        file.write_text(f"FROM {world.ollama_model}\n{line}\n", encoding="utf-8")
        try:
            return run(world, "create", name, "-f", str(file), cwd=Path(folder))
        finally:
            ask(world.url("ollama") + "/api/delete", {"model": name}, method="DELETE")


def _refused(world: World, line: str) -> Seen:
    fine, said = create(world, "PARAMETER num_ctx 512")
    if fine != 0:
        return None, f"a Modelfile with nothing wrong is refused too: {quote(said)}"
    code, said = create(world, line)
    return code != 0, f"`ollama create` with {line!r} ends with {code}: {quote(said[-160:])}"


def context_length(world: World) -> Seen:
    """`ollama-modelfile-context-length`"""
    return _refused(world, "PARAMETER context_length 4096")


def knowledge_file(world: World) -> Seen:
    """`ollama-modelfile-file`"""
    return _refused(world, "FILE ./guidelines.txt")


def _serve_help(world: World) -> str:
    return run(world, "serve", "--help")[1]


def unread_names(world: World) -> Seen:
    """`ollama-env-num-gpu-thread-layers`: names in `ollama serve --help`, which lists what the server reads."""
    said = _serve_help(world)
    if "OLLAMA_HOST" not in said:
        return None, "`ollama serve --help` of this release lists no environment names"
    found = [name for name in _UNREAL if name in said.split()]
    return not found, f"`ollama serve --help` lists {said.count('OLLAMA_')} names and of {', '.join(_UNREAL)} {', '.join(found) or 'none'}"


def real_names(world: World) -> Seen:
    """`ollama-env-real`"""
    said = _serve_help(world)
    if "OLLAMA_HOST" not in said:
        return None, "`ollama serve --help` of this release lists no environment names"
    gone = [name for name in _REAL if name not in said.split()]
    return not gone, f"`ollama serve --help` lists {', '.join(n for n in _REAL if n not in gone) or 'none of the four'}" + (
        f", but not {', '.join(gone)}" if gone else ""
    )


def max_vram(world: World) -> Seen:
    """`ollama-max-vram`"""
    words = _serve_help(world).split()
    if "OLLAMA_HOST" not in words:
        return None, "`ollama serve --help` of this release lists no environment names"
    why = f"OLLAMA_MAX_VRAM in `ollama serve --help`: {'OLLAMA_MAX_VRAM' in words}; OLLAMA_GPU_OVERHEAD: {'OLLAMA_GPU_OVERHEAD' in words}"
    return "OLLAMA_MAX_VRAM" not in words, why


def on_run(world: World) -> Seen:
    """`ollama-env-on-run`: a context length in the environment of `ollama run`, and the context that the server then has."""
    ollama_api.unload(world)  # the new model is the same file, and a loaded one would be used as it is
    with ollama_api.made(world, parameters={"num_predict": 1}) as (name, answer):
        answer.raise_for_status()
        code, said = run(world, "run", name, "hi", OLLAMA_CONTEXT_LENGTH="640")
        row = ollama_api.loaded(world, name)
        ollama_api.unload(world, name)
    if code != 0 or row is None or "context_length" not in row:
        return None, f"`ollama run` ended with {code}: {quote(said)}; /api/ps does not say the context"
    return row["context_length"] != 640, f"OLLAMA_CONTEXT_LENGTH=640 on `ollama run`; the server's context is {row['context_length']}"


def without_a_server(world: World) -> Seen:
    """`ollama-ci-pull`, `ollama-dockerfile-run-pull` and `ollama-one-command`: a command while nothing listens.

    On macOS and Windows the program opens its desktop app instead, so it is only tried on other systems.
    """
    if world.system in ("Darwin", "Windows"):
        return None, f"on {world.system} the program starts its desktop app; a container or a CI runner with Linux shows it"
    with socket.socket() as taken:  # bound and never listening: nobody else can take the port, and a call is refused
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = run(world, "pull", "labkit-claim-nothing", host=host)
    return code != 0, f"`ollama pull` while no server runs ends with {code}: {quote(said)}"


def no_model_yet(world: World) -> Seen:
    """`ollama-one-command`: `ollama run` on a machine where no server has been started."""
    if world.system in ("Darwin", "Windows"):
        return None, f"on {world.system} the program starts its desktop app, which is a server"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        code, said = run(world, "run", "labkit-claim-nothing", "hi", host=f"127.0.0.1:{taken.getsockname()[1]}")
    return code != 0, f"`ollama run` before `ollama serve` ends with {code}: {quote(said)}"


def in_apt(world: World) -> Seen:
    """`ollama-apt`: what the system's package list says."""
    code, said = call(str(world.program("apt-cache")), "policy", "coreutils", LC_ALL="C")
    if code != 0 or "Candidate:" not in said:
        return None, "apt-cache knows no packages here; run: apt-get update"
    found = call(str(world.program("apt-cache")), "policy", "ollama", LC_ALL="C")[1]
    has = "Candidate:" in found and "Candidate: (none)" not in found
    return (
        not has,
        f"`apt-cache policy ollama` says {quote(found)!r}" if found else "`apt-cache policy ollama` says nothing: no such package",
    )
