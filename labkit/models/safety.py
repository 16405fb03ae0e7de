"""Is a model file safe to fetch and to load? By its name first, by its content afterwards; nothing is ever unpickled.

A pickle is a small program: loading one runs what it says. PyTorch's old formats (.bin, .pt, .pth, .ckpt) are pickles, often
inside a zip archive. safetensors, GGUF and ONNX hold numbers and a description, and nothing that runs while it is read.
Limits: a file that is what its name says can still be a bad model, and a program that reads it can have errors of its own.

>>> judge("pytorch_model.bin")
'pickle'
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from labkit.core.errors import BadInput

Verdict = Literal["weights", "text", "pickle", "code", "other"]

WEIGHTS = (".safetensors", ".gguf", ".onnx", ".onnx_data", ".onnx.data")
TEXT = (".json", ".jsonl", ".txt", ".jinja", ".md", ".model", ".tiktoken", ".yaml", ".yml")
PICKLE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".keras", ".msgpack")
CODE = (".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".exe", ".bat", ".ps1", ".js", ".jar", ".whl")
_PLAIN_NAMES = ("license", "licence", "notice", "readme", "copying", "use_policy")
_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_HEADER_LIMIT = 100 << 20  # what the safetensors library allows
_ONNX_GRAPH = 7  # field of ModelProto in onnx.proto3


def judge(name: str) -> Verdict:
    """What a file's name promises: weights, text, a pickle (or another format that may hold one), code, or something else."""
    last = PurePosixPath(name.replace("\\", "/")).name.lower()
    for suffixes, verdict in ((WEIGHTS, "weights"), (PICKLE, "pickle"), (CODE, "code"), (TEXT, "text")):
        if last.endswith(suffixes):
            return verdict  # type: ignore[return-value]
    return "text" if last.split(".")[0] in _PLAIN_NAMES else "other"


def check_name(name: str) -> str:
    """A relative path that stays in its folder, on every system. Raises BadInput otherwise."""
    parts = name.split("/")
    bad = name.startswith("/") or "\\" in name or ":" in name or "\0" in name or any(p in ("", ".", "..") for p in parts)
    if bad:
        raise BadInput(f"{name!r} is no safe file name: it could leave the folder it is meant for", "take another source")
    return name


def check_content(path: Path) -> None:
    """Refuse a file that is not what its name says: a pickle under another name, or a broken file.

    Raises:
        BadInput: one sentence; the file is left where it is.
    """
    if _looks_pickled(path):
        raise BadInput(f"{path.name} holds a pickle, whatever its name says: loading it could run any program", "take another source")
    name, verdict = path.name.lower(), judge(path.name)
    if verdict not in ("weights", "text"):
        raise BadInput(f"{path.name} is {_IN_WORDS[verdict]}: labkit takes safetensors, GGUF and ONNX files only", "take another source")
    wrong = None
    if name.endswith(".gguf"):
        wrong = None if _first(path, 4) == b"GGUF" else "it does not start with GGUF"
    elif name.endswith(".safetensors"):
        wrong = _wrong_safetensors(path)
    elif name.endswith(".onnx"):
        wrong = _wrong_onnx(path)
    elif name.endswith(".json"):
        wrong = _wrong_json(path)
    if wrong:
        raise BadInput(f"{path.name} is not what its name says: {wrong}", "pull it again, or take another source")


_IN_WORDS = {"pickle": "a format that can hold a pickle", "code": "a program", "other": "of an unknown kind"}


def pickle_imports(data: bytes | Path) -> list[str]:
    """What a pickle asks Python to import, in order, read from its opcodes without running them: ['builtins.print', …].

    For a zip archive (as torch.save writes) every `.pkl` in it is read. An empty list: it holds plain data.
    Raises BadInput where it is no pickle.
    """
    content = data.read_bytes() if isinstance(data, Path) else data
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inside = [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
        return [one for part in inside for one in _imports(part)]
    return _imports(content)


def _imports(content: bytes) -> list[str]:
    """GLOBAL names its import in its argument; STACK_GLOBAL takes the two strings that were pushed last, memoised or not."""
    found: list[str] = []
    strings: list[str] = []
    memo: dict[int, str] = {}
    try:
        for op, argument, _ in pickletools.genops(content):
            if op.name in _STRINGS:
                strings.append(str(argument))
            elif op.name == "MEMOIZE" or op.name in ("BINPUT", "LONG_BINPUT", "PUT"):
                memo[len(memo) if argument is None else int(str(argument))] = strings[-1] if strings else ""
            elif op.name in ("BINGET", "LONG_BINGET", "GET"):
                strings.append(memo.get(int(str(argument)), ""))
            elif op.name == "GLOBAL" or op.name == "INST":
                found.append(str(argument).replace(" ", "."))
            elif op.name == "STACK_GLOBAL":
                found.append(".".join(strings[-2:]))
    except (ValueError, struct.error, IndexError) as error:
        raise BadInput(f"this is no pickle ({error})", "labkit inspect reads GGUF files") from None
    return found


def _looks_pickled(path: Path) -> bool:
    start = _first(path, 8)
    if start[:2] == b"PK":
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return True  # torch.save, NumPy's npz, Keras: none of the formats that labkit takes is a zip
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and not _wrong_pickle(path)


def _wrong_pickle(path: Path) -> bool:
    """Whether the first opcodes cannot be a pickle's: a file of numbers may start with the same two bytes by chance."""
    try:
        for count, _ in enumerate(pickletools.genops(_first(path, 1 << 16))):
            if count >= 8:
                break
    except (ValueError, struct.error, IndexError):
        return True
    return False


def safetensors_header(path: Path) -> dict:
    """The JSON at the start of a safetensors file, held against the file's size. Raises BadInput."""
    header, start = read_safetensors(path)
    size = path.stat().st_size
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    if start + max(ends, default=0) != size:
        raise BadInput(f"{path.name} has {size} bytes, its header says {start + max(ends, default=0)}", "pull it again")
    return header


def read_safetensors(path: Path) -> tuple[dict, int]:
    """(tensor name -> dtype, shape, data_offsets; where the data starts) of a safetensors file. Raises BadInput."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_HEADER_LIMIT, size - 8):
            raise BadInput(f"{path.name} is cut off in its header, or no safetensors file", "pull it again")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise BadInput(f"{path.name} has no JSON header", "pull it again") from None
    if not isinstance(header, dict):
        raise BadInput(f"{path.name} has no table of tensors", "pull it again")
    return header, 8 + length


def _wrong_safetensors(path: Path) -> str | None:
    try:
        safetensors_header(path)
    except (BadInput, KeyError, TypeError, IndexError) as error:
        return error.cause if isinstance(error, BadInput) else "its header is no table of tensors"
    return None


def _wrong_json(path: Path) -> str | None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return "it is no JSON"
    return None


def _wrong_onnx(path: Path) -> str | None:
    """An ONNX file is one protobuf message: walk its outer fields, skip their contents, and end where the file ends."""
    size, fields = path.stat().st_size, set()
    with path.open("rb") as file:
        while (at := file.tell()) < size:
            key = _varint(file)
            field, wire = key >> 3, key & 7
            skip = {0: 0, 1: 8, 5: 4}.get(wire)
            if wire == 0:
                _varint(file)
            elif wire == 2:
                skip = _varint(file)
            if field == 0 or skip is None or file.tell() + skip > size:
                return f"it is no ONNX model (byte {at})"
            file.seek(skip, io.SEEK_CUR)
            fields.add(field)
    return None if _ONNX_GRAPH in fields else "it holds no graph"


def _varint(file: IO[bytes]) -> int:
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
        if shift > 63:
            break
    return 0


def _first(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)
