"""The naive ONNX service of labs/stacks/onnx/naive.py, for lab 17 and its claims. It is in no table: nobody shall serve with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from labkit.core import extras, paths
from labkit.core.records import ModelRef
from labkit.servers.base import Server


class Naive(Server):
    """Takes an ONNX folder. Its health says nothing about its model."""

    name = "naive"
    kept = True

    def missing(self) -> str | None:
        return extras.missing("onnx")

    def version(self) -> str | None:
        return None

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        return [sys.executable, str(source()), "--model", str(model.path), "--port", str(port)]


SERVER = Naive()


def source() -> Path:
    return paths.labs("stacks", "onnx", "naive.py")
