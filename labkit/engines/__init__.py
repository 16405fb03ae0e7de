"""Who answers? Engines by name, one file each.

>>> session = engines.open("llamacpp").load(models.resolve("smollm2-135m"), threads=1)
"""

from __future__ import annotations

import importlib

from labkit.core.errors import BadInput, nearest
from labkit.engines.base import Engine, Scorer, Session

__all__ = ["Engine", "Scorer", "Session", "names", "open"]

# the one table of engines: name -> module that holds ENGINE
_MODULES = {
    "llamacpp": "labkit.engines.llamacpp",
    "openai": "labkit.engines.openai",
    "mlx": "labkit.engines.mlx",
    "ortgenai": "labkit.engines.ortgenai",
    "ollama": "labkit.engines.ollama",
    "foundry": "labkit.engines.foundry",
}


def names() -> list[str]:
    return list(_MODULES)


def open(name: str) -> Engine:
    """The engine of that name; its library is loaded with the first model. Raises BadInput with the nearest name."""
    if name not in _MODULES:
        raise BadInput(f"no engine named {name!r} ({nearest(name, _MODULES)})", "labkit doctor")
    return importlib.import_module(_MODULES[name]).ENGINE
