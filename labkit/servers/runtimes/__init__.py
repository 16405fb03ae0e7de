"""Programs that labkit installs for itself, into the cache, each in a pinned version. By name, one file each.

A runtime is what cannot come with the Python packages: a server written in another language, or one that needs an
environment of its own. `labkit runtimes` lists them.

>>> runtimes.open("ollama").find()  # doctest: +SKIP
Found(path='/usr/local/bin/ollama', version='0.24.0', how='on PATH')
"""

from __future__ import annotations

import importlib
from typing import Any

from labkit.core.errors import BadInput, nearest
from labkit.servers.runtimes.base import Found, Runtime

__all__ = ["Found", "Runtime", "names", "open", "rows"]

# the one table of runtimes: name -> module that holds RUNTIME
_MODULES = {
    "ollama": "labkit.servers.runtimes.ollama",
    "vllm": "labkit.servers.runtimes.vllm",
    "loki": "labkit.servers.runtimes.loki",
}


def names() -> list[str]:
    return list(_MODULES)


def open(name: str) -> Runtime:
    """The runtime of that name. Raises BadInput with the nearest name."""
    if name not in _MODULES:
        raise BadInput(f"no runtime named {name!r} ({nearest(name, _MODULES)})", "labkit runtimes")
    return importlib.import_module(_MODULES[name]).RUNTIME


def rows() -> list[dict[str, Any]]:
    """One row a runtime: name kind ready version missing install."""
    out: list[dict[str, Any]] = []
    for name in names():
        runtime = open(name)
        found = runtime.find()
        missing = None if found else runtime.missing()
        version = f"{found.version} ({found.how})" if found else None
        row = {"name": name, "kind": "runtime", "ready": found is not None, "version": version, "missing": missing}
        out.append(row | {"install": None if found else runtime.command()})
    return out
