"""Claims decided on servers that are started for it: one at a time, on free ports, with stores of their own that go with them.

The learner's own Ollama and what Foundry Local keeps are left alone.

>>> for row in decide(["foundry-metrics", "quant-q8-lossless"], live_too=True):
...     print(row["id"], row["shown"])
quant-q8-lossless confirmed
foundry-metrics confirmed
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from labkit import models, servers
from labkit.core.errors import LabkitError, MissingPart
from labkit.core.records import ModelRef
from labkit.facts import claims, live
from labkit.facts.live.world import World
from labkit.servers import images, naive_onnx, runtimes
from labkit.servers.ollama import Ollama

MODEL = "smollm2-135m"


class _AsItComes(Ollama):
    """Ollama with none of the settings that change what it does by default, neither labkit's nor the environment's."""

    def settings(self, options: dict[str, Any]) -> dict[str, str]:
        ours = dict.fromkeys(super().settings(options), "")  # Ollama takes an empty text as not set
        return ours | {"OLLAMA_ORIGINS": "", "OLLAMA_NO_CLOUD": "1"}


def decide(
    ids: Sequence[str] = (), live_too: bool = False, say: Callable[[str], None] | None = None, model: str = MODEL
) -> Iterator[dict[str, Any]]:
    """Rows of these claims (none: all), server by server; without `live_too` nothing is started. `model`: what the servers get.

    Raises BadInput for an unknown id, before anything runs.
    """
    wanted = list(dict.fromkeys(claims.get(id).id for id in ids)) or list(claims.load())
    found = runtimes.open("ollama").find()
    here = World(ollama_program=str(found.path) if found else None)
    groups: dict[str | None, list[str]] = {None: [], **{name: [] for name in _STARTS}}
    for id in wanted:
        groups[live.server_of(id)].append(id)
    yield from live.rows(groups.pop(None), here)
    for name, some in groups.items():
        if some:
            yield from _with_server(str(name), some, here, say, model) if live_too else live.rows(some, here)


def _with_server(name: str, ids: list[str], here: World, say: Callable[[str], None] | None, model: str) -> Iterator[dict[str, Any]]:
    if say:
        say(f"starting {name} for {len(ids)} claims")
    with ExitStack() as stack:
        try:
            world = stack.enter_context(_STARTS[name](here, models.resolve(model)))
        except LabkitError as error:  # a part that is missing, or does not start: nothing is decided, and the rows say why
            yield from (claims.row(id, "not-run", str(error)) for id in ids)
            return
        yield from live.rows(ids, world)


@contextmanager
def ollama(here: World, ref: ModelRef) -> Iterator[World]:
    """A world with an Ollama as it comes, and a model in it."""
    with _AsItComes().start(ref) as running:
        yield dataclasses.replace(here, ollama_url=running.url, ollama_model=ref.name, ollama_defaults=True)


@contextmanager
def foundry(here: World, ref: ModelRef) -> Iterator[World]:
    """A world with Foundry Local's web service, and the same model as ONNX, converted once."""
    from labkit.servers import foundry as service

    server = servers.open("foundry")
    ready = service.as_onnx(ref)
    begin = time.perf_counter()
    with server.start(ready) as running:
        fields: dict[str, Any] = {"foundry_url": running.url, "foundry_ready_s": time.perf_counter() - begin, "foundry_folder": ready.path}
        id = service.model_id(ready.name)
        yield dataclasses.replace(here, foundry_model=id, foundry_alias=id.removesuffix("-generic-cpu:1"), **fields)


@contextmanager
def llama(here: World, ref: ModelRef) -> Iterator[World]:
    """A world with llama-server."""
    with servers.open("llama_server").start(ref) as running:
        yield dataclasses.replace(here, llama_url=running.url)


@contextmanager
def onnx(here: World, ref: ModelRef) -> Iterator[World]:
    """A world with the naive ONNX service, with the course's own model whatever `ref` is: one that takes its time."""
    from labkit.quant import onnx as converter

    if why := naive_onnx.SERVER.missing():
        raise MissingPart(why)
    with naive_onnx.SERVER.start(converter.convert(models.resolve(MODEL), "int4-shared")) as running:
        yield dataclasses.replace(here, onnx_url=running.url)


@contextmanager
def vllm(here: World, ref: ModelRef) -> Iterator[World]:
    """A world with vLLM, small and with 32-bit numbers, which every processor has instructions for."""
    with servers.open("vllm").start(ref, context=512, kv_gib=0.25, dtype="float32") as running:
        yield dataclasses.replace(here, vllm_url=running.url, vllm_model=ref.name)


@contextmanager
def boxes(here: World, ref: ModelRef) -> Iterator[World]:
    """A world with Podman or Docker. What the checks make goes at the end."""
    del ref
    if why := images.missing():
        raise MissingPart(why)
    try:
        yield dataclasses.replace(here, containers_tool=images)
    finally:
        images.runs.current().close()


_STARTS = {"ollama": ollama, "foundry": foundry, "llama": llama, "onnx": onnx, "vllm": vllm, "containers": boxes}
