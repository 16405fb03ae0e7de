"""The services that lab 03 asks: stand-ins on this machine with a few repositories, or the real Hub."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labkit import models
from labkit.core.errors import BadInput
from labkit.core.records import ModelRef
from labkit.models import safety
from labkit.servers.azure_stand_in import AzureStandIn, Model
from labkit.servers.hub_stand_in import HubStandIn, Repo

STAND_IN = "a stand-in of the Hub on this machine"
# a graph without nodes: the smallest file that is an ONNX model
_ONNX = b"\x08\x0a\x12\x06labkit\x3a\x08\x12\x06nodes0"


@dataclass
class Service:
    """A Hub: `endpoint` is None for the real one."""

    endpoint: str | None
    label: str
    stand_in: HubStandIn | None = None

    def stop(self) -> None:
        """Stop the stand-in; the real Hub stays."""
        if self.stand_in is not None:
            self.stand_in.stop()
            self.stand_in = None


def open_hub(where: str, ref: ModelRef | None) -> Service:
    """ "stand-in": a Hub of a few repositories on this machine, one of them with the lab's model. "online": huggingface.co."""
    if where == "online":
        return Service(None, "huggingface.co")
    if where != "stand-in":
        raise BadInput(f"hub is {where!r}", 'hub = "stand-in" or "online"')
    service = HubStandIn(repositories(gguf_of(ref)))
    service.start()
    return Service(service.url, STAND_IN, service)


def gguf_of(ref: ModelRef | None) -> Path:
    """The lab's model where it is a GGUF file, else the course's own."""
    return ref.path if ref is not None and ref.format == "gguf" else models.resolve("stdlib-10m").path


def repositories(gguf: Path) -> dict[str, Repo]:
    """The repositories of the stand-in: what one meets on the real Hub, in small."""
    tensors, config = safetensors_bytes(), json.dumps({"model_type": "llama", "hidden_size": 4}).encode()
    return {
        "course/model-gguf": Repo({gguf.name: gguf, "LICENSE": b"MIT\n", "README.md": b"# A model\n"}, "mit", tags=("gguf",)),
        "course/mixed": Repo(
            {
                "model.safetensors": tensors,
                "pytorch_model.bin": pickle_bytes(),
                "config.json": config,
                "tokenizer.json": b"{}",
                "modeling_mixed.py": b"# code that comes with a model\n",
            },
            "apache-2.0",
        ),
        "course/old-checkpoint": Repo({"pytorch_model.bin": pickle_bytes(), "config.json": config}, "mit"),
        "course/disguised": Repo({"model.safetensors": pickle_bytes(), "config.json": config}, "mit"),
        "course/research-only": Repo({"model.safetensors": tensors, "config.json": config}, "cc-by-nc-4.0"),
        "course/no-licence": Repo({"model.safetensors": tensors, "config.json": config}, None),
        "course/gated": Repo({"model.safetensors": tensors, "config.json": config}, "gemma", gated=True),
    }


def listing(service: Service, words: str) -> list[dict[str, Any]]:
    """Repositories whose name has the words: licence, gate, and what their file names promise."""
    from huggingface_hub import HfApi

    found = HfApi(endpoint=service.endpoint).list_models(search=words, limit=20, full=True, cardData=True)
    rows = []
    for info in found:
        verdicts = [safety.judge(one.rfilename) for one in info.siblings or []]
        licence = next((tag.partition(":")[2] for tag in info.tags or [] if tag.startswith("license:")), None)
        counts = {kind: verdicts.count(kind) for kind in ("weights", "pickle", "code")}
        rows.append({"repository": info.id, "licence": licence or "none stated", "gated": bool(info.gated), **counts})
    return sorted(rows, key=lambda row: row["repository"])


def pickle_bytes() -> bytes:
    """A pickle that prints a sentence when it is loaded. It is harmless, and nobody loads it here."""
    return pickle.dumps({"weights": [0.1, 0.2], "note": _Note()}, protocol=4)


class _Note:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this ran while the file was being read",)


def safetensors_bytes() -> bytes:
    """A safetensors file of one small tensor, written by hand: 8 bytes of length, a JSON table, the numbers."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}).encode()
    return len(header).to_bytes(8, "little") + header + np.eye(4, dtype="<f4").tobytes()


def azure_registry() -> AzureStandIn:
    files: dict[str, bytes | Path] = {
        "model.onnx": _ONNX,
        "model.onnx.data": bytes(4096),
        "genai_config.json": b"{}",
        "tokenizer.json": b"{}",
    }
    offered = {
        "tiny-instruct-generic-cpu": Model(files, version="2", alias="tiny-instruct"),
        "tiny-instruct-cuda-gpu": Model(files, alias="tiny-instruct", device="gpu"),
        "small-chat-generic-cpu": Model(files, licence="Llama 3.2 Community", alias="small-chat"),
        "small-chat-qnn-npu": Model(files, licence="Llama 3.2 Community", alias="small-chat", device="npu"),
    }
    return AzureStandIn(offered)
