"""What is in a GGUF file? Header, metadata and tensor table, read without loading the model.

Only the header is read, and every count in it is held against the bytes that are there, so that a truncated, absurd
or hostile file gets one sentence at once. Layout: ggml docs/gguf.md (versions 2 and 3, little endian).

>>> inspect.read("model.gguf").bits_per_weight
6.17
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from pydantic import Field

from labkit.core.errors import BadInput
from labkit.core.records import Record

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEEP = 64  # longer arrays (vocabularies) are summed up, not kept


class Tensor(Record):
    """`shape` in ggml's order: the row length first."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int
    offset: int = Field(description="from the start of the file")

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


class Sizes(Record):
    """What follows from a table of tensors, each with its `elements` and `bytes`."""

    tensors: tuple[Any, ...]

    @cached_property
    def parameters(self) -> int:
        return sum(t.elements for t in self.tensors)

    @cached_property
    def tensor_bytes(self) -> int:
        return sum(t.bytes for t in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """All bytes of all tensors over all weights, scales and what stayed unquantized included."""
        return 8 * self.tensor_bytes / self.parameters if self.parameters else 0.0


class Gguf(Sizes):
    """A file's header."""

    path: Path
    version: int
    file_bytes: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @cached_property
    def types(self) -> dict[str, int]:
        """Bytes by tensor type, largest first."""
        count: Counter[str] = Counter()
        for tensor in self.tensors:
            count[tensor.type] += tensor.bytes
        return dict(count.most_common())

    @cached_property
    def kinds(self) -> dict[str, int]:
        """Bytes by what a tensor does: `embedding and output`, `attention`, `feed-forward`, `norms`, `other`; largest first."""
        count: Counter[str] = Counter()
        for tensor in self.tensors:
            count[_kind(tensor.name)] += tensor.bytes
        return dict(count.most_common())

    def value(self, key: str, default: Any = None) -> Any:
        """Metadata under the architecture's own prefix: `value("block_count")` reads `llama.block_count`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def has_vocabulary(self) -> bool:
        return self.metadata.get("tokenizer.ggml.model", "no_vocab") not in ("no_vocab", "none")

    @property
    def chat_template(self) -> str | None:
        return self.metadata.get("tokenizer.chat_template")


def _kind(name: str) -> str:
    """What a tensor of that name does; names as llama.cpp gives them (src/llama-arch.cpp)."""
    if "norm" in name:
        return "norms"
    if name.startswith(("token_embd.", "output.", "position_embd.", "token_types.", "per_layer_token_embd.")):
        return "embedding and output"
    if ".attn_" in name:
        return "attention"
    return "feed-forward" if ".ffn_" in name else "other"


class _Cursor:
    """Reads forward through the file and never past its end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def need(self, size: int, what: str) -> None:
        if size < 0 or size > len(self.data) - self.at:
            raise BadInput(
                f"{self.path} ends inside its {what} (byte {self.at} of {len(self.data)})",
                "download or copy the file again",
            )

    def scalar(self, code: str, what: str) -> Any:
        size = struct.calcsize("<" + code)
        self.need(size, what)
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += size
        return value

    def string(self, what: str) -> str:
        size = self.scalar("Q", what)
        self.need(size, what)
        value = self.data[self.at : self.at + size].decode("utf-8", errors="replace")
        self.at += size
        return value

    def skip_string(self, what: str) -> None:
        size = self.scalar("Q", what)
        self.need(size, what)
        self.at += size

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind], what)
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY and depth < 4:
            return self.array(what, depth)
        raise BadInput(f"{self.path} has a metadata value of unknown kind {kind} ({what})", "download the file again")

    def array(self, what: str, depth: int) -> Any:
        kind, count = self.scalar("I", what), self.scalar("Q", what)
        if kind in _SCALARS:
            size = struct.calcsize("<" + _SCALARS[kind])
            self.need(count * size, what)
            if count > _KEEP:
                self.at += count * size
                return {"array": count}
            values = struct.unpack_from(f"<{count}{_SCALARS[kind]}", self.data, self.at)
            self.at += count * size
            return list(values)
        self.need(count * 8, what)  # a string or array takes 8 bytes or more
        if kind == _STRING and count > _KEEP:
            for _ in range(count):
                self.skip_string(what)
            return {"array": count}
        return [self.value(kind, what, depth + 1) for _ in range(count)]


def read(path: str | Path) -> Gguf:
    """Read a GGUF file's header.

    Raises:
        BadInput: not a GGUF file, an unknown version, or shorter than its header or tensors say.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"no file {path}", "labkit models")
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise BadInput(f"{path} is not a GGUF file", "give a .gguf file or a catalogue name: labkit models")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(_Cursor(data, path), size)


def _parse(cursor: _Cursor, size: int) -> Gguf:
    cursor.at = 4
    version = cursor.scalar("I", "header")
    if version not in (2, 3):
        raise BadInput(f"{cursor.path} is GGUF version {version}, known are 2 and 3", "convert it with a current llama.cpp")
    tensors, pairs = cursor.scalar("Q", "header"), cursor.scalar("Q", "header")
    # the smallest metadata pair takes 13 bytes, the smallest tensor entry 32
    if pairs * 13 + tensors * 32 > size:
        raise BadInput(f"{cursor.path} claims {tensors} tensors and {pairs} metadata pairs in {size} bytes", "download the file again")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = cursor.string("metadata")
        metadata[key] = cursor.value(cursor.scalar("I", "metadata"), f"metadata value {key[:60]!r}")
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise BadInput(f"{cursor.path} has the alignment {alignment!r}", "download the file again")
    entries = [_entry(cursor) for _ in range(tensors)]
    start = -(-cursor.at // alignment) * alignment
    table = tuple(t.model_copy(update={"offset": start + t.offset}) for t in entries)
    missing = [t for t in table if t.offset + t.bytes > size]
    if missing:
        end = max(t.offset + t.bytes for t in missing)
        raise BadInput(
            f"{cursor.path} has {size} bytes, its tensors need {end} (the first cut one is {missing[0].name})",
            "download or copy the file again",
        )
    return Gguf(path=cursor.path, version=version, file_bytes=size, metadata=metadata, tensors=table)


def _entry(cursor: _Cursor) -> Tensor:
    name = cursor.string("tensor table")
    dimensions = cursor.scalar("I", "tensor table")
    if dimensions > 4:
        raise BadInput(f"{cursor.path}: tensor {name[:60]!r} claims {dimensions} dimensions", "download the file again")
    shape = tuple(cursor.scalar("Q", "tensor table") for _ in range(dimensions))
    kind, offset = cursor.scalar("I", "tensor table"), cursor.scalar("Q", "tensor table")
    try:
        type_ = GGMLQuantizationType(kind)
    except ValueError:
        raise BadInput(
            f"{cursor.path}: tensor {name[:60]!r} has the unknown type {kind}", "labkit doctor, and look for a newer labkit"
        ) from None
    return Tensor(name=name, type=type_.name, shape=shape, bytes=tensor_bytes(type_.name, shape), offset=offset)


def tensor_bytes(type_name: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor: its rows are whole blocks (ggml block sizes, as the gguf package lists them)."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    count = 1
    for length in shape:
        count *= length
    return count // block * size
