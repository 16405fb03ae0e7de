"""The one table of stacks: what each needs to be built, started, given its model and robbed of it. A new stack is one row."""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai

from labkit import models
from labkit.core import paths
from labkit.quant import hf, onnx
from labkit.servers import images
from labkit.servers import ollama as ollama_server
from labkit.servers.base import free_port
from labkit.servers.images.build import run_tag

FOLDER = paths.labs("stacks")
MODEL = "smollm2-135m"


@dataclass(frozen=True)
class Stack:
    """`put` gives a container its model while it runs, `take` removes it: (container, the folder mounted at /models).

    with_model and without: build arguments of the two ways. bring: puts into a copy of the stack's folder what the first of
    them needs. volume: /models is a named volume that the server writes to.
    """

    name: str
    port: int  # inside
    service: str  # its name in compose.yaml
    memory_mb: int
    put: Callable[[images.Container, Path], None]
    take: Callable[[images.Container, Path], None]
    pids: int = 64
    volume: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    compose_env: Mapping[str, str] = field(default_factory=dict)
    with_model: Mapping[str, str] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=lambda: {"MODEL": "none"})
    bring: Callable[[Path], None] = lambda folder: None
    timeout_s: int = 900  # for one test: the first of a stack builds its image
    image_variable: str = "IMAGE"  # what compose.yaml calls the image's name
    start_s: float = 180
    door: Callable[[Path], contextlib.AbstractContextManager[Door]] | None = None  # how its Compose stack is reached, where not plainly

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    def readme(self, text: str, container: images.Container, with_model: images.Image, without: images.Image) -> str:
        """A command of its README.md with this run's names and port in place of those that a reader types."""
        port = next(iter(container.ports.values()))
        names = {f"slm-{self.name}:none": without.ref, f"slm-{self.name}": with_model.ref, f"my-{self.name}": container.name}
        for name, ours in {**names, f"127.0.0.1:{self.port}": f"127.0.0.1:{port}"}.items():
            text = text.replace(name, ours)
        return text


@dataclass
class Door:
    """What the Compose file's variables are set to, and a client of what it publishes."""

    env: dict[str, str]
    port: int
    client: Callable[[], openai.OpenAI]


def client(base_url: str, key: str = "none", context: ssl.SSLContext | bool = True) -> openai.OpenAI:
    """The official client, without retries: an answer that fails is seen."""
    return openai.OpenAI(
        base_url=base_url, api_key=key, max_retries=0, timeout=120, http_client=httpx.Client(verify=context, trust_env=False)
    )


@contextlib.contextmanager
def plain(_: Path) -> Iterator[Door]:
    port = free_port()
    yield Door({"PORT": str(port)}, port, lambda: client(f"http://127.0.0.1:{port}/v1"))


@contextlib.contextmanager
def behind_a_proxy(folder: Path) -> Iterator[Door]:
    """Ollama's: TLS and a key, both made for this run."""
    port, secrets = free_port(), images.folder("secrets")
    subprocess.run(["sh", str(folder / "secrets.sh"), str(secrets)], check=True, capture_output=True)
    trusted = ssl.create_default_context(cafile=str(secrets / "ca_cert"))
    key = (secrets / "client_key").read_text(encoding="ascii").strip()
    env = {"PORT": str(port), "SECRETS": str(secrets), "PROXY_IMAGE": run_tag("proxy")}
    try:
        yield Door(env, port, lambda: client(f"https://127.0.0.1:{port}/v1", key, trusted))
    finally:
        shutil.rmtree(secrets, ignore_errors=True)


def put_gguf(_: images.Container, folder: Path) -> None:
    """A whole file appears at once: a server that waits for it never sees half of it."""
    shutil.copyfile(models.resolve(MODEL).path, folder / "coming")
    (folder / "coming").rename(folder / "model.gguf")


def take_gguf(_: images.Container, folder: Path) -> None:
    (folder / "model.gguf").unlink()


def in_place(model: Path, target: Path) -> None:
    """A copy of a model's folder that any user may read, there at once."""
    coming = target.with_name("coming")
    shutil.copytree(model, coming)
    for path in [coming, *coming.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    coming.rename(target)


def onnx_model() -> Path:
    return onnx.convert(models.resolve(MODEL), "int4-shared", progress=False).path


def hf_model() -> Path:
    return hf.to_hf(models.resolve(MODEL)).path


def folder_of(model: Callable[[], Path]) -> dict[str, Any]:
    """What a row says whose server reads a folder /models/model."""
    return {
        "bring": lambda source: in_place(model(), source / "models" / "model"),
        "put": lambda _, folder: in_place(model(), folder / "model"),
        "take": lambda _, folder: shutil.rmtree(folder / "model"),
    }


def create(container: images.Container, _: Path) -> None:
    container.wait("/api/version")
    ollama_server.create(container.url, MODEL, models.resolve(MODEL).path)


def delete(container: images.Container, _: Path) -> None:
    ollama_server.delete(container.url, MODEL)


# one thread: with two on two busy cores llama.cpp's threads wait for each other most of the time
_ONE = {"THREADS": "1"}

STACKS = [
    Stack("llama", 8080, "llama", 512, put_gguf, take_gguf, env=_ONE, compose_env=_ONE),
    Stack("ollama", 11434, "model", 768, create, delete, pids=128, volume=True, door=behind_a_proxy, image_variable="MODEL_IMAGE"),
    Stack("onnx", 8080, "onnx", 768, **folder_of(onnx_model), env={"SERVICE_THREADS": "1"}, compose_env=_ONE),
    # 6 GB of packages: a quarter of an hour where no layer is cached; its container starts twice in a session, a minute or two each time
    Stack("vllm", 8000, "vllm", 3072, **folder_of(hf_model), pids=256, env=_ONE, compose_env=_ONE, start_s=400, timeout_s=3000),
]
ONLY = os.environ.get("STACKS", "").split()  # STACKS="llama onnx" make stacks
