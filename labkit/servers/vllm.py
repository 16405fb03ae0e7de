"""vLLM on a CPU: continuous batching, a KV cache in blocks, prefix caching. It runs in an environment of its own.

A GGUF file is unpacked once into a Hugging Face folder, in the cache (needs the extra `hf`). Its weights are then 16-bit
numbers: vLLM's speed is not that of the 4-bit file. A start is about 40 s of one core, most of it Python's imports. Two
processes, the API's and the engine's, which also computes: by default the computing has a third.

>>> with servers.open("vllm").start(models.resolve("smollm2-135m"), context=2048, max_num_seqs=16) as running:
...     print(running.base_url)
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from labkit.core import extras, machine, paths
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.servers import runtimes
from labkit.servers.base import HOST, Running, Server
from labkit.servers.runtimes import environment
from labkit.servers.runtimes.vllm import QUIET

# what its processes take beyond weights and KV cache: Python, PyTorch and work buffers, measured on two models
PROGRAM_BYTES = 2_200_000_000
# for a model that has no chat template: the texts one after another, as labkit's own engines do it
_PLAIN = "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
_FOLDER_PATH = 70  # bytes: a socket's whole path may have 107, and vLLM adds 37


class Options(BaseModel):
    """`context` is each request's, prompt and answer together; up to `max_num_seqs` requests are computed at once, the rest wait.

    max_num_batched_tokens: of one step, prompts and answers together. eager=False compiles the model first, which takes minutes.
    """

    model_config = ConfigDict(extra="forbid")

    threads: int | None = Field(None, ge=1, description="None: all cores")
    context: int = Field(2048, ge=32)
    max_num_seqs: int = Field(16, ge=1)
    max_num_batched_tokens: int | None = Field(None, ge=32, description="None: vLLM decides; without chunked prefill at least `context`")
    kv_gib: float = Field(1.0, gt=0, description="memory for all KV caches together")
    block_size: int = Field(128, ge=32, multiple_of=32, description="tokens of a KV cache block: only whole blocks are shared or kept")
    prefix_caching: bool = True
    chunked_prefill: bool = True
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    eager: bool = True
    drain_s: int = Field(0, ge=0, description="how long running answers may go on after SIGTERM; 0: they are cut")


class Vllm(Server):
    name = "vllm"
    own_folder = True  # it leaves files in the folder for temporary ones
    kept = True  # its processes do not notice when the one that started them is killed
    start_seconds = 600.0  # it is about 40 s of one core, which a busy machine makes minutes

    def missing(self) -> str | None:
        return runtimes.open("vllm").missing()

    def version(self) -> str | None:
        found = runtimes.open("vllm").find()
        return found.version if found else None

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        chosen = parse(Options, self.name, options)
        if not chosen.chunked_prefill and (chosen.max_num_batched_tokens or chosen.context) < chosen.context:
            raise BadInput(
                f"without chunked prefill a step must hold a whole prompt: {chosen.max_num_batched_tokens} tokens are fewer than context",
                f"max_num_batched_tokens={chosen.context}, or chunked_prefill=True",
            )
        ready = as_hf(model)
        config = json.loads((ready.path / "config.json").read_text(encoding="utf-8"))
        longest = int(config.get("max_position_embeddings", chosen.context))
        if chosen.context > longest:
            raise BadInput(f"{model.name} reads at most {longest} tokens, context is {chosen.context}", f"context={longest}")
        check_fits(ready, chosen)
        words = [str(runtimes.open("vllm").require().path), "serve", str(ready.path), "--served-model-name", model.name]
        words += ["--host", HOST, "--port", str(port), "--enable-prompt-tokens-details", *flags(chosen)]
        return words if has_chat_template(ready.path) else [*words, "--chat-template", _PLAIN]

    def environment(self, port: int, folder: Path) -> dict[str, str]:
        if len(os.fsencode(folder)) > _FOLDER_PATH:
            raise BadInput(f"the folder for temporary files, {folder.parent}, has a path too long for sockets", "TMPDIR=/tmp labkit …")
        own = {name: str(folder) for name in ("TMPDIR", "HF_HOME", "VLLM_CONFIG_ROOT", "VLLM_RPC_BASE_PATH")}
        kept = {"VLLM_CACHE_ROOT": str(paths.cache("vllm")), "TORCHINDUCTOR_CACHE_DIR": str(paths.cache("vllm", "inductor"))}
        return {**environment.COMPILED, **QUIET, **own, **kept}

    def settings(self, options: dict[str, Any]) -> dict[str, str]:
        chosen = parse(Options, self.name, options)
        # the engine computes in its own process, with the threads that are set here: one process fewer to import everything
        one = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        return {**one, "OMP_NUM_THREADS": str(chosen.threads or machine.cores()), "OMP_WAIT_POLICY": "passive"}

    def ready(self, running: Running, model: ModelRef, options: dict[str, Any]) -> None:
        """Its health says that its engine lives; that it has the model, its list of models says."""
        try:
            found = [row["id"] for row in httpx.get(f"{running.base_url}/models", timeout=30).raise_for_status().json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise RunFailed(f"vLLM at {running.url} does not list its model: {error}", f"its log is {running.log}") from error
        if model.name not in found:
            raise RunFailed(f"vLLM at {running.url} has {', '.join(found)}, not {model.name}", f"its log is {running.log}")


SERVER = Vllm()


def flags(chosen: Options) -> list[str]:
    """The options as `vllm serve` takes them."""
    told: dict[str, Any] = {
        "max-model-len": chosen.context,
        "max-num-seqs": chosen.max_num_seqs,
        "max-num-batched-tokens": chosen.max_num_batched_tokens,
        "kv-cache-memory-bytes": int(chosen.kv_gib * 2**30),
        "block-size": chosen.block_size,
        "dtype": chosen.dtype,
        "shutdown-timeout": chosen.drain_s,
    }
    words = [word for name, value in told.items() if value is not None for word in (f"--{name}", str(value))]
    switches = {"enable-prefix-caching": chosen.prefix_caching, "enable-chunked-prefill": chosen.chunked_prefill}
    words += [f"--{name}" if on else f"--no-{name}" for name, on in switches.items()]
    return [*words, "--enforce-eager"] if chosen.eager else words


def as_hf(model: ModelRef) -> ModelRef:
    """The model as a Hugging Face folder: itself, or unpacked once, into the cache."""
    if model.format not in ("hf", "gguf"):
        raise BadInput(f"vLLM reads Hugging Face folders and GGUF files, {model.name} is {model.format}", "labkit models")
    if model.format == "hf":
        return model
    if why := extras.missing("hf"):
        raise MissingPart(f"vLLM reads {model.name} after it was unpacked, and {why}")
    from labkit.quant import hf

    return hf.to_hf(model)


def needed_bytes(folder: Path, chosen: Options) -> int:
    """Memory that the server will take, about: its programs, the weights in the chosen type, the KV cache."""
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))  # 4 bytes a weight where labkit wrote them
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("dtype", "float32")
    width = {"float32": 4, "float16": 2, "bfloat16": 2}
    return PROGRAM_BYTES + weights * width[chosen.dtype] // width.get(stored, 4) + int(chosen.kv_gib * 2**30)


def check_fits(model: ModelRef, chosen: Options) -> None:
    """Raises BadInput, before anything is started, where the memory is not there."""
    need, free = needed_bytes(model.path, chosen), machine.memory_available_bytes()
    if need > free:
        raise BadInput(
            f"vLLM needs about {need / 2**30:.1f} GiB for {model.name}, {free / 2**30:.1f} GiB are free",
            "close other programs, or a smaller kv_gib",
        )


def has_chat_template(folder: Path) -> bool:
    """Does the folder say how messages become a prompt?"""
    settings = folder / "tokenizer_config.json"
    said = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    return (folder / "chat_template.jinja").is_file() or bool(said.get("chat_template"))
