"""labkit: the helper package under the labs.

A model and an engine become measurement records; records become plots, checks, reports and grades. Wings load on
first use, so `import labkit` costs next to nothing:

>>> import labkit
>>> session = labkit.engines.open("llamacpp").load(labkit.models.resolve("smollm2-135m"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# the wings, in the order in which they may import one another
WINGS = ("core", "models", "quant", "servers", "engines", "measure", "scale", "facts", "learn", "teach")
_NAMES = {"expect_error": "labkit.learn.expect"}

if TYPE_CHECKING:
    from labkit import core, engines, facts, learn, measure, models, servers, teach
    from labkit.learn.expect import expect_error

__all__ = ["core", "engines", "expect_error", "facts", "learn", "measure", "models", "servers", "teach"]


def __getattr__(name: str) -> Any:
    if name in __all__ and name not in _NAMES:
        return importlib.import_module(f"labkit.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'labkit' has no attribute {name!r}")
