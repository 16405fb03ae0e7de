"""Lab 16's workplace for containers: the stack's images, built once each, and containers of them.

labkit.servers.images removes all of it when the kernel ends, however it ends; `close()` does so now. The images are built
from a copy of labs/stacks/ollama, so that the lab may change a line of it.

>>> with Desk(models.resolve("smollm2-135m")) as desk:
...     with desk.run("file") as container:
...         container.wait()
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from labkit.core import paths
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import ModelRef
from labkit.servers import images
from labkit.servers import ollama as server

Rows = list[dict[str, Any]]
PORT = 11434  # Ollama's, inside
NAME = "smollm2-135m"  # what the stack's image calls its model, whichever it is
STORE = "/models"  # where it keeps models
GGUF = "models/model.gguf"  # where its Containerfile looks for a file of one's own


class Desk:
    """`image("none")` is the stack's image without a model, `image("file")` the one with the lab's model in a layer."""

    def __init__(self, model: ModelRef | None, threads: int = 1, engine: str = "ollama") -> None:
        if engine != "ollama":
            raise BadInput(f"this lab is about Ollama in containers, not about engine {engine}", "-p engine ollama")
        self.model, self.threads = model, threads
        self._images: dict[str, images.Image] = {}
        self.peaks: list[int] = []  # bytes, of the control groups of containers and stacks that have ended

    def require(self) -> ModelRef:
        if self.model is None:
            raise MissingPart("this lab plays its recording: there is no model", "labkit doctor")
        if self.model.format != "gguf":
            raise BadInput(f"Ollama reads GGUF files, {self.model.name} is {self.model.format}", "a path of a GGUF file")
        return self.model

    def build(self, tag: str, model: Path | None = None, edits: Mapping[str, tuple[str, str]] | None = None, **args: str) -> images.Image:
        """The stack's image with these build arguments; steps that are built already come from the cache.

        model: the GGUF file that lies in the build folder as models/model.gguf. edits: file -> (old text, new text).
        Raises BadInput where the old text is not in the file once.
        """
        folder = images.folder("build")
        try:
            self.copy(folder)
            if model:
                shutil.copyfile(model, folder / GGUF)
            for file, (old, new) in {**self._threads(), **(edits or {})}.items():
                text = (folder / file).read_text(encoding="utf-8")
                if text.count(old) != 1:
                    raise BadInput(f"{old!r} is {text.count(old)} times in the stack's {file}, not once", "git checkout labs/stacks/ollama")
                (folder / file).write_text(text.replace(old, new), encoding="utf-8")
            return images.build(folder, f"ollama:{tag}", args=args)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _threads(self) -> dict[str, tuple[str, str]]:
        """Ollama takes a thread for each core that it sees; how many is a parameter of the model."""
        line = "FROM ./model.gguf"
        return {"Modelfile": (line, f"{line}\nPARAMETER num_thread {self.threads}")} if self.threads else {}

    def give(self, container: images.Container, model: ModelRef | None = None) -> None:
        """Create the model (None: the lab's own) in a running container, by its bytes over HTTP."""
        container.wait("/api/version")
        server.create(container.url, NAME, (model or self.require()).path, {"num_thread": self.threads} if self.threads else {})

    def copy(self, folder: Path) -> None:
        """The stack's files, without models and secrets that a user has put beside them."""
        unwanted = shutil.ignore_patterns("*.gguf", "secrets")
        shutil.copytree(paths.labs("stacks", "ollama"), folder, dirs_exist_ok=True, ignore=unwanted)

    def image(self, kind: str = "file") -> images.Image:
        """ "none", or "file": with the lab's model. Built the first time it is asked for."""
        if kind not in self._images:
            self._images[kind] = self.build(kind, self.require().path if kind == "file" else None, MODEL=kind)
        return self._images[kind]

    @contextlib.contextmanager
    def run(
        self,
        image: str | images.Image = "file",
        *,
        memory_mb: float = 1024,
        cpus: float = 2.0,
        env: Mapping[str, str] | None = None,
        volumes: Sequence[tuple[Any, str, str]] = (),
        **options: Any,
    ) -> Iterator[images.Container]:
        """A hardened container, published on a free port of 127.0.0.1; stopped at the end of the block.

        An image without a model gets an empty volume for its models, where none is given: its own files are read-only.
        """
        chosen = self.image(image) if isinstance(image, str) else image
        store = images.volume("models") if image == "none" and not volumes else None
        given = {"OLLAMA_CONTEXT_LENGTH": "1024", "OLLAMA_NUM_PARALLEL": "1", **(env or {})}
        places = [(store, STORE, "rw")] if store else volumes
        try:
            with images.run(chosen, port=PORT, memory_mb=memory_mb, cpus=cpus, env=given, volumes=places, **options) as container:
                try:
                    yield container
                finally:
                    self.peaks.append(container.peak_memory_bytes)
        finally:
            if store:
                store.remove()

    @property
    def peak_bytes(self) -> int:
        """The most that the containers of one moment held: the lab runs one at a time, or one stack."""
        return max(self.peaks, default=0)

    def close(self) -> None:
        """Remove the images' tags; their layers stay and make the next build quick."""
        for image in self._images.values():
            image.remove()
        self._images.clear()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def post(url: str, name: str, tokens: int = 1, prompt: str = "Tell me about the sea.", **options: Any) -> httpx.Response:
    """One request to Ollama's own API, with so many tokens of answer."""
    settings = {"num_predict": tokens, "temperature": 0, **options}
    body = {"model": name, "prompt": prompt, "stream": False, "options": settings}
    return httpx.post(f"{url}/api/generate", json=body, timeout=300, trust_env=False)


def ask(container: images.Container, tokens: int = 1, prompt: str = "Tell me about the sea.", **options: Any) -> httpx.Response:
    """The same to a container's model."""
    return post(container.url, NAME, tokens, prompt, **options)


def told(reply: httpx.Response) -> dict[str, Any]:
    """What Ollama says in a good answer. Raises RunFailed with its words otherwise."""
    if reply.status_code != 200:
        raise RunFailed(f"Ollama answered {reply.status_code}: {reply.text[:200]}", "run the cell again")
    return dict(reply.json())
