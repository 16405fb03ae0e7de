"""How much did each file of a comparison lose? Perplexity and KL divergence of GGUF rungs and of an ONNX folder, on the same tokens.

The reference is the model with 16-bit weights, as in `ladder`. Where the model's own file is quantized already (SmolLM2's is
Q4_1), that copy holds the same grid, and so does whatever else is made from it: then the figures say what was lost *since*.
An engine that gives no scores of all tokens (Ollama, Foundry Local) serves the same file as one that does.

>>> versus_quality.rows(models.resolve("smollm2-135m"), {"ONNX int4": ("ortgenai", folder)}, tokens=1024, threads=2)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.core.errors import BadInput
from labkit.core.records import ModelRef
from labkit.measure import quality
from labkit.quant import gguf

RUNGS = ("Q8_0", "Q4_0")


def rows(
    model: ModelRef,
    others: Mapping[str, tuple[str, ModelRef]],
    rungs: Sequence[str] = RUNGS,
    tokens: int = 1024,
    context: int = 512,
    threads: int | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """One row a file: `name engine format bytes`, and of `quality.Quality` perplexity, KL and their errors, top-1 agreement.

    others: name -> (engine that scores, model), compared beside the model's own file and its GGUF `rungs`.
    Raises: BadInput where a file reads the text as other tokens, and as `quality.evaluate` does.
    """
    text, base = quality.text_for(model), gguf.to_f16(model, progress)
    files: dict[str, tuple[str, ModelRef]] = {own_type(model): ("llamacpp", model)}
    files |= {kind: ("llamacpp", gguf.as_type(model, kind, progress)) for kind in rungs if kind not in files}
    found = []
    with quality.opened(base, context, threads) as reference:
        cut = quality.windows(reference, text, tokens, context)
        with quality.kept(quality.live(reference, cut), cut, reference.n_vocab, f"reference of {model.name}", progress) as kept:
            for name, (engine, ref) in (files | dict(others)).items():
                with quality.opened(ref, context, threads, engine) as session:
                    if quality.windows(session, text, tokens, context) != cut:
                        raise BadInput(f"{name} reads the text as other tokens, so its perplexity is that of another text", "labkit doctor")
                    scored = quality.summary(quality.score(quality.live(session, cut), cut, kept, name, progress), cut)
                row = {"name": name, "engine": engine, "format": ref.format, "bytes": disk_bytes(ref), "reference": base.name}
                found.append(row | scored.model_dump(mode="json"))
    return found


def own_type(model: ModelRef) -> str:
    """The type of a GGUF file's weights, as its rung is called."""
    return gguf.source_type(model)


def disk_bytes(model: ModelRef) -> int:
    """Bytes of a file, or of all files in a folder, tokenizer and notes included."""
    path = model.path
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
