"""A GGUF file as a Hugging Face folder: what transformers, ONNX's model builder, MLX and vLLM read.

The weights are unpacked to float32, so the folder is about as large as 4 bytes a weight. Unpacking changes no value and
brings nothing back: a folder made from a 4-bit file holds the 4-bit values. Nothing is fetched from a network.
Needs the extra `hf`. Limits: the architectures that transformers can read from GGUF, and a file with a vocabulary.

>>> to_hf(models.resolve("stdlib-10m")).path          # in the cache; a second call finds it there
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit import models
from labkit.core import extras, paths
from labkit.core.errors import BadInput, LabkitError
from labkit.core.records import ModelRef
from labkit.models import inspect
from labkit.quant import folders

_VERSION = 3  # of what this module writes: a change makes cached folders anew
# GGUF's names of the ways to cut a text before its pieces become tokens, of those that keep each digit apart: transformers reads
# such a file and forgets the digits, and numbers would then become tokens that the model has hardly seen
_DIGITS_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
# how GPT-2 cuts a text into words, numbers and the rest: what ByteLevel does by itself, and llama.cpp after the digits
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QUIET_BELOW = 100_000_000  # bytes of weights: smaller models need no progress bar


def conversion_bytes(parameters: int) -> float:
    """Memory that `to_hf` takes, about: 6 bytes a weight (4 are the result, the rest is in use while it is made) and the libraries.

    Fitted to the peaks of two models, 0.82 GB for 9.4 million weights and 1.57 GB for 134.5 million; beyond them an extrapolation.
    """
    return 0.77e9 + 6 * parameters


def to_hf(ref: ModelRef, out: Path | None = None) -> ModelRef:
    """Convert a GGUF model, once: config.json, model.safetensors (float32), tokenizer.json, generation_config.json.

    out: the folder to make; None: one in the cache, named after what went into it.
    Raises:
        MissingPart: transformers or torch is not installed.
        BadInput: transformers cannot read this architecture or tensor type, the file has no vocabulary, or the disk is full.
    """
    if ref.format == "hf" and out is None:
        return ref
    if ref.format != "gguf":
        raise BadInput(f"only a GGUF file becomes a Hugging Face folder, {ref.name} is {ref.format}", "labkit models")
    extras.require("hf")
    header = inspect.read(ref.path)
    if not header.has_vocabulary:
        raise BadInput(f"{ref.path} has no vocabulary, and a Hugging Face folder needs a tokenizer", "take a model with one: labkit models")
    note = _note(ref)
    target = out or paths.cache("hf") / f"{ref.name}-{folders.key_of(note)}"
    weights = 4 * header.parameters
    with folders.made(target, needed_bytes=int(1.1 * weights) + 20_000_000, note=note, replace=out is None) as folder:
        if folder:
            _write(ref, folder, progress=weights > _QUIET_BELOW)
    return ModelRef(name=ref.name, path=target.resolve(), format="hf", sha256=folders.digest(target), licence=ref.licence)


def _note(ref: ModelRef) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "torch", "gguf")}
    source = {"source": ref.name, "source_sha256": models.sha256_of(ref.path)}
    return {"kind": "hf", "version": _VERSION, "dtype": "float32", **source, "versions": versions}


def _write(ref: ModelRef, folder: Path, progress: bool) -> None:
    # the model's name stands in config.json: the folder that holds the file is nobody's business
    with folders.offline(), folders.quiet_stdout(), _calm(progress), _refused(ref):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        where: dict[str, Any] = {"gguf_file": ref.path.name, "local_files_only": True}
        # without dequantize the weights stay in GGUF's blocks, and saving them raises
        unpacked = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(str(ref.path.parent), dtype=torch.float32, quantization_config=unpacked, **where)
        tokenizer = AutoTokenizer.from_pretrained(str(ref.path.parent), **where)
        model.save_pretrained(folder)
        del model
        _digits_apart(tokenizer, str(inspect.read(ref.path).metadata.get("tokenizer.ggml.pre")))
        tokenizer.save_pretrained(folder)


def _digits_apart(tokenizer: Any, way: str) -> None:
    """Let the tokenizer cut a text as llama.cpp does: each digit by itself, where the model was trained so.

    Written as two patterns, because ONNX Runtime GenAI 0.14 reads those and passes over `Digits`, the shorter way to say it.
    """
    from tokenizers import Regex, pre_tokenizers

    plain = getattr(tokenizer, "backend_tokenizer", None)
    if way in _DIGITS_APART and plain is not None:
        cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in (r"\p{N}", _WORDS)]
        plain.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@contextlib.contextmanager
def _refused(ref: ModelRef) -> Iterator[None]:
    """What transformers says of a file that it cannot read, as one sentence. A full disk is not its fault."""
    try:
        yield
    except (LabkitError, OSError):
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError, RuntimeError, ImportError) as error:
        said = " ".join(str(error).split())[:200]
        architecture = inspect.read(ref.path).architecture
        raise BadInput(
            f"transformers {importlib.metadata.version('transformers')} cannot read {ref.name} (architecture {architecture}): {said}",
            "take another model: labkit models",
        ) from error


@contextlib.contextmanager
def _calm(progress: bool) -> Iterator[None]:
    """Errors only, and bars only where it takes long; as it was, afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not progress:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
