"""The weights of a GGUF file's tensors as float32, decoded from whatever type they have.

>>> header = inspect.read(path)
>>> rows(path, header.tensors[0], count=4)     # float32 [4, row length]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from labkit.core.errors import BadInput
from labkit.models.inspect import Tensor
from labkit.quant import blocks


def rows(path: Path, tensor: Tensor, count: int | None = None, every: int = 1) -> np.ndarray:
    """The first `count` rows (None: all), or every k-th: float32 [rows, row length]. Only those are read.

    Raises BadInput for a type that cannot be decoded.
    """
    width = tensor.shape[0]
    height = tensor.elements // width
    stored = np.memmap(path, np.uint8, "r", tensor.offset, (height, tensor.bytes // height))[:count:every]
    return _decode(tensor.type, np.ascontiguousarray(stored)).astype(np.float32, copy=False).reshape(-1, width)


def _decode(kind: str, data: np.ndarray) -> np.ndarray:
    if kind == "F32":
        return data.view("<f4")
    if kind in blocks.KINDS:
        return blocks.decode(kind, data)
    from gguf import quants
    from gguf.constants import GGMLQuantizationType

    try:
        return np.asarray(quants.dequantize(data, GGMLQuantizationType[kind]), np.float32)
    except NotImplementedError as error:
        raise BadInput(f"tensors of type {kind} cannot be decoded here", "-p model stdlib-10m") from error
