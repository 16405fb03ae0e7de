"""What lab 07 measures: ONNX folders and their bits, Olive's record, nodes, providers, and one table over three formats.

Functions take plain values and return rows (dicts), so that they are tested without a notebook. All but `predicted_bits` need
the extra `onnx`; `equal_rows` leaves MLX out where it is not installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from labkit.core.records import ModelRef
from labkit.measure import quality
from labkit.models import catalog, inspect
from labkit.quant import gguf, hf, mlx, onnx, onnx_graph

Row = dict[str, Any]

RECIPES = ("int4", "int4-shared", "olive-rtn", "olive-int8")
QUICK = ("int4", "olive-rtn")
BEFORE = "fp32"
GGUF = ("Q4_0", "Q4_1", "Q5_1", "Q8_0")
QUICK_GGUF = ("Q4_1",)
MLX = ((4, 64), (4, 32))  # bits, group size: 4.5 and 5.0 bits per weight
_LARGE = 50_000_000  # weights
# what an execution provider of ONNX Runtime is for, and what it needs: after onnxruntime.ai/docs/build/eps, the page of each
# provider there, and learn.microsoft.com/windows/ai/new-windows-ml/supported-execution-providers, 2026-11; only the CPU was run
NEEDS = {
    "CPUExecutionProvider": ("any processor", "nothing: it is in every build"),
    "CUDAExecutionProvider": ("NVIDIA GPU", "onnxruntime-gpu, CUDA and cuDNN of a matching version"),
    "TensorrtExecutionProvider": ("NVIDIA GPU", "onnxruntime-gpu and TensorRT"),
    "DmlExecutionProvider": ("any GPU on Windows", "onnxruntime-directml, a GPU with DirectX 12"),
    "OpenVINOExecutionProvider": ("Intel CPU, GPU, NPU", "onnxruntime-openvino; the driver of the GPU or NPU"),
    "QNNExecutionProvider": ("Qualcomm NPU", "onnxruntime-qnn on a Snapdragon; a model with fixed shapes, best one in integers"),
    "VitisAIExecutionProvider": ("AMD NPU", "AMD's Ryzen AI software"),
    "CoreMLExecutionProvider": ("Apple GPU, Neural Engine", "macOS or iOS: it is in the build for macOS"),
    "WebGpuExecutionProvider": ("GPU in a browser or through Dawn", "onnxruntime-web, or a build with it"),
    "AzureExecutionProvider": ("a model behind an address", "an endpoint and its key: the answer is computed elsewhere"),
}


def predicted_bits(path: Path, recipe: str) -> float:
    """Bits per weight by arithmetic from a GGUF file's shapes; tables of sines and constants are left out.

    Blocks have a 32-bit scale each: 32 weights in the model builder's int4, 128 in Olive's RTN pass.
    """
    header = inspect.read(path)
    sizes = {t.name: t.elements for t in header.tensors}
    matrices = sum(t.elements for t in header.tensors if len(t.shape) == 2)
    table, norms = sizes["token_embd.weight"], header.parameters - matrices
    multiplied = matrices - (table if "output.weight" in sizes else 0)  # else the table is the output matrix, too
    shared = table if multiplied == matrices else 0
    padded = sum(-(-t.shape[0] // 128) * 128 * (t.elements // t.shape[0]) for t in header.tensors if len(t.shape) == 2)
    padded -= matrices - multiplied  # the rows of a matrix that is multiplied are filled up to whole blocks
    bits = {
        "int4": multiplied * 5 + table * 32,
        "int4-shared": multiplied * 5 + (table - shared) * 32,
        "olive-rtn": (padded + table) * 4.25,
        "olive-int8": (multiplied + table) * 8,
        "fp32": (multiplied + table - shared) * 32,
    }
    return (bits[recipe] + norms * 32) / header.parameters


def build_rows(ref: ModelRef, recipes: Sequence[str] = RECIPES) -> list[Row]:
    """Convert a model by several recipes; one row each: predicted and counted bits per weight, bytes by role, nodes."""
    rows = []
    for recipe in tqdm(recipes, desc=f"ONNX folders of {ref.name}", leave=False):
        found = onnx_graph.inspect(onnx.convert(ref, recipe).path)
        row = {"recipe": recipe, "tool": onnx.recipe(recipe).tool, "predicted": predicted_bits(ref.path, recipe)}
        row |= {"bits_per_weight": found.bits_per_weight, "bytes": found.tensor_bytes, "file_bytes": found.file_bytes}
        row |= {"parameters": found.parameters, "stored_weights": found.stored_weights, "nodes": found.nodes}
        rows.append(row | {f"{role.replace(' ', '_')}_bytes": size for role, size in found.bytes_by_role.items()})
    return rows


def history_rows(ref: ModelRef, recipes: Sequence[str]) -> list[Row]:
    """Olive's footprint of several folders: one row a step, with the recipe's name."""
    return [{"recipe": recipe, **step} for recipe in recipes for step in onnx.history(onnx.convert(ref, recipe).path)]


def refusal_rows(ref: ModelRef) -> list[Row]:
    """Ask Olive for something that its model builder has not: the exit code, whether a model was made, and what the log says."""
    how = onnx.Recipe(passes=({"type": "ModelBuilder", "precision": "int8"},))
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "model"
        ran = onnx.run(hf.to_hf(ref), how, folder, Path(work), "Olive's ModelBuilder with int8")
    return [{"asked": "ModelBuilder, precision int8", "exit_code": ran.code, "model_made": ran.made, "said": onnx.error_line(ran.log)}]


def provider_rows() -> list[Row]:
    """Execution providers: is it in this build, what it is for, what it needs, and Olive's passes made for it alone."""
    named = [one for one in onnx_graph.olive_passes() if "*" not in one["providers"]]
    rows = []
    for row in onnx_graph.providers():
        if row["provider"] in NEEDS:
            passes = [one["name"] for one in named if row["provider"] in one["providers"]]
            device, needs = NEEDS[row["provider"]]
            rows.append({**row, "for": device, "needs": needs, "passes": passes})
    return sorted(rows, key=lambda r: (not r["here"], -len(r["passes"])))


def equal_rows(
    ref: ModelRef,
    tokens: int = 2048,
    types: Sequence[str] = GGUF,
    recipes: Sequence[str] = (*RECIPES, BEFORE),
    groups: Sequence[tuple[int, int]] = MLX,
    threads: int | None = None,
    context: int = 512,
) -> list[Row]:
    """GGUF, ONNX and MLX files of one model on the same tokens: size, perplexity, and KL divergence from the 16-bit GGUF file.

    The tokens are llama.cpp's, given as ids to all engines; a model of another tokenizer would be refused by its vocabulary.
    """
    base, source = gguf.to_f16(ref, progress=False), gguf.source_type(ref)
    files: list[tuple[str, str, str, ModelRef, float, int]] = []
    for name in ("F16", *types):
        file = base if name == "F16" else gguf.as_type(ref, name, progress=False)
        header = inspect.read(file.path)
        files.append(("GGUF", name, "llamacpp", file, header.bits_per_weight, header.tensor_bytes))
    for recipe in recipes:
        made = onnx.convert(ref, recipe)
        graph = onnx_graph.inspect(made.path)
        files.append(("ONNX", recipe, "ortgenai", made, graph.bits_per_weight, graph.tensor_bytes))
    for bits, size in groups if mlx.missing() is None else ():
        made = mlx.convert(ref, bits, size)
        found = mlx.inspect(made.path)
        files.append(("MLX", f"{bits} bit, {size}", "mlx", made, found.bits_per_weight, found.tensor_bytes))
    rows: list[Row] = []
    with ExitStack() as stack:
        with quality.opened(base, context, threads) as session:
            cut = quality.windows(session, quality.text_for(ref), tokens, context)
            reference = stack.enter_context(quality.kept(quality.live(session, cut), cut, session.n_vocab, progress=False))
        for family, name, engine, file, bits_per_weight, size in tqdm(files, desc="quality", unit="file", leave=False):
            with quality.opened(file, context, None if engine == "mlx" else threads, engine) as session:
                found_quality = quality.summary(quality.score(quality.live(session, cut), cut, reference, progress=False), cut)
            row = {"family": family, "name": name, "engine": engine, "source_type": source, "bits_per_weight": bits_per_weight}
            rows.append({**row, "bytes": size, **found_quality.model_dump()})
    return rows


def mlx_groups(ref: ModelRef | None, quick: bool = False) -> tuple[tuple[int, int], ...]:
    """MLX's variants to compare: both for a small model, one for a larger one, none in a quick run.

    Without a Mac's GPU, MLX reads about 80 tokens a second of the default model, and one fifteenth of that of SmolLM2.
    """
    if quick:
        return ()
    large = ref is not None and inspect.read(ref.path).parameters > _LARGE
    return MLX[1:] if large else MLX


def near(rows: Sequence[Row], bits: float, most_apart: float = 0.3) -> list[Row]:
    """The rows whose size is about that of `bits` per weight, best first."""
    return sorted((r for r in rows if abs(r["bits_per_weight"] - bits) <= most_apart), key=lambda r: r["kl_mean"])


def bigger_rows(names: Sequence[str] = ("qwen3-0.6b", "gemma3-1b", "phi-4-mini")) -> list[Row]:
    """What larger models of the catalogue would need, in bytes: as GGUF at 4.5 bits a weight (Q4_0), as ONNX int4, and to convert.

    folder_bytes: the Hugging Face folder in 32 bits that lies on the disk in between. convert_bytes: memory, extrapolated.
    """
    rows = []
    for model in map(catalog.get, names):
        count = model.parameters
        row = {"model": model.name, "parameters": count, "gguf_bytes": count * 4.5 / 8, "onnx_bytes": onnx_graph.int4_bytes(model)}
        rows.append(row | {"folder_bytes": 4 * count, "convert_bytes": onnx.conversion_bytes(count)})
    return rows
