"""What process, and is it well? Servers by name, one file each.

>>> with servers.open("llama_server").start(models.resolve("smollm2-135m")) as running:
...     print(running.base_url)
"""

from __future__ import annotations

import importlib

from labkit.core.errors import BadInput, nearest
from labkit.servers.base import Running, Server

__all__ = ["Running", "Server", "companion", "companions", "names", "open"]

# the one table of model servers: name -> module that holds SERVER
_MODULES = {
    "llama_server": "labkit.servers.llama_server",
    "ollama": "labkit.servers.ollama",
    "foundry": "labkit.servers.foundry",
    "onnx": "labkit.servers.onnx",
    "vllm": "labkit.servers.vllm",
}
# what stands beside them and serves no model: in front of several, or watching them
_COMPANIONS = {
    "haproxy": "labkit.servers.haproxy",
    "prometheus": "labkit.servers.prometheus",
    "alertmanager": "labkit.servers.alertmanager",
    "loki": "labkit.servers.loki",
}


def names() -> list[str]:
    """The model servers."""
    return list(_MODULES)


def companions() -> list[str]:
    return list(_COMPANIONS)


def companion(name: str) -> Server:
    """The companion of that name, one of `companions()`."""
    return importlib.import_module(_COMPANIONS[name]).SERVER


def open(name: str) -> Server:
    """The model server of that name. Raises BadInput with the nearest name."""
    if name not in _MODULES:
        raise BadInput(f"no server named {name!r} ({nearest(name, _MODULES)})", "labkit doctor")
    return importlib.import_module(_MODULES[name]).SERVER
