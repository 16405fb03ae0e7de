"""The course's own service over ONNX Runtime GenAI (labs/stacks/onnx) as a server: FastAPI in front, the model in a process behind it.

It is started as anyone would start it, and knows nothing of labkit. A GGUF file or a Hugging Face folder is converted once, into
the cache. Each request starts with an empty KV cache.

>>> with servers.open("onnx").start(models.resolve("smollm2-135m"), parallel=2) as running:
...     print(running.base_url)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from labkit.core import extras, paths
from labkit.core.errors import BadInput
from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.servers.base import HOST, Server

FORMATS = frozenset({"onnx-genai", "hf", "gguf"})


class Options(BaseModel):
    """`context` is each request's; `parallel` requests are answered in turns, `queue_length` more may wait, the next is refused (429).

    recipe: how another format is converted (labkit.quant.onnx.RECIPES); int4-shared is the smallest.
    """

    model_config = ConfigDict(extra="forbid")

    threads: int | None = Field(None, ge=1)
    context: int = Field(2048, ge=32)
    parallel: int = Field(4, ge=1)
    queue_length: int = Field(16, ge=0)
    drain_seconds: float = Field(4.0, gt=0, description="how long running answers may go on after SIGTERM")
    recipe: str = "int4-shared"


class Onnx(Server):
    name = "onnx"
    health = "/health/ready"
    kept = True  # it does not watch who started it

    def missing(self) -> str | None:
        return extras.missing("onnx")

    def version(self) -> str | None:
        return None if self.missing() else extras.version("onnx")

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        chosen = parse(Options, self.name, options)
        ready = as_onnx(model, chosen.recipe)
        told = {
            "model": ready.path, "name": model.name, "host": HOST, "port": port, "threads": chosen.threads or 0, "context": chosen.context,
            "parallel": chosen.parallel, "queue-length": chosen.queue_length, "drain-seconds": chosen.drain_seconds,
        }  # fmt: skip
        # -P: the folder that this process happens to be in is no place to look for modules
        return [sys.executable, "-P", "-m", "service", *(word for key, value in told.items() for word in (f"--{key}", str(value)))]

    def environment(self, port: int, folder: Path) -> dict[str, str]:
        return {"PYTHONPATH": os.pathsep.join(filter(None, (str(paths.labs("stacks", "onnx")), os.environ.get("PYTHONPATH"))))}


SERVER = Onnx()


def as_onnx(model: ModelRef, recipe: str) -> ModelRef:
    """The model as an ONNX Runtime GenAI folder: itself, or converted once, into the cache."""
    if model.format not in FORMATS:
        raise BadInput(f"the ONNX service reads ONNX GenAI folders and GGUF files, {model.name} is {model.format}", "labkit models")
    if model.format == "onnx-genai":
        return model
    from labkit.quant import onnx

    return onnx.convert(model, recipe)
