"""Claims that this machine decides now: one small check each, over a World that says where things are.

A lab that has started a server asks for what that server decides:

>>> world = World(ollama_url=running.url, ollama_model="my-model", ollama_program=program)
>>> live.check("ollama-health", world)["shown"]
'confirmed'
>>> rows = live.rows(live.of("ollama"), world)          # all that need an Ollama

A check that needs what the world has not is not-run, and says the command that gets it. A check that ran says what it saw;
`shown` is whether that supports the ledger's truth.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import httpx

from labkit.core import extras
from labkit.facts import claims
from labkit.facts.live import arithmetic, containers, foundry, ollama_api, ollama_cli, ollama_loading, onnx_service, tools, vllm
from labkit.facts.live.world import Seen, World

__all__ = ["CHECKS", "Check", "Seen", "World", "check", "of", "rows"]


class Check(NamedTuple):
    """A function over a world, and what the world must have: names of fields, `program NAME`, `module NAME`, `folder NAME`."""

    decide: Callable[[World], Seen]
    needs: tuple[str, ...] = ()


_API = ("ollama_url", "ollama_model")
_CLI = ("ollama_program",)
_BOTH = (*_API, *_CLI)
_FOUNDRY = ("foundry_url", "foundry_model")
_VLLM = ("vllm_url", "vllm_model")
_CONTAINERS = ("containers_tool",)

# the one table of what is decided live: id -> check
CHECKS: dict[str, Check] = {
    # Ollama: the program
    "ollama-modelfile-context-length": Check(ollama_cli.context_length, _BOTH),
    "ollama-modelfile-file": Check(ollama_cli.knowledge_file, _BOTH),
    "ollama-env-num-gpu-thread-layers": Check(ollama_cli.unread_names, _CLI),
    "ollama-env-real": Check(ollama_cli.real_names, _CLI),
    "ollama-max-vram": Check(ollama_cli.max_vram, _CLI),
    "ollama-env-on-run": Check(ollama_cli.on_run, _BOTH),
    "ollama-ci-pull": Check(ollama_cli.without_a_server, _CLI),
    "ollama-dockerfile-run-pull": Check(ollama_cli.without_a_server, _CLI),
    "ollama-one-command": Check(ollama_cli.no_model_yet, _CLI),
    "ollama-apt": Check(ollama_cli.in_apt, ("program apt-cache",)),
    # Ollama: the server
    "ollama-health": Check(ollama_api.health, _API),
    "ollama-metrics": Check(ollama_api.metrics, _API),
    "ollama-embeddings-endpoint": Check(ollama_api.embeddings, _API),
    "ollama-api-custom-only": Check(ollama_api.openai_routes, _API),
    "ollama-auth": Check(ollama_api.access, _API),
    "ollama-any-web-page": Check(ollama_api.browser_origin, _API),
    "ollama-template": Check(ollama_api.template, _API),
    "ollama-quantize-create": Check(ollama_api.quantize, _API),
    "ollama-rest-option-typo": Check(ollama_api.unknown_option, _API),
    "ollama-modelfile-num-ctx": Check(ollama_api.num_ctx, _API),
    "ollama-context-2048": Check(ollama_loading.default_context, (*_API, "ollama_defaults")),
    "ollama-num-gpu": Check(ollama_loading.num_gpu, _API),
    "ollama-memory-given-back": Check(ollama_loading.given_back, _API),
    "ollama-model-stays-loaded": Check(ollama_loading.stays, (*_API, "ollama_defaults")),
    "ollama-no-logprobs": Check(ollama_api.logprobs, _API),
    "ollama-json-only": Check(ollama_api.schema, _API),
    "ollama-serves-gguf": Check(ollama_api.file_format, _API),
    "ollama-starts-fast": Check(ollama_loading.start_up, _API),
    "memory-is-size-times-two": Check(ollama_loading.memory, _API),
    "local-no-latency": Check(ollama_loading.latency, _API),
    "local-costs-nothing": Check(ollama_loading.cost, _API),
    # Foundry Local
    "foundry-metrics": Check(foundry.metrics, _FOUNDRY),
    "foundry-rbac": Check(foundry.keys, _FOUNDRY),
    "foundry-batching": Check(foundry.batching, _FOUNDRY),
    "foundry-ready-at-once": Check(foundry.ready, (*_FOUNDRY, "foundry_ready_s")),
    "foundry-windows-only": Check(foundry.platform, _FOUNDRY),
    "foundry-alias-over-rest": Check(foundry.alias, (*_FOUNDRY, "foundry_alias")),
    "foundry-one-endpoint": Check(foundry.own_route, _FOUNDRY),
    "foundry-serves-onnx": Check(foundry.file_format, (*_FOUNDRY, "foundry_folder")),
    "foundry-config-json": Check(foundry.deployment_json, ("module foundry_local_sdk",)),
    "foundry-npu": Check(foundry.npu, ("module onnxruntime",)),
    "foundry-sla": Check(foundry.service_level, ("licence foundry-local-sdk",)),
    "foundry-cli-name": Check(foundry.command_names, ("program foundry",)),
    # the naive ONNX service
    "onnx-server-sample": Check(onnx_service.one_pass, ("onnx_url",)),
    "fastapi-async-inference": Check(onnx_service.async_route, ("onnx_url",)),
    # containers
    "container-own-kernel": Check(containers.kernel, _CONTAINERS),
    "container-sees-its-limit": Check(containers.sees_limit, _CONTAINERS),
    "container-oom-ends-it": Check(containers.oom, _CONTAINERS),
    "container-port-loopback": Check(containers.published, _CONTAINERS),
    # vLLM
    "vllm-gpu-cache-usage": Check(vllm.cache_gauge, _VLLM),
    "vllm-time-per-output-token": Check(vllm.token_time, _VLLM),
    "vllm-unknown-field": Check(vllm.unknown_field, _VLLM),
    "vllm-prefix-anywhere": Check(vllm.from_the_beginning, _VLLM),
    "vllm-asks-for-a-key": Check(vllm.open_door, _VLLM),
    "vllm-needs-a-gpu": Check(vllm.without_gpu, _VLLM),
    # llama.cpp, Olive, MLX
    "llamacpp-api-shims": Check(tools.shims, ("llama_url",)),
    "llamacpp-tools": Check(tools.llamacpp_names, ("program llama-cli",)),
    "olive-classes": Check(tools.olive_names, ("folder olive",)),
    "mlx-generate-temperature": Check(tools.mlx_temperature, ("folder mlx_lm",)),
    "mlx-4-bits-are-4-bits": Check(tools.mlx_bits, ("module mlx.core",)),
    "mlx-only-on-macs": Check(tools.mlx_elsewhere, ("module mlx.core",)),
    # arithmetic
    "quant-q4-75-percent": Check(arithmetic.savings),
    "quant-int4-half-a-byte": Check(arithmetic.half_a_byte),
    "quant-4bit-four-times-as-fast": Check(arithmetic.speed_ceiling),
    "quant-q8-lossless": Check(arithmetic.lossless),
    "quant-kquant-same-size": Check(arithmetic.same_size),
    "quant-requantize": Check(arithmetic.twice),
    "ternary-file-bits": Check(arithmetic.ternary_bits),
    "ternary-energy-71-times": Check(arithmetic.ternary_energy),
    "phi4-mini-vram": Check(tools.phi),
}

# what the world may lack, and how to get it
_GET = {
    "ollama_program": "Ollama is not here: labkit runtimes install ollama",
    "ollama_defaults": "this Ollama has settings of its own; labkit claims --live starts one without",
    "foundry_alias": "the service was not asked for a model with an alias",
    "foundry_ready_s": "nobody measured how long the service took to start: labkit claims --live",
    "foundry_folder": "the model's folder is not known",
    "module foundry_local_sdk": f"Foundry Local's SDK is not installed; install it: {extras.install('foundry')}",
    "licence foundry-local-sdk": f"Foundry Local's SDK is not installed; install it: {extras.install('foundry')}",
    "module onnxruntime": f"ONNX Runtime is not installed; install it: {extras.install('onnx')}",
    "module mlx.core": f"MLX is not installed; install it: {extras.install('mlx')}",
    "folder mlx_lm": f"mlx-lm is not installed; install it: {extras.install('mlx')}",
    "folder olive": f"Olive is not installed; install it: {extras.install('onnx')}",
    "program apt-cache": "this system has no APT",
    "program foundry": "Foundry Local's command line is not here: winget install Microsoft.FoundryLocal, or brew install foundrylocal",
    "program llama-cli": "llama.cpp's programs are not here: brew install llama.cpp, or conda install -c conda-forge llama.cpp",
}
_NO_SERVER = {
    "ollama": "needs a running Ollama: labkit claims --live",
    "foundry": "needs Foundry Local's web service: labkit claims --live",
    "llama": "needs llama-server: labkit claims --live",
    "vllm": "needs a running vLLM: labkit claims --live",
    "containers": "needs Podman or Docker: labkit claims --live",
    "onnx": "needs the naive ONNX service of lab 17: labkit claims --live",
}


def of(*servers: str) -> list[str]:
    """Ids of the checks that need one of these servers (`ollama`, `foundry`, `llama`, `onnx`); without a name, of those that need none."""
    return [id for id, one in CHECKS.items() if (server_of(id) in servers if servers else server_of(id) is None)]


def server_of(id: str) -> str | None:
    """The server that a check needs, or None. `ollama` also stands for its program."""
    needs = CHECKS[id].needs if id in CHECKS else ()
    return next((name for name in _NO_SERVER if any(need.startswith(f"{name}_") for need in needs)), None)


def check(id: str, world: World) -> dict[str, Any]:
    """What was seen of one claim: id, says, verdict, shown, why. Raises BadInput with the nearest id."""
    claim = claims.get(id)
    if id not in CHECKS:
        return claims.row(id, "not-run", f"decided by {claim.see}" if claim.seen_by == "lab" else f"by hand: {claim.see}")
    one = CHECKS[id]
    for need in one.needs:
        if not _has(world, need):
            return claims.row(id, "not-run", _GET.get(need) or _NO_SERVER[need.split("_")[0]])
    try:
        held, why = one.decide(world)
        why += _newer(claim, world)
    except (httpx.HTTPError, OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        return claims.row(id, "not-run", f"it did not answer as expected ({type(error).__name__}: {' '.join(str(error).split())[:120]})")
    return claims.row(id, "not-run" if held is None else "confirmed" if held else "refuted", why)


def _newer(claim: claims.Claim, world: World) -> str:
    """What the ledger says of the release that runs here, where it is newer than the one that most of it is about."""
    if not (claim.from_version and world.ollama_url):
        return ""
    here = _numbers(ollama_api.version(world))
    return "".join(f"; from {start} on: {truth}" for start, truth in claim.from_version.items() if here >= _numbers(start))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def rows(ids: Iterable[str], world: World) -> Iterator[dict[str, Any]]:
    """`check` for each."""
    return (check(id, world) for id in ids)


def _has(world: World, need: str) -> bool:
    kind, _, name = need.partition(" ")
    return bool(getattr(world, kind)(name) if name else getattr(world, need))
