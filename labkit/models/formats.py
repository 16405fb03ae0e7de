"""Which kind of model a folder holds, by the files in it. Nothing but a small JSON file is read.

>>> of_folder(Path("my-model"))
'hf'
"""

from __future__ import annotations

import json
from pathlib import Path

from labkit.core.errors import BadInput

# in this order: an ONNX folder of GenAI has a config.json as well
MARKERS = {"genai_config.json": "onnx-genai", "config.json": "hf"}


def of_folder(folder: Path) -> str | None:
    """The format that engines know it by, or None. Raises BadInput for a config.json that is no JSON."""
    for marker, kind in MARKERS.items():
        if (folder / marker).is_file():
            return "mlx" if kind == "hf" and _is_mlx(folder / marker) else kind
    return None


def _is_mlx(config: Path) -> bool:
    """mlx-lm notes its quantization under a key of its own."""
    try:
        return "quantization" in json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise BadInput(f"{config} is not JSON", "download or convert the model again") from error
