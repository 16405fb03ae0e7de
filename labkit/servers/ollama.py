"""Ollama as a server of labkit's own: its own port, its own empty model store that goes when it stops, one model in it.

The user's own Ollama, its port 11434 and its models are left alone. The settings are those of `ollama serve`: environment
variables, read once when it starts. Its prompt cache, its queue and its memory estimate are Ollama's own.

>>> with servers.open("ollama").start(models.resolve("smollm2-135m"), context=2048, parallel=2) as running:
...     print(running.base_url)
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field

from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.models import footprint, inspect, sha256_of
from labkit.servers import runtimes
from labkit.servers.base import HOST, Running, Server

PORT = 11434


class Options(BaseModel):
    """`context` is each request's; `parallel` requests are answered at once, the rest wait in a queue.

    keep_alive: how long the model stays loaded after a request, "5m" or seconds; -1: until it stops.
    """

    model_config = ConfigDict(extra="forbid")

    threads: int | None = Field(None, ge=1)
    context: int = Field(2048, ge=32)
    parallel: int = Field(4, ge=1)
    keep_alive: str | int = -1
    flash_attention: bool | None = Field(None, description="None: Ollama decides")
    kv: Literal["f16", "q8_0", "q4_0"] = Field("f16", description="q8_0 and q4_0 need flash_attention=True")
    max_loaded: int = Field(1, ge=1, description="models in memory at once")


class Ollama(Server):
    name = "ollama"
    health = "/api/version"
    own_folder = True
    kept = True  # it starts a process for each model, and notices nothing when we are killed

    def missing(self) -> str | None:
        return runtimes.open("ollama").missing()

    def version(self) -> str | None:
        found = runtimes.open("ollama").find()
        return found.version if found else None

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        chosen = parse(Options, self.name, options)
        if model.format != "gguf":
            raise BadInput(f"Ollama reads GGUF files, {model.name} is {model.format}", "labkit doctor")
        if chosen.kv != "f16" and not chosen.flash_attention:
            raise BadInput(f"kv={chosen.kv} needs flash attention", "flash_attention=True as well")
        footprint.check_fits(inspect.read(model.path), chosen.context * chosen.parallel, "f16", 512)
        return [str(runtimes.open("ollama").require().path), "serve"]

    def environment(self, port: int, folder: Path) -> dict[str, str]:
        # HOME too: it writes a key pair into ~/.ollama when it starts
        return {"OLLAMA_HOST": f"{HOST}:{port}", "OLLAMA_MODELS": str(folder / "models"), "HOME": str(folder)}

    def settings(self, options: dict[str, Any]) -> dict[str, str]:
        chosen = parse(Options, self.name, options)
        found = {
            "OLLAMA_CONTEXT_LENGTH": chosen.context,
            "OLLAMA_NUM_PARALLEL": chosen.parallel,
            "OLLAMA_KEEP_ALIVE": chosen.keep_alive,
            "OLLAMA_MAX_LOADED_MODELS": chosen.max_loaded,
            "OLLAMA_KV_CACHE_TYPE": chosen.kv,
            "OLLAMA_NO_CLOUD": 1,
        }
        if chosen.flash_attention is not None:
            found["OLLAMA_FLASH_ATTENTION"] = int(chosen.flash_attention)
        return {name: str(value) for name, value in found.items()}

    def ready(self, running: Running, model: ModelRef, options: dict[str, Any]) -> None:
        threads = parse(Options, self.name, options).threads
        create(running.url, model.name, model.path, {"num_thread": threads} if threads else {})


SERVER = Ollama()


def address(given: str | None = None) -> str:
    """Ollama's address as a client needs it: `given`, else OLLAMA_HOST, else the usual port. Without a path."""
    text = (given if given is not None else os.environ.get("OLLAMA_HOST", "")).strip()
    parts = urlsplit(text if "://" in text else f"http://{text}")
    host = parts.hostname or HOST
    host = HOST if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host  # noqa: S104 - what a server binds, not a client
    try:
        port = parts.port or (443 if parts.scheme == "https" else PORT)
    except ValueError:
        raise BadInput(f"{text!r} has no valid port", "OLLAMA_HOST=127.0.0.1:11434") from None
    return f"{parts.scheme}://{host}:{port}"


def answers(url: str) -> str | None:
    """The version of the Ollama at this address; None where none answers."""
    try:
        reply = httpx.get(f"{url}/api/version", timeout=2)
        return str(reply.raise_for_status().json()["version"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def create(url: str, name: str, path: Path, parameters: dict[str, Any] | None = None) -> None:
    """Give a GGUF file to an Ollama under a name: its bytes by the blobs API, unless it has them, then `create`.

    Raises RunFailed with what Ollama says; BadInput for a model in several files.
    """
    digest = f"sha256:{sha256_of(path)}"
    with _client(url) as client:
        try:
            if client.head(f"/api/blobs/{digest}").status_code != 200:
                with path.open("rb") as file:
                    client.post(f"/api/blobs/{digest}", content=file).raise_for_status()
            task = {"model": name, "files": {path.name: digest}, "parameters": parameters or {}, "stream": False}
            reply = client.post("/api/create", json=task)
        except httpx.HTTPError as error:
            raise RunFailed(f"Ollama at {url} did not take {path.name}: {error}", "is it still running?") from error
        said = reply.json()
        if reply.status_code != 200 or said.get("status") != "success":
            raise RunFailed(f"Ollama at {url} made no model of {path.name}: {said.get('error', said)}", f"labkit inspect {path}")


def delete(url: str, name: str) -> None:
    """Unload a model and forget it. One that is not there, or an Ollama that is gone, is no error."""
    try:
        with _client(url) as client:
            client.post("/api/generate", json={"model": name, "keep_alive": 0})
            client.request("DELETE", "/api/delete", json={"model": name})
    except httpx.TransportError:
        return  # with its server gone there is nothing left to forget


def names(url: str) -> list[str]:
    """The models that an Ollama has, without ":latest". Raises MissingPart where none answers."""
    try:
        with _client(url) as client:
            found = client.get("/api/tags").raise_for_status().json()
    except httpx.HTTPError as error:
        raise MissingPart(f"no Ollama answers at {url} ({error})", "ollama serve, or leave out the address") from error
    return [str(row["name"]).removesuffix(":latest") for row in found.get("models") or []]


def holds(url: str, name: str, sha256: str) -> bool:
    """Is the model of that name made of this very file?"""
    with _client(url) as client:
        reply = client.post("/api/show", json={"model": name})
    return reply.status_code == 200 and f"sha256-{sha256}" in reply.json().get("modelfile", "")


@functools.cache
def library() -> Any:
    """The official client. Raises MissingPart where it is not installed."""
    try:
        import ollama
    except ImportError as error:
        raise MissingPart("the ollama client is not installed", "uv sync --inexact") from error
    return ollama


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=httpx.Timeout(600, connect=5))
