"""The exercises of lab 03: a checksum in blocks, a GGUF header, safe files, models by licence."""

from __future__ import annotations

import hashlib
import io
import struct
from typing import Any

from labkit.learn.check import Exercise, Part, Wrong

# -- a checksum, block by block


class _Watched(io.BytesIO):
    """A file that remembers how much was asked of it at once."""

    most = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.most = max(self.most, len(data))
        return data


def _checksum(answer: Any, rng: Any) -> str | None:
    block = int(rng.integers(500, 2000))
    content = rng.bytes(int(rng.integers(5, 9)) * block + int(rng.integers(1, block)))
    file = _Watched(content)
    given = answer(file, hashlib.sha256(), block)
    if given == hashlib.sha256(content).hexdigest():
        if file.most > block:
            return "Right, but it reads the whole file at once: a model may be larger than your memory. Read block_bytes at a time."
        return None
    if isinstance(given, bytes) or callable(given):
        return "Return the digest as text: digest.hexdigest() does that."
    if given == hashlib.sha256(content[:block]).hexdigest():
        return "That is the checksum of the first block. Go on until read() gives an empty result."
    if given == hashlib.sha256(content[: len(content) // block * block]).hexdigest():
        return "The last block is shorter than the others, and is missing. Stop at an empty result, not at a short one."
    if given == hashlib.sha256().hexdigest():
        return "That is the checksum of nothing: hand each block to digest.update()."
    return "Read a block, hand it to digest.update(), and go on until read() gives an empty result; then return digest.hexdigest()."


checksum = Exercise(
    "checksum",
    "A checksum, block by block",
    (Part(2, "files of several blocks", _checksum),),
    (
        Wrong("digest.update(file.read())\nreturn digest.hexdigest()", "larger than your memory", "reads everything at once"),
        Wrong("digest.update(file.read(block_bytes))\nreturn digest.hexdigest()", "first block", "reads one block"),
        Wrong(
            "while len(block := file.read(block_bytes)) == block_bytes:\n    digest.update(block)\nreturn digest.hexdigest()",
            "last block is shorter",
            "drops what does not fill a block",
        ),
        Wrong(
            "while block := file.read(block_bytes):\n    digest.update(block)\nreturn digest.digest()",
            "hexdigest",
            "returns the raw bytes",
        ),
        Wrong("return digest.hexdigest()", "checksum of nothing", "hands nothing over"),
    ),
)


# -- the header of a GGUF file


def _header(answer: Any, rng: Any) -> str | None:
    version, tensors, pairs = int(rng.integers(2, 4)), int(rng.integers(300, 2**40)), int(rng.integers(300, 2**40))
    data = b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + rng.bytes(30)
    given = answer(data)
    right = (version, tensors, pairs)
    try:
        given = tuple(given)
    except TypeError:
        return "Return three numbers: version, tensors, pairs."
    if given == right:
        return None
    if given == (version, pairs, tensors):
        return "The order in the file is version, tensors, pairs: the number of tensors comes first."
    if given == tuple(int.from_bytes(data[a:b], "big") for a, b in ((4, 8), (8, 16), (16, 24))):
        return "GGUF is little-endian: the smallest byte comes first."
    if given == tuple(int.from_bytes(data[a:b], "little") for a, b in ((4, 8), (8, 12), (12, 16))):
        return "The version takes 4 bytes; each of the two counts takes 8."
    if given == tuple(int.from_bytes(data[a:b], "little") for a, b in ((0, 4), (4, 12), (12, 20))):
        return "The first four bytes are the letters GGUF; the version follows them."
    return "Bytes 4 to 8 are the version, 8 to 16 the tensors, 16 to 24 the metadata pairs, little-endian."


gguf_header = Exercise(
    "gguf_header",
    "The first 24 bytes of a GGUF file",
    (Part(2, "three fields", _header),),
    (
        Wrong(
            'return tuple(int.from_bytes(data[a:b], "big") for a, b in ((4, 8), (8, 16), (16, 24)))',
            "little-endian",
            "reads the bytes backwards",
        ),
        Wrong(
            'return tuple(int.from_bytes(data[a:b], "little") for a, b in ((4, 8), (8, 12), (12, 16)))',
            "takes 8",
            "takes the counts for 32-bit numbers",
        ),
        Wrong(
            'return tuple(int.from_bytes(data[a:b], "little") for a, b in ((0, 4), (4, 12), (12, 20)))',
            "letters GGUF",
            "forgets the magic letters",
        ),
        Wrong(
            'return tuple(int.from_bytes(data[a:b], "little") for a, b in ((4, 8), (16, 24), (8, 16)))',
            "tensors comes first",
            "swaps the two counts",
        ),
    ),
)


# -- which files may be loaded

_SAFE = (".safetensors", ".gguf", ".onnx", ".json", ".txt")
_NAMES = {
    "safe": ("model.safetensors", "model-00001-of-00002.safetensors", "tiny.Q4_0.gguf", "onnx/model.onnx", "config.json", "merges.txt"),
    "upper": ("MODEL.SAFETENSORS", "Tiny.GGUF"),
    "pickle": ("pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt", "scaler.pkl"),
    "inside": ("model.safetensors.pkl", "config.json.bin", "gguf_to_hf.pt"),
    "code": ("modeling_tiny.py", "run.sh", "fast.so"),
}


def _listing(rng: Any, *kinds: str) -> list[str]:
    names = [name for kind in kinds for name in _NAMES[kind]]
    return [names[at] for at in rng.permutation(len(names))]


def _safe(answer: Any, rng: Any) -> str | None:
    return _judge(answer, _listing(rng, "safe", "pickle", "code"))


def _tricky(answer: Any, rng: Any) -> str | None:
    return _judge(answer, _listing(rng, "safe", "upper", "pickle", "inside", "code"))


def _judge(answer: Any, names: list[str]) -> str | None:
    given = answer(list(names), _SAFE)
    right = [name for name in names if name.lower().endswith(_SAFE)]
    if not isinstance(given, (list, tuple)):
        return "Return a list of names."
    if list(given) == right:
        return None
    if any(name not in names and name in [one.lower() for one in names] for name in given):
        return "Return the names as they were: compare name.lower(), and keep name."
    extra, lacking = [name for name in given if name not in right], [name for name in right if name not in given]
    for name in extra:
        if name in _NAMES["code"]:
            return f"{name} is a program, and you keep it. List what is allowed: a list of what is forbidden is never complete."
        if name in _NAMES["inside"]:
            return f"{name} is kept, but only its ending counts: the rest of a name can say anything."
        return f"{name} is a pickle, and you keep it. Keep only the endings in `safe`."
    if lacking:
        if lacking[0].count(".") > 1 and not any(name.count(".") > 1 for name in given):
            return f"{lacking[0]} is left out: only what follows the *last* dot is the ending. A name may have more dots."
        if lacking[0] != lacking[0].lower():
            return f"{lacking[0]} is left out: endings may be written in capitals. Compare name.lower()."
        return f"{lacking[0]} is safe and is left out."
    return "The right names, in another order: keep the order of the listing."


safe_files = Exercise(
    "safe_files",
    "Which files of a repository may be loaded",
    (Part(1, "plain names", _safe), Part(1, "names that mislead", _tricky)),
    (
        Wrong(
            'return [name for name in names if not name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]',
            "never complete",
            "forbids, and forgets",
        ),
        Wrong("return [name for name in names if name.endswith(safe)]", "capitals", "takes capitals for another ending"),
        Wrong(
            "return [name for name in names if any(one in name.lower() for one in safe)]",
            "only its ending counts",
            "looks anywhere in the name",
        ),
        Wrong("return sorted(name for name in names if name.lower().endswith(safe))", "order of the listing", "sorts"),
        Wrong("return [n for n in map(str.lower, names) if n.endswith(tuple(safe))]", "as they were", "returns the names in small letters"),
        Wrong(
            "return [name for name in names if '.' + name.lower().split('.')[1] in safe]",
            "the *last* dot",
            "takes the first dot for the last",
        ),
    ),
)


# -- models by licence

_LICENCES = ("Apache-2.0", "MIT", "Gemma Terms of Use", "Llama 3.2 Community License", "CC-BY-NC-4.0", None)


def _models(rng: Any) -> list[dict[str, Any]]:
    """Rows with two licences that are allowed and one that is missing among them; no two have the same size."""
    sizes = rng.permutation(range(2, 60))[:12]
    chosen = [*_LICENCES, *(_LICENCES[int(at)] for at in rng.integers(len(_LICENCES), size=6))]
    return [
        {"name": f"model-{chr(97 + n)}", "licence": chosen[int(at)], "gb": float(sizes[n]) / 4} for n, at in enumerate(rng.permutation(12))
    ]


def _licensed(answer: Any, rng: Any) -> str | None:
    rows = _models(rng)
    allowed = {"Apache-2.0", "MIT"}
    limit = next(row["gb"] for row in sorted(rows, key=lambda row: -row["gb"]) if row["licence"] in allowed)
    right = [row["name"] for row in sorted(rows, key=lambda row: row["gb"]) if row["licence"] in allowed and row["gb"] <= limit]
    given = answer([dict(row) for row in rows], set(allowed), limit)
    if isinstance(given, (list, tuple)) and list(given) == right:
        return None
    if not isinstance(given, (list, tuple)) or any(isinstance(one, dict) for one in given):
        return "Return a list of names, not of rows."
    named = {row["name"]: row for row in rows}
    for name in given:
        if name not in named:
            return "Return the names as they stand in the rows."
        if named[name]["licence"] is None:
            return f"{name} states no licence, and you allow it. Without a licence you have no right to use a model."
        if named[name]["licence"] not in allowed:
            return f"{name} comes under {named[name]['licence']}, which is not among the licences allowed."
        if named[name]["gb"] > limit:
            return f"{name} is larger than most_gb."
    if set(given) != set(right):
        return "Some allowed model is missing: most_gb itself is still allowed."
    return "The right models: sort them by size, the smallest first."


by_licence = Exercise(
    "by_licence",
    "Models by licence",
    (Part(2, "licence and size", _licensed),),
    (
        Wrong(
            'rows = [r for r in rows if r["gb"] <= most_gb]\nreturn [r["name"] for r in sorted(rows, key=lambda r: r["gb"])]',
            "licence",
            "looks at the size only",
        ),
        Wrong(
            'rows = [r for r in rows if r["gb"] <= most_gb and (r["licence"] is None or r["licence"] in allowed)]\n'
            'return [r["name"] for r in sorted(rows, key=lambda r: r["gb"])]',
            "no right to use",
            "takes silence for permission",
        ),
        Wrong(
            'rows = [r for r in rows if r["gb"] < most_gb and r["licence"] in allowed]\n'
            'return [r["name"] for r in sorted(rows, key=lambda r: r["gb"])]',
            "itself is still allowed",
            "leaves out what meets the limit exactly",
        ),
        Wrong('return [r["name"] for r in rows if r["gb"] <= most_gb and r["licence"] in allowed]', "smallest first", "does not sort"),
    ),
)
