"""Options of `load`, checked in one place: an unknown one is refused with the nearest known name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from labkit.core import options
from labkit.core.options import Options


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
    return options.parse(kind, f"engine {engine}", given, "labkit bench --help")
