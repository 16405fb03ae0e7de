"""Foundry Local's web service for a model of one's own: an OpenAI API under /catalogs/local/v1, in a process of its own.

A model is an ONNX Runtime GenAI folder; a GGUF file or a Hugging Face folder is converted once, to int4 (labkit.quant.onnx).
The service keeps what it registers on disk, for ever. So each one here gets a data folder that goes with it, and nothing
stays registered. Foundry Local never writes to the model's folder; what a folder must say itself (threads, context) is said
in a copy of its small genai_config.json, beside links to its files.

Nothing goes out: its public catalogue is an empty one on this machine (or the first look at /v1/models would ask the real
one), `CI=true` and `disable_nonessential_telemetry` are set. Limits of SDK 2.2.1: `ignore_eos` and `logprobs` are dropped
without a word, there is no /v1/completions, no /health and no /metrics, and several requests at once share the
processor with no gain in throughput (github.com/microsoft/Foundry-Local, sdk_v2; all of it seen here). The SDK loads its own
onnxruntime-genai for the whole process, and the package onnxruntime_genai cannot be loaded after it: one more reason for a
process of its own.

Run as a module it is the server process itself: `python -m labkit.servers.foundry '{"path": …}'`.

>>> with servers.open("foundry").start(models.resolve("smollm2-135m")) as running:
...     openai.OpenAI(base_url=running.base_url, api_key="none").models.list().data[0].id
'smollm2-135m-generic-cpu:1'
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from labkit.core import extras, machine
from labkit.core.errors import BadInput, MissingPart
from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.servers.azure_stand_in import GALLERY, AzureStandIn
from labkit.servers.base import HOST, Running, Server

CONFIG = "genai_config.json"
# for a model that has no chat template: the texts one after another (labkit.engines.templates.plain); Foundry Local refuses none at all
_PLAIN = "{% for message in messages %}{% if not loop.first %}{{ '\\n\\n' }}{% endif %}{{ message['content'] }}{% endfor %}"
FORMATS = frozenset({"onnx-genai", "hf", "gguf"})


class Options(BaseModel):
    """`context` holds prompt and answer of a request (None: what the model was trained for, 8192 at most)."""

    model_config = ConfigDict(extra="forbid")

    threads: int | None = Field(None, ge=1)
    context: int | None = Field(None, ge=32)
    ignore_eos: bool = False  # every answer is as long as max_tokens


class Foundry(Server):
    name = "foundry"
    health = "/catalogs/local/v1/models"  # the service starts when the model is loaded
    api = "/catalogs/local/v1"  # /v1 is the public catalogue's
    own_folder = True

    def missing(self) -> str | None:
        return extras.missing("foundry")

    def version(self) -> str | None:
        return None if self.missing() else extras.version("foundry")

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        chosen = parse(Options, self.name, options)
        ready = as_onnx(model)
        own = {"path": str(ready.path), "id": model_id(model.name), "context": _checked(ready, chosen.context)}
        task = chosen.model_dump() | own | {"port": port, "parent": os.getpid()}
        return [sys.executable, "-m", "labkit.servers.foundry", json.dumps(task)]

    def environment(self, port: int, folder: Path) -> dict[str, str]:
        return {"CI": "true", "LABKIT_FOUNDRY_DATA": str(folder)}


SERVER = Foundry()


def as_onnx(model: ModelRef) -> ModelRef:
    """The model as an ONNX Runtime GenAI folder: itself, or converted to int4 once, into the cache."""
    if model.format not in FORMATS:
        raise BadInput(f"Foundry Local reads ONNX GenAI folders, {model.name} is {model.format}", "give a GGUF file, or an ONNX folder")
    if model.format == "onnx-genai":
        return model
    from labkit.quant import onnx

    return onnx.convert(model)


def model_id(name: str) -> str:
    """The id that a model is served under, in the form that Foundry Local asks for: name, device, version."""
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}-generic-cpu:1"


def has_chat_template(path: Path) -> bool:
    """Does a model's folder say how messages become one text?"""
    try:
        told = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError):
        told = None
    return bool(told) or (path / "chat_template.jinja").is_file()


def load_s(running: Running) -> float | None:
    """Seconds that the service took to load its model, as its process noted them."""
    try:
        return float(json.loads((running.folder or Path()).joinpath("loaded.json").read_text(encoding="utf-8"))["load_s"])
    except (OSError, ValueError, KeyError):
        return None


def _checked(model: ModelRef, context: int | None) -> int:
    """The context to load it with."""
    try:
        most = json.loads((model.path / CONFIG).read_text(encoding="utf-8"))["model"]["context_length"]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{model.path} has no readable {CONFIG}", "convert the model again") from error
    if context and context > most:
        raise BadInput(f"{model.name} was trained for {most} tokens of context, not {context}", f"context={most}")
    size = sum(file.stat().st_size for file in model.path.iterdir() if file.is_file())
    if size > machine.memory_available_bytes():
        raise BadInput(
            f"{model.name} takes {size / 1e9:.1f} GB, and {machine.memory_available_bytes() / 1e9:.1f} GB are free",
            "close other programs, or take a smaller model: labkit models",
        )
    return context or min(most, 8192)  # an answer without a limit of its own may take 2048 of it


# -- the server process, and what else works with the SDK in a process of its own


def configured(path: Path, target: Path, threads: int | None = None, context: int | None = None, ignore_eos: bool = False) -> Path:
    """A folder of links to the files of `path`, with a genai_config.json of its own. Returns `target`."""
    target.mkdir(parents=True)
    for file in path.iterdir():
        if file.is_file() and file.name != CONFIG:
            try:
                (target / file.name).symlink_to(file.resolve())
            except OSError:  # Windows, without the right to make links
                shutil.copy2(file, target / file.name)
    if not has_chat_template(path):
        (target / "chat_template.jinja").write_text(_PLAIN, encoding="utf-8")
    config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    search = config.setdefault("search", {})
    if threads:
        config["model"]["decoder"].setdefault("session_options", {})["intra_op_num_threads"] = threads
    if context:
        search["max_length"] = config["model"]["context_length"] = context
    if ignore_eos:
        search["min_length"] = search["max_length"]  # the end-of-text token is not drawn before it
    (target / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    return target


@contextlib.contextmanager
def manager(data: Path, port: int = 0, catalogues: tuple[str, ...] = ()) -> Iterator[Any]:
    """Foundry Local's manager with its data in `data`, closed at the end. The SDK allows one at a time in a process."""
    if why := extras.missing("foundry"):
        cause, _, command = why.partition("; install it: ")
        raise MissingPart(cause, command)
    os.environ.setdefault("CI", "true")
    import foundry_local_sdk as sdk

    configuration = sdk.Configuration(
        app_name="labkit",
        app_data_dir=str(data),
        disable_nonessential_telemetry=True,
        web=sdk.Configuration.WebService(urls=f"http://{HOST}:{port}"),
        catalog_urls=[(url, None) for url in catalogues] or None,
    )
    sdk.FoundryLocalManager.initialize(configuration)
    found: Any = sdk.FoundryLocalManager.instance
    try:
        yield found
    finally:
        found.close()


def register(found: Any, path: Path, id: str) -> Any:
    """Put a model of one's own into the local catalogue. Returns the SDK's model, not loaded."""
    import foundry_local_sdk as sdk

    with sdk.ModelInfoBuilder() as about:
        about.set_string_property("task", "chat-completion")  # the SDK refuses a model without it
        return found.get_catalog(sdk.CatalogType.LOCAL).register_model(model_path=str(path), model_id=id, metadata=about)


def main(task: dict[str, Any]) -> None:
    """The server process: serves until it is told to stop, or until its parent is gone."""
    data = Path(os.environ["LABKIT_FOUNDRY_DATA"])
    folder = configured(Path(task["path"]), data / "model", task["threads"], task["context"], task["ignore_eos"])
    with AzureStandIn({}) as empty, manager(data, task["port"], (empty.url + GALLERY,)) as found:
        model = register(found, folder, task["id"])
        started = time.perf_counter()
        model.load()
        (data / "loaded.json").write_text(json.dumps({"load_s": time.perf_counter() - started}), encoding="utf-8")
        found.start_web_service()
        print("listening on", *found.urls, flush=True)  # noqa: T201 - goes to the log
        stop = threading.Event()
        while not stop.wait(1):
            if os.getppid() != task["parent"]:  # killed without a word: do not stay behind, nor leave anything
                shutil.rmtree(data, ignore_errors=True)
                os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
