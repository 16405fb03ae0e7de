"""No live check is a constant: each supports the ledger in a world as the ledger says, and speaks against it in one as the claim says."""

from __future__ import annotations

import json
import os
import platform
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import stubs

from labkit.core.errors import BadInput
from labkit.facts import claims, live
from labkit.facts.live import ollama_api
from labkit.quant import blocks, energy

_APT = "if sys.argv[2] in {!r}: print('  Candidate: 1')"
_LISTED = ["NUM_GPU", "NUM_THREAD", "GPU_LAYERS"]
_SOFTWARE = 'THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY'


# -- worlds of programs, modules and folders: (folder, is it as the claim says?) -> fields of a World


def apt(folder: Path, other: bool) -> dict[str, Any]:
    known = ["coreutils", "ollama"] if other else ["coreutils"]
    text = f"#!{sys.executable}\nimport sys\n{_APT.format(known)}\n"
    return {"programs": {"apt-cache": stubs.script(folder / "apt-cache", text)}}


def foundry_cli(folder: Path, other: bool) -> dict[str, Any]:
    named = "foundry-local" if other else "foundry"
    program = stubs.says(folder / named, "Commands: model init deploy benchmark" if other else "Commands: model service cache")
    return {"programs": {"foundry": program, "foundry-local": program if other else None}}


def llama_cli(folder: Path, other: bool) -> dict[str, Any]:
    names = ("main", "quantize", "llama-cli") if other else ("llama-cli", "llama-quantize")
    return {"programs": {"llama-quantize": None, **{name: stubs.says(folder / name, "") for name in names}}}


def olive(folder: Path, other: bool) -> dict[str, Any]:
    (folder / "model").mkdir()
    end = "" if other else "Handler"
    (folder / "model" / "all.py").write_text(f"class PyTorchModel{end}: ...\nclass ONNXModel{end}: ...\n", encoding="utf-8")
    name = "OrtQuantization" if other else "OnnxStaticQuantization"
    (folder / "olive_config.json").write_text(f'{{"passes": {{"{name}": {{}}}}}}', encoding="utf-8")
    return {"folders": {"olive": folder}}


def mlx_lm(folder: Path, other: bool) -> dict[str, Any]:
    more = "temperature=0.0" if other else "sampler=None"
    (folder / "generate.py").write_text(f"def generate_step(prompt, model, *, {more}): ...\n", encoding="utf-8")
    return {"folders": {"mlx_lm": folder}}


def mlx_core(folder: Path, other: bool) -> dict[str, Any]:
    def quantize(weights: np.ndarray, group_size: int, bits: int) -> list[Any]:
        scales = 0 if other else 2 * weights.size // group_size
        return [SimpleNamespace(nbytes=n) for n in (weights.size * bits // 8, scales, scales)]

    return {"modules": {"mlx.core": SimpleNamespace(array=np.asarray, quantize=quantize)}}


def mlx_device(folder: Path, other: bool) -> dict[str, Any]:
    wrong = SimpleNamespace(sum=lambda values: np.asarray(0.0 if other else sum(values)), array=list, default_device=lambda: "cpu")
    return {"modules": {"mlx.core": wrong}, "system": "Linux"}


def sdk(folder: Path, other: bool) -> dict[str, Any]:
    def loose(**_: Any) -> None: ...
    def strict(app_name: str) -> None: ...

    return {"modules": {"foundry_local_sdk": SimpleNamespace(Configuration=loose if other else strict)}}


def providers(folder: Path, other: bool) -> dict[str, Any]:
    names = ["QNNExecutionProvider"] * other + ["CPUExecutionProvider"]
    return {"modules": {"onnxruntime": SimpleNamespace(get_available_providers=lambda: names)}, "system": "Linux"}


def licence(folder: Path, other: bool) -> dict[str, Any]:
    return {"licences": {"foundry-local-sdk": "Microsoft guarantees 99.9 % of the month." if other else _SOFTWARE}}


def codec(**said: Any) -> Any:
    """Blocks of weights that behave as somebody says."""

    def make(folder: Path, other: bool) -> dict[str, Any]:
        return {"modules": {"labkit.quant.blocks": SimpleNamespace(**{**vars(blocks), **(said if other else {})})}}

    return make


def bits(**said: float) -> Any:
    return codec(bits_per_weight=lambda kind: said.get(kind, 16.0))


def rough(**steps: float) -> Any:
    """Formats that round to multiples of a step, and without one not at all."""

    def encode(kind: str, weights: np.ndarray) -> np.ndarray:
        return np.round(weights / steps[kind]) * steps[kind] if kind in steps else weights

    return codec(encode=encode, decode=lambda kind, data: data)


def no_memory(folder: Path, other: bool) -> dict[str, Any]:
    free = SimpleNamespace(per_weight=lambda kind: energy.Energy(71.4 if kind == "F16" else 1.0, 0.0))
    return {"modules": {"labkit.quant.energy": free if other else energy}}


def gpu(folder: Path, other: bool) -> dict[str, Any]:
    return {"gpu_gigabytes": 24.0 if other else 6.0}


def onnx_folder(folder: Path, other: bool) -> dict[str, Any]:
    (folder / ("model.gguf" if other else "model.onnx")).write_bytes(b"")
    return {"foundry_folder": folder}


def boxes(**change: Any) -> Any:
    """Containers of a stand-in: each fact as the ledger says, but for those in `change`, which are as the claim says."""

    def world(folder: Path, other: bool) -> dict[str, Any]:
        seen = {"kernel": platform.release(), "memory_kib": 16 << 20, "alive": True, "address": ""} | (change if other else {})
        said = {
            "uname": seen["kernel"] + "\n",
            "nproc": "2",
            "/proc/meminfo": f"MemTotal: {seen['memory_kib']} kB\n",
            "/sys/fs/cgroup/memory.events": "oom 1\noom_kill 1\n",
        }
        bindings = [{"HostConfig": {"PortBindings": {"8080/tcp": [{"HostIp": seen["address"]}]}}}]

        def told(words: list[str]) -> SimpleNamespace:
            text = json.dumps(bindings) if words[:2] == ["container", "inspect"] else said.get(words[-1], said.get(words[0], "made"))
            return SimpleNamespace(stdout=text, stderr="", returncode=0)

        one = SimpleNamespace(exec=told, pid=os.getpid(), alive=lambda: seen["alive"], state={"OOMKilled": False}, exit_code=137)
        tool = SimpleNamespace(
            ensure=lambda ref: ref,
            run=lambda image, **options: nullcontext(one),
            hardening=lambda container: {"memory_limit_bytes": 64 << 20},
            tool=lambda: SimpleNamespace(run=told),
            runs=SimpleNamespace(current=lambda: SimpleNamespace(label="a=b")),
        )
        return {"containers_tool": tool}

    return world


# the one table: id -> what makes the world behave as the claim says. A text or codes: the stub server's; `program`: of the stub
# program; `fields` or a function: fields of a World. For a claim that is true it is the world in which it would be false.
OTHER: dict[str, Any] = {
    "ollama-modelfile-context-length": {"program": "takes every parameter"},
    "ollama-modelfile-file": {"program": "takes every instruction"},
    "ollama-env-num-gpu-thread-layers": {"names": stubs.REAL_NAMES + _LISTED},
    "ollama-env-real": {"names": ["HOST", "NUM_PARALLEL"]},
    "ollama-max-vram": {"names": [*stubs.REAL_NAMES, "MAX_VRAM"]},
    "ollama-env-on-run": {"program": "obeys the client", "server": "obeys the client"},
    "ollama-ci-pull": {"program": "needs no server"},
    "ollama-dockerfile-run-pull": {"program": "needs no server"},
    "ollama-one-command": {"program": "needs no server"},
    "ollama-apt": apt,
    "ollama-health": {"status": {"/api/health": 200}},
    "ollama-metrics": {"status": {"/metrics": 200}},
    "ollama-embeddings-endpoint": {"server": "no embed"},
    "ollama-api-custom-only": {"status": {"/v1/models": 404, "/v1/chat/completions": 404, "/v1/completions": 404}},
    "ollama-auth": {"server": "keys"},
    "ollama-any-web-page": {"server": "any origin"},
    "ollama-template": {"server": "keeps the template"},
    "ollama-quantize-create": {"server": "quantizes all"},
    "ollama-rest-option-typo": {"server": "strict"},
    "ollama-modelfile-num-ctx": {"server": "ignores num_ctx"},
    "ollama-context-2048": {"server": "2048"},
    "ollama-num-gpu": {"server": "num_gpu counts GPUs"},
    "ollama-memory-given-back": {"server": "keeps it"},
    "ollama-model-stays-loaded": {"server": "for good"},
    "ollama-no-logprobs": {"server": "no logprobs"},
    "ollama-json-only": {"server": "any json"},
    "ollama-serves-gguf": {"server": "no gguf"},
    "ollama-starts-fast": {"server": "nothing to load"},
    "memory-is-size-times-two": {"server": "one size"},
    "local-no-latency": {"server": "at once"},
    "local-costs-nothing": {"server": "free"},
    "foundry-metrics": {"status": {"/metrics": 200, "/api/metrics": 200}},
    "foundry-rbac": {"server": "keys"},
    "foundry-batching": {"server": "batches"},
    "foundry-ready-at-once": {"fields": {"foundry_ready_s": 0.001}},
    "foundry-windows-only": {"status": {"/catalogs/local/v1/chat/completions": 404}},
    "foundry-alias-over-rest": {"server": "takes aliases"},
    "foundry-one-endpoint": {"server": "one endpoint"},
    "foundry-serves-onnx": onnx_folder,
    "foundry-config-json": sdk,
    "foundry-npu": providers,
    "foundry-sla": licence,
    "foundry-cli-name": foundry_cli,
    "onnx-server-sample": {"server": "a loop"},
    "fastapi-async-inference": {"server": "is heard"},
    "container-own-kernel": boxes(kernel="9.9.9-own"),
    "container-sees-its-limit": boxes(memory_kib=64 << 10),
    "container-oom-ends-it": boxes(alive=False),
    "container-port-loopback": boxes(address="127.0.0.1"),
    "vllm-gpu-cache-usage": {"server": "old names"},
    "vllm-time-per-output-token": {"server": "old names"},
    "vllm-unknown-field": {"server": "strict"},
    "vllm-prefix-anywhere": {"server": "any passage"},
    "vllm-asks-for-a-key": {"server": "keys"},
    "vllm-needs-a-gpu": {"server": "no device"},
    "llamacpp-api-shims": {"server": "shims"},
    "llamacpp-tools": llama_cli,
    "olive-classes": olive,
    "mlx-generate-temperature": mlx_lm,
    "mlx-4-bits-are-4-bits": mlx_core,
    "mlx-only-on-macs": mlx_device,
    "quant-q4-75-percent": bits(Q4_0=4.0, Q8_0=8.0, Q5_1=4.8),
    "quant-int4-half-a-byte": bits(Q4_0=4.0, Q4_1=4.0, Q4_K=4.0),
    "quant-4bit-four-times-as-fast": bits(Q4_0=4.0),
    "quant-q8-lossless": rough(Q4_0=0.5),
    "quant-kquant-same-size": rough(Q4_0=0.5, Q4_K=0.6),
    "quant-requantize": rough(Q4_0=0.5),
    "ternary-file-bits": bits(TQ1_0=1.58, TQ2_0=1.58),
    "ternary-energy-71-times": no_memory,
    "phi4-mini-vram": gpu,
}
_SERVERS: dict[str, type[stubs.Stub]] = {
    "ollama": stubs.Ollama,
    "foundry": stubs.Foundry,
    "llama": stubs.LlamaServer,
    "onnx": stubs.Naive,
    "vllm": stubs.Vllm,
}


def seen(id: str, folder: Path, other: bool) -> dict[str, Any]:
    """What the check says of a world: as the claim says, or as the ledger does."""
    change = OTHER[id]
    said = change if isinstance(change, dict) and other else {}
    fields: dict[str, Any] = {} if isinstance(change, dict) else change(folder, other)
    with ExitStack() as stack:
        if (name := live.server_of(id)) in _SERVERS:
            server = stack.enter_context(_SERVERS[name](said.get("server", ""), said.get("status")))
            fields[f"{name}_url"] = server.url
        if name == "ollama":
            program = stubs.program(folder / "ollama", said.get("program", ""), said.get("names"))
            fields |= {"ollama_model": "default", "ollama_program": program, "ollama_defaults": True, "system": "Linux"}
        if name == "vllm":
            fields |= {"vllm_model": "small", "programs": dict.fromkeys(("nvidia-smi", "rocm-smi"))}
        if name == "foundry":
            fields |= {
                "foundry_model": "small-generic-cpu:1",
                "foundry_alias": "small",
                "foundry_ready_s": 3.0,
                "system": "Linux",
                **said.get("fields", {}),
            }
        return live.check(id, live.World(**fields))


@pytest.mark.parametrize("id", live.CHECKS)
def test_a_world_as_the_claim_says_refutes_the_ledger(id, tmp_path, monkeypatch):
    monkeypatch.setattr(ollama_api, "PATIENCE_S", 0.5)
    row = seen(id, tmp_path, other=True)
    assert row["shown"] == "refuted", row["why"]


@pytest.mark.parametrize("id", live.CHECKS)
def test_a_world_as_the_ledger_says_confirms_it(id, tmp_path):
    row = seen(id, tmp_path, other=False)
    assert row["shown"] == "confirmed", row["why"]


def test_every_check_is_of_a_claim_in_the_ledger_and_has_a_stub():
    assert set(live.CHECKS) <= set(claims.load())
    assert set(OTHER) == set(live.CHECKS)


@pytest.mark.parametrize("id", live.CHECKS)
def test_nothing_is_decided_where_the_parts_are_not_here(id):
    nothing = live.World(
        programs=dict.fromkeys(("apt-cache", "foundry", "llama-cli")),
        modules=dict.fromkeys(("foundry_local_sdk", "onnxruntime", "mlx.core")),
        folders=dict.fromkeys(("olive", "mlx_lm")),
        licences={"foundry-local-sdk": ""},
    )
    row = live.check(id, nothing)
    assert row["shown"] == ("not-run" if live.CHECKS[id].needs else "confirmed"), row["why"]
    assert row["why"]


def test_a_server_that_went_away_decides_nothing():
    with stubs.Ollama() as server:
        url = server.url
    row = live.check("ollama-health", live.World(ollama_url=url, ollama_model="default"))
    assert row["shown"] == "not-run"
    assert "ConnectError" in row["why"]


@pytest.mark.parametrize(("code", "shown"), [(501, "confirmed"), (404, "refuted")])
def test_a_newer_ollama_that_refuses_to_embed_with_a_chat_model(code, shown):
    with stubs.Ollama(status={"/api/embed": code, "/api/embeddings": code}) as server:
        row = live.check("ollama-embeddings-endpoint", live.World(ollama_url=server.url, ollama_model="default"))
    assert row["shown"] == shown


@pytest.mark.parametrize(("release", "told"), [("newer", True), ("", False)])
def test_what_holds_for_a_newer_release_is_said(release, told):
    with stubs.Ollama(release) as server:
        row = live.check("ollama-serves-gguf", live.World(ollama_url=server.url, ollama_model="default"))
    assert ("; from 0.30 on: " in row["why"]) == told


def test_a_check_leaves_no_model_behind(tmp_path):
    with stubs.Ollama() as server:
        world = live.World(ollama_url=server.url, ollama_model="default", ollama_program=stubs.program(tmp_path / "ollama"))
        for id in ("ollama-template", "ollama-modelfile-num-ctx", "ollama-modelfile-file", "ollama-env-on-run"):
            live.check(id, world)
        assert set(server.made) == {"default"}


def test_an_unknown_id_names_the_nearest():
    with pytest.raises(BadInput, match="did you mean ollama-health"):
        live.check("ollama-helth", live.World())
