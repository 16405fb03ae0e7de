"""Options of `load`, checked in one place: an unknown one is refused with the nearest known name."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labkit.core.errors import BadInput, nearest

Options = TypeVar("Options", bound=BaseModel)


class LlamaOptions(BaseModel):
    """What `llamacpp` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int | None = Field(None, ge=1, description="None: all cores this process may use")
    context: int = Field(2048, ge=32, description="tokens of prompt and answer together")
    kv: Literal["f16", "q8_0"] = "f16"
    ubatch: int = Field(512, ge=32, description="prompt tokens computed in one step")
    gpu_layers: int = Field(0, ge=-1, description="layers on the GPU; -1 all")
    mmap: bool = True
    check_memory: bool = True


class OpenAIOptions(BaseModel):
    """What `openai` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(None, description="base URL that ends in /v1; None starts a llama-server for the model")
    api_key: str = "none"
    timeout_s: float = Field(600, gt=0)
    threads: int | None = Field(None, ge=1)
    context: int = Field(2048, ge=32)


def parse(kind: type[Options], engine: str, given: dict[str, Any]) -> Options:
    """Validated options. Raises BadInput: unknown name (nearest suggested) or wrong type."""
    for name in given:
        if name not in kind.model_fields:
            raise BadInput(f"engine {engine} has no option {name!r} ({nearest(name, kind.model_fields)})", "labkit doctor")
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"option {first['loc'][0]} of engine {engine}: {first['msg'].lower()}", "labkit bench --help") from None
