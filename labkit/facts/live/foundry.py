"""What Foundry Local's web service and its SDK answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from labkit.facts.live.world import Seen, World, ask, call, quote

_OWN = "/catalogs/local/v1"  # the OpenAI routes for models that one registered oneself
_NPU = ("QNN", "OpenVINO", "VitisAI", "NvTensorRTRTX")


def chat(world: World, model: str | None = None, tokens: int = 16, path: str = _OWN, key: str | None = None) -> httpx.Response:
    """One answer through the chat route."""
    message = [{"role": "user", "content": "Count from one to a hundred."}]
    body = {"model": model or world.foundry_model, "messages": message, "max_tokens": tokens, "temperature": 0}
    return ask(f"{world.url('foundry')}{path}/chat/completions", body, headers={"Authorization": f"Bearer {key}"} if key else None)


def metrics(world: World) -> Seen:
    """`foundry-metrics`"""
    codes = {path: ask(world.url("foundry") + path).status_code for path in ("/metrics", "/api/metrics", f"{_OWN}/models")}
    why = ", ".join(f"{path} gives {code}" for path, code in codes.items())
    return (None if codes[f"{_OWN}/models"] != 200 else codes["/metrics"] == codes["/api/metrics"] == 404), why


def keys(world: World) -> Seen:
    """`foundry-rbac`: does a request need a key or a role?"""
    without = chat(world, tokens=2).status_code
    wrong = chat(world, tokens=2, key="labkit-claim-nobody").status_code
    held = False if {without, wrong} & {401, 403} else True if without == wrong == 200 else None
    return held, f"a chat without a key gives {without}, with an invented key {wrong}"


def batching(world: World) -> Seen:
    """`foundry-batching`: tokens per second of four requests at once against one alone, in turn; the median of five ratios.

    Continuous batching would come near four. Between 2 and 2.5 times nothing is decided: cores and the clock's noise do that.
    """
    chat(world, tokens=4).raise_for_status()
    pairs = [(_rate(world, 1, 64), _rate(world, 4, 64)) for _ in range(5)]
    ratio, one, four = sorted((four / one, one, four) for one, four in pairs)[2]
    why = f"with one prompt and 64 tokens each, a request alone gives {one:.0f} tokens/s, four at once {four:.0f} in all: {ratio:.2f} times"
    return (None if 2 <= ratio < 2.5 else ratio < 2), why


def _rate(world: World, parallel: int, tokens: int) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(parallel) as pool:
        answers = list(pool.map(lambda _: chat(world, tokens=tokens).raise_for_status().json(), range(parallel)))
    return float(sum(a["usage"]["completion_tokens"] for a in answers)) / (time.perf_counter() - start)


def ready(world: World) -> Seen:
    """`foundry-ready-at-once`: seconds until it could answer, against those of a short answer."""
    waited, spans = float(world.foundry_ready_s or 0), []
    for _ in range(3):
        begin = time.perf_counter()
        chat(world, tokens=2).raise_for_status()
        spans.append(time.perf_counter() - begin)
    answer = sorted(spans)[1]
    return waited > 2 * answer, f"{waited:.2f} s from its start until it could answer; an answer of 2 tokens then takes {answer:.3f} s"


def platform(world: World) -> Seen:
    """`foundry-windows-only`: does it answer on another system?"""
    if world.system == "Windows":
        return None, "this is Windows; it takes another system to see it"
    answer = chat(world, tokens=2)
    held = None if answer.status_code >= 500 else answer.status_code == 200
    return held, f"on {world.system} a chat gives {answer.status_code}"


def alias(world: World) -> Seen:
    """`foundry-alias-over-rest`: the id of a model and its alias, over HTTP."""
    by_id = chat(world, tokens=2).status_code
    by_alias = chat(world, model=world.foundry_alias, tokens=2).status_code
    return (
        None if by_id != 200 else by_alias == 404
    ), f"a chat with the id gives {by_id}, with the alias {world.foundry_alias!r} {by_alias}"


def own_route(world: World) -> Seen:
    """`foundry-one-endpoint`: where does a model answer that one registered oneself?"""
    own, usual = chat(world, tokens=2).status_code, chat(world, tokens=2, path="/v1").status_code
    why = f"at {world.url('foundry')} one's own model gives {own} under {_OWN}, and {usual} under /v1"
    return (None if own != 200 else usual != 200), why


def deployment_json(world: World) -> Seen:
    """`foundry-config-json`: the SDK's only configuration, asked for a hardware, an optimization and dynamic batching."""
    configuration = world.module("foundry_local_sdk").Configuration
    refused = []
    for name in ("hardware", "optimization", "dynamic_batching"):
        try:
            configuration(app_name="labkit-claim", **{name: {}})
        except TypeError as error:
            refused.append(str(error))
    first = f": {quote(refused[0])}" if refused else ""
    return len(refused) == 3, f"{len(refused)} of 3 settings that web pages print are refused{first}"


def command_names(world: World) -> Seen:
    """`foundry-cli-name`: what `foundry --help` lists."""
    said = call(str(world.program("foundry")), "--help")[1].lower().split()
    if "model" not in said:
        return None, "`foundry --help` lists no commands"
    found = [name for name in ("init", "benchmark", "deploy") if name in said]
    return not found and not world.program(
        "foundry-local"
    ), f"`foundry --help` lists of init, benchmark and deploy {', '.join(found) or 'none'}"


def service_level(world: World) -> Seen:
    """`foundry-sla`: what the licence of the installed SDK says of warranties."""
    text = " ".join(str(world.licence("foundry-local-sdk")).split())
    at = text.upper().find("AS IS")
    begin = len(text[: max(at, 0)].rsplit(" ", 5)[0])  # a few whole words before it
    return at >= 0, f"its licence says: {quote(text[begin:])!r}" if at >= 0 else f"its licence begins {quote(text, 60)!r}"


def npu(world: World) -> Seen:
    """`foundry-npu`: the execution providers of the ONNX Runtime beside the SDK."""
    if world.system == "Windows":
        return None, "on Windows the providers come with Windows ML: the list is in Foundry Local's own catalogue"
    names = world.module("onnxruntime").get_available_providers()
    found = [name for name in names if name.startswith(_NPU)]
    return not found, f"ONNX Runtime on {world.system} offers {', '.join(names)}; for an NPU: {', '.join(found) or 'none'}"


def file_format(world: World) -> Seen:
    """`foundry-serves-onnx`: the files of the model that the service answers with."""
    code = chat(world, tokens=2).status_code
    if code != 200:
        return None, f"the service gives {code}"
    files = sorted(p.name for p in world.foundry_folder.rglob("*") if p.is_file()) if world.foundry_folder else []
    found = [name for name in files if name.endswith((".onnx", ".gguf"))]
    return (
        None if not found else all(name.endswith(".onnx") for name in found)
    ), f"the model that answers is made of {', '.join(files[:4])} and more"
