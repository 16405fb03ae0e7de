"""Any OpenAI-compatible endpoint, through the official client. Without a URL it starts a llama-server for the model."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import Any, cast

from labkit import servers
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import Chunk, ModelRef, Request, Usage
from labkit.engines.options import OpenAIOptions, parse


class OpenAI:
    name = "openai"
    formats = frozenset({"gguf", "endpoint"})

    def missing(self) -> str | None:
        try:
            importlib.metadata.version("openai")
        except importlib.metadata.PackageNotFoundError:
            return "the openai client is not installed; install it: uv sync --inexact"
        return None

    def version(self) -> str:
        return importlib.metadata.version("openai")

    def load(self, model: ModelRef, **options: Any) -> OpenAISession:
        """Options: see OpenAIOptions."""
        chosen = parse(OpenAIOptions, self.name, options)
        if why := self.missing():
            raise MissingPart(why)
        running = None
        if chosen.url is None:
            limits = {"threads": chosen.threads} if chosen.threads else {}
            running = servers.open("llama_server").start(model, context=chosen.context, parallel=1, **limits)
        return OpenAISession(model, chosen, chosen.url or running.base_url, running)  # type: ignore[union-attr]


ENGINE = OpenAI()


class OpenAISession:
    """A model behind an endpoint. Token counts are the server's; what it does not say is None."""

    engine_name = OpenAI.name
    load_s: float | None = None

    def __init__(self, model: ModelRef, options: OpenAIOptions, url: str, running: servers.Running | None) -> None:
        import openai

        self.model, self.url, self._running, self._api = model, url, running, openai
        self.engine_version: str | None = ENGINE.version()
        self.threads = options.threads
        self.settings: dict[str, Any] = {"endpoint": "labkit's llama-server" if running else "given"}
        self._client = openai.OpenAI(base_url=url, api_key=options.api_key, timeout=options.timeout_s, max_retries=0)
        self._usage = Usage()
        try:
            known = [m.id.removesuffix(":latest") for m in self._client.models.list()]
        except openai.APIConnectionError as error:
            self.close()
            raise MissingPart(f"no server answers at {url} ({error})", "labkit serve MODEL, then pass its base_url as --url") from error
        except openai.APIStatusError:
            known = []  # some endpoints list no models
        self.remote_name = model.name if model.name in known or not known else known[0]
        if known and model.name not in known and model.format == "endpoint":
            self.close()
            raise BadInput(f"the server at {url} has no model {model.name!r}, it has: {', '.join(known)}", f"use {known[0]}")

    def stream(self, request: Request) -> Iterator[Chunk]:
        """Chunks as they come over the wire; their tokens are unknown, the server counts them at the end."""
        api = self._api
        self._usage = Usage(finish_reason="cancelled")
        common: dict[str, Any] = {
            "model": self.remote_name,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.stop:
            common["stop"] = list(request.stop)
        extra: dict[str, Any] = {"ignore_eos": True} if request.ignore_eos else {}
        if self._running:
            extra["cache_prompt"] = request.keep_cache
        try:
            events: Any
            if request.messages is not None:
                events = self._client.chat.completions.create(
                    messages=cast(Any, [m.model_dump() for m in request.messages]), extra_body=extra, **common
                )
            else:
                text = request.prompt if request.tokens is None else list(request.tokens)
                events = self._client.completions.create(prompt=text, extra_body=extra, **common)
            with events:
                yield from self._read(events)
        except api.APIStatusError as error:
            raise RunFailed(
                f"the server at {self.url} answered {error.status_code}: {_message(error)}", "look at the server's log"
            ) from error
        except api.APIConnectionError as error:
            raise RunFailed(f"the connection to {self.url} was lost: {error}", "is the server still running?") from error
        except api.APIError as error:
            raise RunFailed(f"the server at {self.url} broke off: {error}", "look at the server's log") from error
        except Exception as error:
            # a server killed in the middle of a stream shows as the transport's own error, which depends on the client's version
            if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2"):
                raise RunFailed(f"the stream from {self.url} was cut: {error}", "is the server still running?") from error
            raise

    def _read(self, events: Any) -> Iterator[Chunk]:
        reason = None
        for event in events:
            for choice in event.choices:
                reason = choice.finish_reason or reason
                delta = getattr(choice, "delta", None)
                text = choice.text if delta is None else (delta.content or getattr(delta, "reasoning_content", None) or "")
                if text:
                    yield Chunk(text)
            if event.usage:
                details = event.usage.prompt_tokens_details
                self._usage = Usage(
                    prompt_tokens=event.usage.prompt_tokens,
                    output_tokens=event.usage.completion_tokens,
                    cached_tokens=details.cached_tokens if details else None,
                )
        if reason is None:
            raise RunFailed(f"the stream from {self.url} ended without a reason", "is the server still running?")
        self._usage = self._usage.model_copy(update={"finish_reason": reason})

    def usage(self) -> Usage:
        return self._usage

    def close(self) -> None:
        self._client.close()
        if self._running:
            self._running.stop()

    def __enter__(self) -> OpenAISession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _message(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error)[:300]
