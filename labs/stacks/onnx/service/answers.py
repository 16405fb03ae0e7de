"""Answers in OpenAI's two shapes: chat.completion and text_completion, whole and in chunks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from service.queue import Job


@dataclass
class Shape:
    operation: str  # as OpenTelemetry calls it
    model: str
    prefix: str
    kinds: tuple[str, str]  # the object of a whole answer, of a chunk
    full: Callable[[str], dict[str, Any]]  # a text in a whole answer's choice
    part: Callable[[str], dict[str, Any]]  # a text in a chunk's choice
    opening: dict[str, Any] | None = None  # what a stream's first chunk has
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, job: Job) -> dict[str, Any]:
        choice = {"index": 0, **self.full(text), "logprobs": None, "finish_reason": job.reason}
        return self._frame(0, [choice]) | {"usage": usage(job)}

    def begin(self, with_usage: bool) -> Iterator[dict[str, Any]]:
        self._usage = {"usage": None} if with_usage else {}  # then every chunk has the field, as OpenAI's have
        if self.opening is not None:
            yield self._chunk(self.opening)

    def piece(self, text: str) -> dict[str, Any]:
        return self._chunk(self.part(text))

    def end(self, job: Job, with_usage: bool) -> Iterator[dict[str, Any]]:
        last = self.part("") if self.opening is None else {"delta": {}}
        yield self._chunk(last, job.reason)
        if with_usage:
            yield self._frame(1, []) | {"usage": usage(job)}

    def _chunk(self, content: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return self._frame(1, [{"index": 0, **content, "logprobs": None, "finish_reason": reason}]) | self._usage

    def _frame(self, kind: int, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.prefix + self.id, "object": self.kinds[kind], "created": self.created, "model": self.model, "choices": choices}


def chat(model: str) -> Shape:
    return Shape(
        "chat", model, "chatcmpl-", ("chat.completion", "chat.completion.chunk"),
        lambda text: {"message": {"role": "assistant", "content": text}}, lambda text: {"delta": {"content": text}},
        {"delta": {"role": "assistant", "content": ""}},
    )  # fmt: skip


def completion(model: str) -> Shape:
    return Shape("text_completion", model, "cmpl-", ("text_completion",) * 2, lambda text: {"text": text}, lambda text: {"text": text})


def usage(job: Job) -> dict[str, Any]:
    """Every request starts with an empty KV cache here, so none of its prompt's tokens come from one."""
    tokens = {
        "prompt_tokens": job.prompt_tokens,
        "completion_tokens": job.output_tokens,
        "total_tokens": job.prompt_tokens + job.output_tokens,
    }
    return tokens | {"prompt_tokens_details": {"cached_tokens": 0}}
