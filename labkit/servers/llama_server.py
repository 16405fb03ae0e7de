"""llama.cpp's own HTTP server, from the prebuilt wheel xllamacpp: /v1, /health, /metrics, /slots, parallel slots.

Run as a module it is the server process itself: `python -m labkit.servers.llama_server '{"path": …}'`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
import threading
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from labkit.core import machine
from labkit.core.errors import BadInput
from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.models import footprint, inspect
from labkit.servers.base import HOST, Server


class Options(BaseModel):
    """`context` is each slot's; `parallel` slots answer at once."""

    model_config = ConfigDict(extra="forbid")

    threads: int | None = Field(None, ge=1)
    context: int = Field(2048, ge=32)
    parallel: int = Field(4, ge=1)
    cache_prompt: bool = True


class LlamaServer(Server):
    name = "llama_server"

    def missing(self) -> str | None:
        if importlib.util.find_spec("xllamacpp") is None:
            return "xllamacpp (llama.cpp's server) is not installed; install it: uv sync --inexact"
        return None

    def version(self) -> str | None:
        return None if self.missing() else importlib.metadata.version("xllamacpp")

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        chosen = parse(Options, self.name, options)
        if model.format != "gguf":
            raise BadInput(f"llama_server reads GGUF files, {model.name} is {model.format}", "labkit doctor")
        footprint.check_fits(inspect.read(model.path), chosen.context * chosen.parallel, "f16", 512)
        task = chosen.model_dump() | {"path": str(model.path), "name": model.name, "port": port, "parent": os.getpid()}
        return [sys.executable, "-m", "labkit.servers.llama_server", json.dumps(task)]


SERVER = LlamaServer()


def main(task: dict[str, Any]) -> None:
    """The server process: serves until it is told to stop, or until its parent is gone."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = task["path"], {task["name"]}
    params.hostnames, params.port = [HOST], task["port"]
    params.n_ctx, params.n_parallel = task["context"] * task["parallel"], task["parallel"]
    params.kv_unified, params.cache_prompt = False, task["cache_prompt"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = task["threads"] or machine.cores()
    params.endpoint_metrics = params.endpoint_slots = True
    params.n_gpu_layers, params.ui, params.cache_ram_mib = 0, False, 0
    server = xllamacpp.Server(params)
    print("listening on", server.listening_address, flush=True)  # noqa: T201 - goes to the log
    stop = threading.Event()
    while not stop.wait(1):
        if os.getppid() != task["parent"]:  # killed without a word: do not stay behind
            os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
