"""A GGUF file in, a smaller one out: llama.cpp's own quantizer, its results kept in a cache with where they come from.

The work is done by `llama_model_quantize` of llama-cpp-python in a child process, because an abort inside the library
would otherwise end the notebook's kernel, and because a C++ loop hears no Ctrl-C. The tensors are what llama.cpp's tool
writes without an importance matrix; nothing is added to the file. Beside every file lies `<file>.json` with the
source's sha256, the type, the library's version and the date.

**From a quantized source.** llama.cpp turns each matrix into float32 before it encodes it anew, so going through an F16
file would only round once more. `quantize` therefore always reads the source itself; a matrix that already has its
target type is copied bit for bit. A file made from a quantized one says so in its name: `smollm2-135m-F16-from-Q4_1`
holds 16-bit numbers that still lie on the 4-bit grid; it is no original.

Limits: one-file models; types that need an importance matrix are refused.

>>> quantize(models.resolve("smollm2-135m"), "Q4_0").bits_per_weight
5.04
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm.auto import tqdm

from labkit.core import machine, paths, results
from labkit.core.errors import BadInput, MissingPart, RunFailed, nearest
from labkit.core.records import ModelRef, Record, now
from labkit.models import inspect, sha256_of

# name -> llama_ftype of llama.h: how each kind of matrix is stored; norms and biases stay as they are
TYPES = {
    "F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q6_K": 18, "Q5_K_M": 17, "Q5_K_S": 16, "Q5_1": 9, "Q5_0": 8,
    "Q4_K_M": 15, "Q4_K_S": 14, "Q4_1": 3, "Q4_0": 2, "IQ4_NL": 25, "IQ4_XS": 30, "Q3_K_L": 13, "Q3_K_M": 12,
    "Q3_K_S": 11, "IQ3_M": 27, "IQ3_S": 26, "Q2_K": 10, "TQ2_0": 37, "TQ1_0": 36,
}  # fmt: skip
# llama.cpp refuses these without statistics of a model's activations, because what it wrote would be useless
NEEDS_IMATRIX = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S")
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "FP16": "F16", "FP32": "F32"}
_NOTED = {"name", "type", "source_name", "source_type", "source_sha256", "key", "sha256", "bytes", "bits_per_weight"}
_FLOATS = ("F32", "F16", "BF16", "F64")


class Quantized(Record):
    """A file that was made. `bits_per_weight` is the true one: all tensors' bits over all weights."""

    path: Path
    type: str
    bytes: int
    bits_per_weight: float
    sha256: str
    source_sha256: str

    def ref(self) -> ModelRef:
        """The file as a model that engines load, named after what it was made from."""
        found = provenance(self.path) or {}
        return ModelRef(name=found.get("name", self.path.stem), path=self.path, format="gguf", sha256=self.sha256)


def library_version() -> str:
    """Version of the quantizer; part of every cache key."""
    return metadata.version("llama-cpp-python")


def type_named(name: str) -> str:
    """A type's full name, from any spelling. Raises BadInput: unknown (the nearest is suggested), or needs an importance matrix."""
    upper = name.upper()
    upper = _ALIASES.get(upper, upper)
    if upper in NEEDS_IMATRIX:
        raise BadInput(f"type {upper} needs an importance matrix, which labkit does not make", "take IQ3_S, Q2_K or TQ2_0")
    if upper not in TYPES:
        close = nearest(upper.lower(), [t.lower() for t in TYPES]).upper() if upper else ""
        hint = close.replace("DID YOU MEAN", "did you mean").replace("KNOWN:", "known:")
        raise BadInput(f"no quantization type {name!r} ({hint or 'known: ' + ', '.join(TYPES)})", "labkit quantize MODEL Q4_K_M")
    return upper


def source_type(ref: ModelRef) -> str:
    """What a model's weights went through: `F16`; `Q4_1` for a Q4_1 file and for the F16 copy of one; `Q8_0-from-Q4_1`.

    The type is the one that most of the weights have; where labkit made the file, what its note says.
    """
    note = provenance(ref.path)
    if note is None:
        return next(iter(_header(ref.path, sha256_of(ref.path)).types), "F32")
    quantized = [kind for kind in (note["type"], note["source_type"]) if kind not in _FLOATS]
    return "-from-".join(quantized) or str(note["type"])


def provenance(path: Path) -> dict[str, Any] | None:
    """What is known of a file that labkit made: `name type source_name source_type source_sha256 sha256 bytes …`; else None."""
    beside = path.with_name(path.name + ".json")
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # not ours, or its note is broken: then nothing is known
    return found if isinstance(found, dict) and found.keys() >= _NOTED else None


def name_of(ref: ModelRef, type_name: str) -> str:
    """`smollm2-135m` at Q8_0 is `smollm2-135m-Q8_0-from-Q4_1`: whoever reads it sees that the source was quantized."""
    found, source = provenance(ref.path), source_type(ref)
    base = found["source_name"] if found else ref.name
    return f"{base}-{type_name}" + (f"-from-{source}" if source not in _FLOATS else "")


def to_f16(ref: ModelRef, progress: bool = True) -> ModelRef:
    """The model with 16-bit weights: itself where it has them, else a copy in the cache, `<name>-F16-from-<type>`.

    Raises: as `quantize`.
    """
    if next(iter(_check(ref).types), "") == "F16":
        return ref
    return quantize(ref, "F16", progress=progress).ref()


def as_type(ref: ModelRef, type_name: str, progress: bool = True) -> ModelRef:
    """The model in a type, from the cache where it was made before; at F16 itself where it has 16 bits. Raises: as `quantize`."""
    kind = type_named(type_name)
    return to_f16(ref, progress) if kind == "F16" else quantize(ref, kind, progress=progress).ref()


def quantize(ref: ModelRef, type_name: str, out: Path | None = None, progress: bool = True) -> Quantized:
    """A copy of `ref` in another type, in the cache or in the folder `out` (there with its checksum in `<file>.sha256`).

    A file that is there already, made by this version from the same source, is taken as it is.

    Raises:
        BadInput: no such type, a model that is no single GGUF file, too little space (also in the middle: nothing is left).
        MissingPart: llama-cpp-python cannot be loaded.
        RunFailed: llama.cpp failed; its own words are in the sentence.
    """
    kind = type_named(type_name)
    _check(ref)
    source, name = sha256_of(ref.path), name_of(ref, kind)
    key = sha256(f"{source} {kind} {library_version()} 2".encode()).hexdigest()[:16]
    kept = paths.cache("quantized") / f"{name}-{key[:8]}.gguf"
    if out is None:
        target = kept
    elif out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file, not a folder", "give --out a folder")
    else:
        target = out / f"{name}.gguf"
    with ExitStack() as stack:
        if target == kept:  # two labs at once make a file once
            stack.enter_context(FileLock(f"{kept}.lock"))
        found = _valid(target, key)
        if found:
            return found
        if target != kept and target.exists() and provenance(target) is None:
            raise BadInput(f"{target} is there and was not made by labkit", "move it away, or choose another --out")
        copy_of = kept if target != kept and _valid(kept, key) else None
        try:
            _make(ref, kind, target, copy_of, progress)
            _describe(ref, kind, name, target, key, beside=target != kept)
        except BaseException as error:
            for suffix in ("", ".json", ".sha256"):  # a file without its note would be nobody's
                target.with_name(target.name + suffix).unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise BadInput(f"cannot write {target}: {error.strerror or error}", "free some space or choose another folder") from error
            raise
    made = _valid(target, key)
    if made is None:
        raise RunFailed(f"{target} changed while it was being made", "run it again")
    return made


def _check(ref: ModelRef) -> inspect.Gguf:
    if ref.format != "gguf":
        raise BadInput(f"{ref.name} is {ref.format}; llama.cpp quantizes GGUF files", "give a GGUF file or a catalogue name: labkit models")
    if not ref.path.is_file():
        raise BadInput(f"no file {ref.path}", "labkit models")
    header = _header(ref.path, sha256_of(ref.path))
    parts = header.metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise BadInput(f"{ref.path} is one of {parts} parts of a model", "join them first: llama-gguf-split --merge")
    return header


@functools.lru_cache(maxsize=32)
def _header(path: Path, digest: str) -> inspect.Gguf:
    """A header is read once: a large vocabulary takes a while, and a ladder asks for every file's again and again."""
    return inspect.read(path)


def _valid(path: Path, key: str) -> Quantized | None:
    """The file, if it is whole and the one its note tells of."""
    note = provenance(path)
    if not note or note["key"] != key or not path.is_file() or path.stat().st_size != note["bytes"] or sha256_of(path) != note["sha256"]:
        return None
    return Quantized(path=path, **{field: note[field] for field in Quantized.model_fields if field != "path"})


def _make(ref: ModelRef, kind: str, target: Path, copy_of: Path | None, progress: bool) -> None:
    """Write `target` whole or not at all."""
    with paths.atomic_path(target) as temporary:
        if copy_of:
            _space(target, copy_of.stat().st_size)
            shutil.copyfile(copy_of, temporary)
        else:
            _run(ref, kind, temporary, target, progress)


def _describe(ref: ModelRef, kind: str, name: str, target: Path, key: str, beside: bool) -> None:
    """Write the note that goes with a file and, with `beside`, its checksum in the form that sha256sum -c reads."""
    note = {
        "name": name,
        "type": kind,
        "source_name": (provenance(ref.path) or {}).get("source_name", ref.name),
        "source_type": source_type(ref),
        "source_sha256": sha256_of(ref.path),
        "source_licence": ref.licence,
        "llama_cpp_python": library_version(),
        "date": now(),
        "key": key,
        "sha256": sha256_of(target),
        "bytes": target.stat().st_size,
        "bits_per_weight": inspect.read(target).bits_per_weight,
    }
    with paths.atomic(target.with_name(target.name + ".json"), "w") as file:
        file.write(results.dumps(note) + "\n")
    if beside:
        with paths.atomic(target.with_name(target.name + ".sha256"), "w") as file:
            file.write(f"{note['sha256']}  {target.name}\n")


def _space(target: Path, need: int) -> None:
    paths.check_room(target.parent, need, target.name, "labkit cache --clean, or choose another folder with --out")


def _run(ref: ModelRef, kind: str, temporary: Path, target: Path, progress: bool) -> None:
    """The child does the work and prints a JSON object a line: its plan, where it is, how it ended."""
    task = {"source": str(ref.path), "out": str(temporary), "ftype": TYPES[kind], "threads": machine.cores()}
    need = 0
    child = subprocess.Popen(
        [sys.executable, "-m", "labkit.quant.gguf_child", json.dumps(task)],
        stdin=subprocess.PIPE,  # closed when this process ends, however it ends: then the child ends too
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    answer: dict[str, Any] = {}
    try:
        assert child.stdin and child.stdout and child.stderr  # noqa: S101 - they are pipes
        bar = tqdm(desc=f"{ref.name} to {kind}", unit="tensor", leave=False, disable=not progress, delay=1)
        with bar:
            for line in child.stdout:
                answer = json.loads(line)
                if "need_bytes" in answer:
                    need = int(answer["need_bytes"])
                    _space(target, need)
                    child.stdin.write("go\n")
                    child.stdin.flush()
                elif "at" in answer:
                    bar.total = answer["of"]
                    bar.update(answer["at"] - bar.n)
        words = child.stderr.read().strip().splitlines()
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe and not pipe.closed:
                pipe.close()
    if answer.get("missing"):
        raise MissingPart(f"llama-cpp-python cannot be loaded ({answer['missing']})", "labkit doctor")
    size = temporary.stat().st_size if temporary.exists() else 0
    failed = str(answer.get("error", ""))
    # the library says "basic_ios::clear: iostream error" of a write that failed, whatever the cause
    if "iostream" in failed or (answer.get("done") and size < 0.99 * need - 65536):
        raise BadInput(
            f"the space for {target} ended after {size / 1e6:,.1f} of {need / 1e6:,.1f} MB; nothing was left there",
            "free some space, or choose another folder with --out",
        )
    if code or not answer.get("done"):
        killed = f"it was ended by signal {-code}, as when memory runs out" if code < 0 else f"it ended with code {code}"
        why = failed or (words[-1] if words else killed)
        raise RunFailed(f"llama.cpp could not write {ref.name} as {kind}: {why}", f"labkit inspect {ref.path}")
    inspect.read(temporary)
