"""What is in an ONNX model: the nodes of its graph by kind, and its tensors by what they are for. Needs the package onnx.

Bits per weight are counted from the **initializers**, the tensors stored with the graph. A quantized matrix is stored as codes,
scales and, where zero is not the middle code, zero points; all of them count. So does a matrix that is stored twice: a small
model's output matrix is its embedding table again, and a graph that quantizes the one and not the other keeps both. What is no
weight (tables of sines, constants of the graph) counts as bytes and not as weights.

>>> found = inspect(convert(models.resolve("stdlib-10m"), "int4").path)
>>> found.bits_per_weight, found.nodes["MatMulNBits"]
(12.3…, 21)
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from labkit.core import extras
from labkit.core.errors import BadInput
from labkit.core.records import Record
from labkit.models import catalog
from labkit.quant import folders

# operator -> (input that holds the weights, inputs that belong to it as scales, as zero points)
_OPERATORS: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "MatMulNBits": (1, (2,), (3,)),
    "GatherBlockQuantized": (0, (2,), (3,)),
    "MatMulInteger": (1, (), (3,)),
    "DequantizeLinear": (0, (1,), (2,)),
    "MatMul": (1, (), ()),
    "Gemm": (1, (), ()),
    "Gather": (0, (), ()),
    "SimplifiedLayerNormalization": (1, (), ()),
    "SkipSimplifiedLayerNormalization": (2, (), ()),
    "LayerNormalization": (1, (), ()),
}
_PACKED = {"MatMulNBits", "GatherBlockQuantized"}  # several codes in a byte
ROLES = ("codes", "scales", "zero points", "unquantized", "tables")
_BITS = {"FLOAT": 32, "FLOAT16": 16, "BFLOAT16": 16, "DOUBLE": 64, "INT4": 4, "UINT4": 4, "INT2": 2, "UINT2": 2, "BOOL": 8, "UINT8": 8,
         "INT8": 8, "UINT16": 16, "INT16": 16, "INT32": 32, "UINT32": 32, "INT64": 64, "UINT64": 64}  # fmt: skip


class Stored(Record):
    """One initializer. `elements`: the weights that it stands for; 0 for scales, zero points and tables."""

    name: str
    role: str = Field(description="codes, scales, zero points, unquantized or tables")
    type: str = Field(description="the stored type, such as UINT8 or FLOAT")
    bits: int = Field(description="of one weight's code, or of one stored number")
    shape: tuple[int, ...]
    elements: int
    bytes: int


class Graph(Record):
    """A model's graph. `parameters`: the model's weights, each counted once; None where the folder does not say."""

    path: Path
    nodes: dict[str, int]
    initializers: tuple[Stored, ...]
    outputs: tuple[str, ...]
    parameters: int | None
    file_bytes: int

    @cached_property
    def stored_weights(self) -> int:
        """Weights in the files: a matrix that is stored twice counts twice."""
        return sum(one.elements for one in self.initializers)

    @cached_property
    def tensor_bytes(self) -> int:
        return sum(one.bytes for one in self.initializers)

    @property
    def bits_per_weight(self) -> float:
        """All bytes of all initializers over the model's weights, each of them counted once where their number is known."""
        return 8 * self.tensor_bytes / (self.parameters or self.stored_weights or 1)

    @property
    def bits_per_stored_weight(self) -> float:
        return 8 * self.tensor_bytes / (self.stored_weights or 1)

    @cached_property
    def bytes_by_role(self) -> dict[str, int]:
        return {role: sum(one.bytes for one in self.initializers if one.role == role) for role in ROLES}

    @cached_property
    def code_bits(self) -> dict[int, int]:
        """Bits of a code -> weights that are stored so; what is not quantized is left out."""
        count: Counter[int] = Counter()
        for one in self.initializers:
            if one.role == "codes":
                count[one.bits] += one.elements
        return dict(count)


def int4_bytes(model: catalog.Model) -> float:
    """Bytes of a catalogue model as the model builder's int4 folder, by arithmetic, within about 5 %: nothing has to be built.

    Every matrix that is multiplied takes 5 bits a weight: a 4-bit code, and a 32-bit scale for each block of 32. The embedding
    table is looked up and stays in 32 bits. A tied one is also the output matrix, so it is stored twice:

        parameters * 5 / 8 + 4 * vocab * hidden        tied
        (parameters - vocab * hidden) * 5 / 8 + 4 * vocab * hidden        with an output matrix of its own

    Left out: the tables of sines, the graph, the tokenizer, and that the few norms keep 32 bits.
    """
    table = model.shape.vocab * model.shape.hidden
    multiplied = model.parameters - (0 if model.shape.tied_embeddings else table)
    return multiplied * 5 / 8 + 4 * table


def inspect(folder: Path) -> Graph:
    """What is in a folder's model.onnx. Raises BadInput for a folder without one, or one that is broken."""
    extras.require("onnx")
    import onnx

    path = folder / "model.onnx"
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__name__ != "DecodeError":  # protobuf's, which has no types
            raise
        raise BadInput(f"{path} cannot be read: {str(error)[:100]}", "convert the model again") from error
    roles = _roles(graph)
    stored = tuple(_stored(one, roles.get(one.name), onnx.TensorProto.DataType.Name(one.data_type)) for one in graph.initializer)
    note = folders.note_of(folder)
    return Graph(
        path=folder,
        nodes=dict(Counter(node.op_type for node in graph.node).most_common()),
        initializers=stored,
        outputs=tuple(one.name for one in graph.output),
        parameters=note.get("parameters"),
        file_bytes=sum(one.stat().st_size for one in folder.glob("*.onnx*")),
    )


def _roles(graph: Any) -> dict[str, tuple[str, int]]:
    """Initializer -> (its role, bits of a code or 0), from the operators that read it."""
    found: dict[str, tuple[str, int]] = {}
    reshaped = {node.output[0]: node.input[0] for node in graph.node if node.op_type in ("Reshape", "Transpose", "Identity") and node.input}
    for node in graph.node:
        if node.op_type not in _OPERATORS:
            continue
        weights, scales, zeros = _OPERATORS[node.op_type]
        packed = node.op_type in _PACKED
        quantized = packed or node.op_type in ("MatMulInteger", "DequantizeLinear")
        bits = next((one.i for one in node.attribute if one.name == "bits"), 4) if packed else 0
        for at, name in enumerate(node.input):
            name = reshaped.get(name, name)
            if at == weights:
                found[name] = ("codes" if quantized else "unquantized", bits)
            elif at in scales or at in zeros:
                found[name] = ("scales" if at in scales else "zero points", 0)
    return found


def _stored(one: Any, role: tuple[str, int] | None, type_: str) -> Stored:
    count = math.prod(one.dims)
    width = _BITS.get(type_, 8)
    name, bits = role or (_by_name(one.name), 0)
    if name == "unquantized" and type_ in ("INT8", "UINT8"):  # looked up as codes, and scaled afterwards
        name = "codes"
    holds = width // bits if bits and bits < width else 1  # codes in one stored number
    size = (count * width + 7) // 8
    weights = count * holds if name in ("codes", "unquantized") else 0
    return Stored(name=one.name, role=name, type=type_, bits=bits or width, shape=tuple(one.dims), elements=weights, bytes=size)


def _by_name(name: str) -> str:
    """Of an initializer whose reader does not tell: the factor of an integer product is a scale, all else a table."""
    return "scales" if name.endswith(("_scale", "_scales")) else "tables"


def providers() -> list[dict[str, Any]]:
    """The execution providers that ONNX Runtime knows, and which of them this installation has: `provider here`."""
    extras.require("onnx")
    onnxruntime = importlib.import_module("onnxruntime")  # neither it nor Olive has types
    here = set(onnxruntime.get_available_providers())
    return [{"provider": name, "here": name in here} for name in onnxruntime.get_all_providers()]


def olive_passes() -> list[dict[str, Any]]:
    """The passes that Olive has: `name precisions providers accelerators data extras`, from the table in its package."""
    extras.require("onnx")
    spec = importlib.util.find_spec("olive")
    table = json.loads((Path(str(spec and spec.origin)).parent / "olive_config.json").read_text(encoding="utf-8"))["passes"]
    return [
        {
            "name": name,
            "precisions": one.get("supported_precisions", []),
            "providers": one.get("supported_providers", []),
            "accelerators": one.get("supported_accelerators", []),
            "needs_data": one.get("dataset") == "dataset_required",
            "extras": one.get("extra_dependencies", []),
        }
        for name, one in table.items()
    ]
