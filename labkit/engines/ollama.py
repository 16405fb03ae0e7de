"""Ollama through its official client. With an address it uses that Ollama, else it starts one of its own and stops it.

On an Ollama that is not labkit's a GGUF file becomes a model under a name of labkit's own (labkit-…), which close() deletes.
Chats go through Ollama's template; a plain prompt goes in raw. What its API cannot say or do is not made up: prompts of token
ids and `ignore_eos` are refused, and how many prompt tokens came from its cache is unknown. Ollama shortens a prompt that
does not fit the context, without a word; labkit cannot see that.

>>> session = engines.open("ollama").load(models.resolve("smollm2-135m"), context=2048)
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field

from labkit import servers
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import Chunk, ModelRef, Request, Usage
from labkit.engines.options import parse
from labkit.models import sha256_of
from labkit.servers import ollama as server

_RUNNING = "start it again and load the model again"
# Ollama 0.24's runner may never answer again when a request follows at once on a stream that was dropped (seen after 96 drops)
_CALM_S = 0.3
_OURS = re.compile(r"^labkit-.*-p(\d+)-[0-9a-f]{6}$")


class OllamaOptions(BaseModel):
    """What `ollama` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(None, description="an Ollama's address, with or without /v1; None: the usual one, else labkit's own")
    threads: int | None = Field(None, ge=1, description="None: Ollama decides")
    context: int = Field(2048, ge=32, description="tokens of prompt and answer together")
    keep_alive: str | int = Field("10m", description="how long the model stays loaded after a request")
    own: bool = Field(False, description="start an Ollama even where the usual address answers")
    timeout_s: float = Field(600, gt=0)


class Ollama:
    name = "ollama"
    formats = frozenset({"gguf", "endpoint"})

    def missing(self) -> str | None:
        """The client is needed, and an Ollama: one that answers, or a program."""
        try:
            server.library()
        except MissingPart as error:
            return f"{error.cause}; install it: {error.next}"
        return None if server.answers(server.address()) else servers.open("ollama").missing()

    def version(self) -> str:
        return servers.open("ollama").version() or server.answers(server.address()) or importlib.metadata.version("ollama")

    def load(self, model: ModelRef, **options: Any) -> OllamaSession:
        """Options: see OllamaOptions."""
        chosen = parse(OllamaOptions, self.name, options)
        if model.format not in self.formats:
            raise BadInput(f"engine ollama reads GGUF files, {model.name} is {model.format}", "labkit doctor")
        server.library()
        url = server.address(chosen.url.rstrip("/").removesuffix("/v1")) if chosen.url else None
        usual = server.address()
        if url is None and not chosen.own and server.answers(usual):
            url = usual
        return OllamaSession(model, chosen, url)


ENGINE = Ollama()


class OllamaSession:
    """A model in an Ollama."""

    engine_name = Ollama.name
    refuses = frozenset({"tokens", "ignore_eos"})

    def __init__(self, model: ModelRef, options: OllamaOptions, url: str | None) -> None:
        self.model, self.threads, self.context = model, options.threads, options.context
        self.load_s: float | None = None
        self._usage, self._options = Usage(), options
        self._running: servers.Running | None = None
        self._made: str | None = None
        self._api = server.library()
        self._client: Any = None
        try:
            if url is None:
                limits = {"threads": options.threads} if options.threads else {}
                self._running = servers.open("ollama").start(model, context=options.context, parallel=1, **limits)
                self.url, self.remote_name = self._running.url, model.name
            else:
                self.url, self.remote_name = url, self._registered(model, url)
            self.engine_version = server.answers(self.url)
            self._client = self._api.Client(host=self.url, timeout=options.timeout_s)
            # one token: the model is loaded with these options now, and Ollama says how long that took
            first = self._ask(lambda: self._client.generate(self.remote_name, " ", raw=True, options=self._limits | {"num_predict": 1}))
        except BaseException:
            self.close()
            raise
        self.load_s = None if first.load_duration is None else first.load_duration / 1e9

    @property
    def settings(self) -> dict[str, Any]:
        where = "labkit's own" if self._running else "given"
        return {"context": self.context, "ollama": where, "top_k": 0, "repeat_penalty": 1.0}

    @property
    def _limits(self) -> dict[str, Any]:
        threads = {"num_thread": self.threads} if self.threads else {}
        return {"num_ctx": self.context, **threads}

    def _registered(self, model: ModelRef, url: str) -> str:
        """The name that an Ollama knows the model by; a GGUF file is given to it under a name of ours."""
        known = server.names(url)
        if model.format == "endpoint":
            if model.name.removesuffix(":latest") not in known:
                has = ", ".join(known) or "none"
                raise BadInput(f"the Ollama at {url} has no model {model.name!r}, it has: {has}", "give a GGUF file, or one of those")
            return model.name
        for name in known:  # left behind by a labkit that was killed
            if (found := _OURS.match(name)) and not psutil.pid_exists(int(found[1])):
                server.delete(url, name)
        if model.name in known and server.holds(url, model.name, sha256_of(model.path)):
            return model.name
        self._made = f"labkit-{model.name}-p{os.getpid()}-{secrets.token_hex(3)}"
        self.url = url
        server.create(url, self._made, model.path)
        return self._made

    def stream(self, request: Request) -> Iterator[Chunk]:
        """Pieces as they come over the wire; their tokens are unknown, Ollama counts them at the end.

        Raises BadInput for a prompt of token ids, and for ignore_eos.
        """
        if request.tokens is not None:
            raise BadInput("Ollama's API takes no prompt of token ids", "give a text, or take --engine llamacpp")
        if request.ignore_eos:
            raise BadInput("Ollama ends at the end of the text: its API cannot go on (ignore_eos)", "take --engine llamacpp")
        if request.prompt == "":
            raise BadInput("the prompt is empty", 'give a text: labkit chat MODEL "Why is the sky blue?"')
        return self._stream(request)

    def _stream(self, request: Request) -> Iterator[Chunk]:
        self._usage = Usage(finish_reason="cancelled")
        options = self._limits | {
            "num_predict": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": 0,  # Ollama's own choice would be 40,
            "min_p": 0.0,
            "repeat_penalty": 1.0,  # and this 1.1: other engines do neither
            "seed": request.seed,
            "stop": list(request.stop),
        }
        common: dict[str, Any] = {"options": options, "stream": True, "keep_alive": self._options.keep_alive}
        if request.messages is not None:
            turns = [m.model_dump() for m in request.messages]
            parts = self._ask(lambda: self._client.chat(self.remote_name, turns, **common))
        else:
            parts = self._ask(lambda: self._client.generate(self.remote_name, request.prompt, raw=True, **common))
        last = None
        try:
            while (last := self._ask(lambda: next(parts, None))) is not None:
                text = last.message.content if request.messages is not None else last.response
                if text:
                    yield Chunk(text)
                if last.done:
                    break
        finally:
            parts.close()
            if last is not None and not last.done:
                time.sleep(_CALM_S)
        if last is None:
            raise RunFailed(f"the stream from {self.url} ended without a reason", _RUNNING)
        self._usage = Usage(prompt_tokens=last.prompt_eval_count, output_tokens=last.eval_count, finish_reason=last.done_reason)

    def _ask(self, call: Any) -> Any:
        """What the client answers; its errors as ours."""
        try:
            return call()
        except self._api.ResponseError as error:
            raise RunFailed(f"the Ollama at {self.url} answered {error.status_code}: {error.error[:300]}", "look at its log") from error
        except ConnectionError as error:
            raise RunFailed(f"no Ollama answers at {self.url} any more", _RUNNING) from error
        except Exception as error:
            # an Ollama that is killed in the middle shows as the transport's own error
            if type(error).__module__.split(".")[0] in ("httpx", "httpcore"):
                raise RunFailed(f"the stream from {self.url} was cut: {error}", _RUNNING) from error
            raise

    def usage(self) -> Usage:
        return self._usage

    def close(self) -> None:
        if self._client:
            self._client.close()
        if self._made:
            server.delete(self.url, self._made)
            self._made = None
        if self._running:
            self._running.stop()

    def __enter__(self) -> OllamaSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
