"""The records that everything passes on: what was asked, what came back, when, and on what machine.

Marks are raw `perf_counter_ns` readings; every rate is a property derived from marks and counted tokens. Unknown is
None, never an estimate.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

SCHEMA = 1
Role = Literal["system", "user", "assistant"]


class Record(BaseModel):
    """Frozen; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class ModelRef(Record):
    """A model on this machine: what `engines` load. `path` is a file (gguf) or a folder (onnx-genai, hf)."""

    name: str
    path: Path
    format: str
    sha256: str | None = None
    licence: str | None = None


class Message(Record):
    role: Role
    content: str


class Request(Record):
    """One generation: exactly one of `messages` (chat template applied), `prompt` (plain text) or `tokens` (ids)."""

    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    tokens: tuple[int, ...] | None = None
    max_tokens: int = Field(128, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = Field(False, description="go on past the end-of-text token: for benchmarks")
    keep_cache: bool = Field(False, description="reuse the KV cache of a prompt that starts like the last one")

    @model_validator(mode="after")
    def _one_input(self) -> Request:
        given = [self.messages is not None, self.prompt is not None, self.tokens is not None]
        if sum(given) != 1:
            raise ValueError("give exactly one of messages, prompt and tokens")
        return self

    @classmethod
    def chat(cls, text: str, system: str | None = None, history: Sequence[Message] = (), **options: Any) -> Request:
        """A chat request: system prompt, earlier turns, then `text` as the user's."""
        first = (Message(role="system", content=system),) if system else ()
        return cls(messages=(*first, *history, Message(role="user", content=text)), **options)


class Chunk(NamedTuple):
    """A piece of a stream. `tokens` is how many tokens it stands for, None where the engine does not say."""

    text: str
    tokens: int | None = None


class Usage(Record):
    """Counts of the last finished stream, as the engine gives them."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = Field(None, description="prompt tokens taken from the KV cache")
    finish_reason: str | None = Field(None, description="stop | length | cancelled")


class Marks(Record):
    """perf_counter_ns readings: request sent, first token, last token. Only differences mean anything."""

    start: int
    first: int | None = None
    last: int | None = None


class Measurement(Record):
    """One request on one engine. JSON has the derived metrics too; reading it back recomputes them."""

    schema_version: int = Field(SCHEMA, alias="schema")
    model: str
    model_sha256: str | None = None
    engine: str
    engine_version: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    text: str = ""
    marks_ns: Marks
    token_marks_ns: tuple[int, ...] | None = None
    load_s: float | None = None
    threads: int | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    timestamp: str = Field(default_factory=lambda: now())

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True, ser_json_inf_nan="null")

    @model_validator(mode="before")
    @classmethod
    def _drop_derived(cls, data: Any) -> Any:
        if isinstance(data, dict):
            if data.get("schema", SCHEMA) != SCHEMA:
                raise ValueError(f"record of schema {data['schema']}, this labkit reads {SCHEMA}")
            data = {k: v for k, v in data.items() if k not in cls.model_computed_fields}
        return data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ttft_s(self) -> float | None:
        """Time to first token: from sending the request to the first token."""
        m = self.marks_ns
        return None if m.first is None else (m.first - m.start) / 1e9

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first: (last - first) / (output_tokens - 1)."""
        m = self.marks_ns
        if m.first is None or m.last is None or not self.output_tokens or self.output_tokens < 2 or m.last <= m.first:
            return None
        return (m.last - m.first) / 1e9 / (self.output_tokens - 1)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def decode_tokens_per_s(self) -> float | None:
        """1 / TPOT: output tokens only, the first one excluded (it belongs to prefill)."""
        return 1 / self.tpot_s if self.tpot_s else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Prompt tokens really processed (cached ones excluded) per second until the first token."""
        if not self.ttft_s or not self.prompt_tokens or self.cached_tokens is None:
            return None
        return (self.prompt_tokens - self.cached_tokens) / self.ttft_s


class RunRecord(Record):
    """One execution of one lab."""

    run_id: str
    lab: str
    parameters: dict[str, Any]
    status: Literal["ok", "failed", "refused", "timeout", "cached"]
    source: Literal["measured", "recorded"] | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    notebook: str | None = None
    error: str | None = None


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
