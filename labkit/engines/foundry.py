"""Foundry Local: a model of one's own behind its web service, in a process that this engine starts and stops.

Why not the SDK's sessions in this process: the SDK loads its own build of onnxruntime-genai for the whole process, and after it
`import onnxruntime_genai` (the engine `ortgenai`) ends in "undefined symbol"; the other way round, the SDK runs on the older
build (SDK 2.2.1 beside onnxruntime-genai 0.14.1, tried here). The manager is also a singleton, so two models with different
settings would have to share it. The web service gives the same tokens for the same request.

What it does not take is refused: plain text and token ids (there is no /v1/completions), and going on past the end of a text
except for a whole session (`ignore_eos=True` at loading). Every request is computed from its first token: `keep_cache` cannot be had.

>>> session = engines.open("foundry").load(models.resolve("smollm2-135m"), threads=1)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from labkit import servers
from labkit.core import extras
from labkit.core.errors import BadInput, MissingPart
from labkit.core.records import Chunk, ModelRef, Request
from labkit.engines.openai import OpenAISession
from labkit.engines.options import OpenAIOptions, parse
from labkit.servers import foundry


class FoundryOptions(BaseModel):
    """What `foundry` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(None, description="base URL that ends in /catalogs/local/v1; None starts a service for the model")
    timeout_s: float = Field(600, gt=0)
    threads: int | None = Field(None, ge=1, description="None: ONNX Runtime chooses")
    context: int | None = Field(None, ge=32, description="tokens of prompt and answer together; None: the model's, 8192 at most")
    ignore_eos: bool = Field(False, description="no answer of this session ends before max_tokens: for benchmarks")


class Foundry:
    name = "foundry"
    formats = foundry.FORMATS | {"endpoint"}

    def missing(self) -> str | None:
        return extras.missing("foundry")

    def version(self) -> str:
        return extras.version("foundry")

    def load(self, model: ModelRef, **options: Any) -> FoundrySession:
        """Options: see FoundryOptions."""
        chosen = parse(FoundryOptions, self.name, options)
        settings = chosen.model_dump(include={"threads", "context", "ignore_eos"}, exclude_defaults=True)
        if chosen.url:
            if given := [name for name in settings if name != "context"]:
                raise BadInput(f"the service at {chosen.url} runs with its own {given[0]}", f"leave out {given[0]}, or leave out the URL")
            return FoundrySession(model, chosen, chosen.url, None)
        extras.require("foundry")
        ready = foundry.as_onnx(model)
        running = servers.open("foundry").start(ready.model_copy(update={"name": model.name}), **settings)
        return FoundrySession(ready, chosen, running.base_url, running)


ENGINE = Foundry()


class FoundrySession(OpenAISession):
    """A model behind Foundry Local's web service."""

    engine_name = Foundry.name

    def __init__(self, model: ModelRef, options: FoundryOptions, url: str, running: servers.Running | None) -> None:
        self.options, self._service = options, running
        self.refuses = frozenset({"tokens", "prompt", "keep_cache", *(() if options.ignore_eos else ("ignore_eos",))})
        try:
            super().__init__(model, OpenAIOptions(url=url, timeout_s=options.timeout_s, threads=options.threads), url, None)
        except MissingPart as error:
            raise MissingPart(error.cause, f"labkit serve {model.name} --server foundry, then pass its base_url as --url") from error
        if model.sha256 is None and model.path.is_dir():
            from labkit.quant import folders

            self.model = model.model_copy(update={"sha256": folders.digest(model.path)})
        self.engine_version = None if ENGINE.missing() else ENGINE.version()
        self.has_chat_template = running is None or foundry.has_chat_template(model.path)  # a given service has one of its own
        self.load_s = foundry.load_s(running) if running else None
        own = options.model_dump(include={"context", "ignore_eos"})
        self.settings = {"endpoint": "labkit's Foundry Local", **own} if running else {"endpoint": "given"}

    def stream(self, request: Request) -> Iterator[Chunk]:
        """Chunks as they come over the wire; the service counts the tokens.

        Raises: BadInput for what Foundry Local does not take (see the module).
        """
        if request.ignore_eos and not self.options.ignore_eos:
            raise BadInput("Foundry Local stops at the end of the text", "load the model with ignore_eos=True")
        if request.keep_cache:
            raise BadInput("Foundry Local's web service keeps no KV cache for the next request", "leave out keep_cache")
        if request.messages is None:
            raise BadInput("Foundry Local takes chat messages only, no plain text and no token ids", "Request.chat(...)")
        return super().stream(request)

    def close(self) -> None:
        super().close()
        if self._service:
            self._service.stop()
