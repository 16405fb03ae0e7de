"""What lab 02 draws and measures: footprints predicted and measured, shape-true families, the roofline, a choice.

Functions take plain values and return rows (dicts) or figures, so that they are tested without a notebook.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.core import machine
from labkit.core.records import ModelRef
from labkit.learn import plots
from labkit.measure import memory
from labkit.models import catalog, footprint, inspect, shape
from labkit.models.inspect import Gguf

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MB = 1e6
UBATCH = 64  # a short prefill step: filling one takes seconds on a slow machine, and the arithmetic takes it as an input
# families to build here, smallest first: dense, a large vocabulary with a sliding window, a mixture of experts
FAMILIES = (
    ("gemma3-270m", "Q8_0"), ("qwen2.5-0.5b", "Q4_0"), ("qwen3-0.6b", "Q4_0"),
    ("smollm2-360m", "Q8_0"), ("gemma3-1b", "Q4_0"), ("granite-3.1-1b-a400m", "Q5_0"),
)  # fmt: skip


def header_of(lab: Any) -> Gguf:
    """The header of the lab's model; where the engine is missing, the catalogue's shape of the recorded one."""
    if lab.session is not None:
        return lab.session.header
    return shape.header(catalog.get("smollm2-135m"), "Q4_1")


def memory_rows(model: ModelRef, cases: Sequence[tuple[int, str]], threads: int) -> list[dict[str, Any]]:
    """Predicted and measured bytes for each (context, KV cache type); cases that would not fit this machine are left out."""
    header = inspect.read(model.path)
    rows = []
    for context, kv in cases:
        predicted = footprint.predict(header, context, kv, UBATCH)
        if predicted.total_bytes > machine.memory_available_bytes():
            continue
        found = memory.growth(model, context, kv, threads, fill=UBATCH + 2, ubatch=UBATCH)
        rows.append({"name": f"{context} {kv}", **predicted.model_dump(), **found})
    return rows


def family_rows(families: Sequence[tuple[str, str]], threads: int, context: int = 1024) -> list[dict[str, Any]]:
    """Write each family's shape-true file, measure it in a fresh process, delete it: one row a family."""
    rows = []
    for name, type_name in families:
        model = catalog.get(name)
        with tempfile.TemporaryDirectory(prefix="labkit-shape-") as folder:
            ref = shape.write(model, type_name, Path(folder))
            header = inspect.read(ref.path)
            found = memory.growth(ref, context, "f16", threads, fill=UBATCH + 2, output_tokens=16, ubatch=UBATCH)
            predicted = footprint.predict(header, context, ubatch=UBATCH)
        rows.append(
            {
                "name": name,
                "label": f"{name} {type_name}",
                "type": type_name,
                **facts(model.name, type_name),
                **predicted.model_dump(),
                **found,
            }
        )
    return rows


def facts(name: str, type_name: str) -> dict[str, Any]:
    """Bytes of the weights, all of them and those that one token reads."""
    model = catalog.get(name)
    header = shape.header(model, type_name)
    share = shape.active_parameters(model) / shape.parameters(model)
    return {"file_bytes": header.tensor_bytes, "active_bytes": int(header.tensor_bytes * share), "parameters": model.parameters}


def classes() -> list[dict[str, Any]]:
    """The catalogue in its classes, with the size at 4.5 bits a weight and the KV cache of one token."""
    rows = []
    for model in catalog.load().values():
        if model.kind == "embedding":
            continue
        header = shape.header(model, "Q4_0")
        rows.append(
            {
                "model": model.name,
                "class": model.size_class,
                "parameters (B)": round(model.parameters / 1e9, 3),
                "active (B)": round((model.active_parameters or model.parameters) / 1e9, 3),
                "Q4_0 (GB)": round(header.tensor_bytes / 1e9, 2),
                "KV (kB/token)": round(footprint.kv_bytes_per_token(header) / 1e3, 1),
                "window": f"{model.shape.sliding_window} tokens" if footprint.sliding_window(header) else "",
                "licence": model.licence,
            }
        )
    return sorted(rows, key=lambda row: row["parameters (B)"])


def draw_residual(rows: Sequence[dict[str, Any]], caption: str) -> Figure:
    """Predicted against measured memory, in MB, and below each pair what the prediction missed."""
    fig, ax = plots.figure(caption, width=8.5)
    predicted, measured = ([r[key] / MB for r in rows] for key in ("total_bytes", "measured_bytes"))
    plots.predicted_measured(ax, [r.get("label", r["name"]) for r in rows], predicted, measured, "memory in MB")
    files = [r["file_bytes"] / MB for r in rows if "file_bytes" in r]
    if files:
        ax.plot(range(len(files)), files, "_", color=plots.BLACK, ms=40, mew=2, label="weights in the file")
        ax.legend(frameon=False)
    worst = max(abs(p / m - 1) for p, m in zip(predicted, measured, strict=True))
    ax.set_title(f"The arithmetic is within {worst:.0%} of the measurement", fontsize=10)
    return fig


def draw_footprints(context: int, kv: str, names: Sequence[str], caption: str, budget_gb: float | None = None) -> Figure:
    """Stacked memory of several models at Q4_0: weights, repacked copy, KV cache, compute, in GB, with a budget line."""
    found = [footprint.predict(shape.header(catalog.get(name), "Q4_0"), context, kv) for name in names]
    parts = {
        "weights": [(f.weights_bytes - f.repacked_bytes) / 1e9 for f in found],
        "repacked copy": [f.repacked_bytes / 1e9 for f in found],
        "KV cache": [f.kv_cache_bytes / 1e9 for f in found],
        "compute": [f.compute_bytes / 1e9 for f in found],
    }
    fig, ax = plots.figure(caption, width=8.5)
    plots.stacked(ax, list(names), parts, "memory in GB")
    if budget_gb:
        ax.axhline(budget_gb, color=plots.RED, ls="--", lw=1.5)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        ax.annotate(f"your budget, {budget_gb:g} GB", (-0.45, budget_gb), va="center", color=plots.RED, bbox=box)
    ax.set_title(f"context {context:,} tokens, KV cache {kv}", fontsize=10)
    return fig


def draw_roofline(rows: Sequence[dict[str, Any]], bandwidth: dict[str, Any], caption: str) -> Figure:
    """Decode rate against the bytes that a token reads, both axes logarithmic; the line is the memory's ceiling.

    `bandwidth`: median, low and high in bytes per second; the interval is the band around the line.
    """
    fig, ax = plots.figure(caption)
    sizes = np.array([r["active_bytes"] / MB for r in rows])
    ax.plot(sizes, [r["decode_tokens_per_s"] for r in rows], "o", color=plots.BLUE, ms=7, label="measured")
    line = np.geomspace(sizes.min() * 0.7, sizes.max() * 1.4, 20)
    ax.plot(line, bandwidth["median"] / MB / line, color=plots.RED, ls="--", label="ceiling: bandwidth / bytes read a token")
    ax.fill_between(line, bandwidth["low"] / MB / line, bandwidth["high"] / MB / line, color=plots.RED, alpha=0.15)
    for r in rows:
        ax.annotate(r["name"], (r["active_bytes"] / MB, r["decode_tokens_per_s"]), xytext=(5, -9), textcoords="offset points", fontsize=8)
    _log(ax, "weights that one token reads, in MB (log scale)", "decode, tokens per second (log scale)")
    return fig


def _log(ax: Axes, xlabel: str, ylabel: str) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
        axis.set_tick_params(which="both", labelsize=8)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(which="both", alpha=0.2)
    ax.legend(frameon=False)


def candidates(bandwidth_bytes_per_s: float, efficiency: float, context: int = 4096) -> list[dict[str, Any]]:
    """Catalogue models with a published MMLU figure: memory and speed at Q4_0 computed for this machine, quality cited.

    Speed is the ceiling times `efficiency`, the share of the ceiling that the measured families reached.
    """
    rows = []
    for model in catalog.load().values():
        quality = [
            q for q in model.quality if q.benchmark.startswith("MMLU") and not any(w in q.benchmark for w in ("Pro", "redux", "cloze"))
        ]
        if not quality:
            continue
        kind = "TQ2_0" if model.architecture == "bitnet" else "Q4_0"  # trained to three values a weight
        sized = facts(model.name, kind)
        need = footprint.predict(shape.header(model, kind), context)
        rate = bandwidth_bytes_per_s * efficiency / (sized["active_bytes"] + need.kv_cache_bytes / 2)
        rows.append(
            {
                "name": model.name,
                "type": kind,
                "memory_gb": need.total_bytes / 1e9,
                "tokens_per_s": rate,
                "quality": quality[0].value,
                "benchmark": quality[0].benchmark,
                "source": quality[0].source,
                "context": model.context,
                "licence": model.licence,
            }
        )
    return rows


def allowed(
    rows: Sequence[dict[str, Any]], memory_gb: float, context: int, licences: Sequence[str], tokens_per_s: float
) -> list[dict[str, Any]]:
    """The rows within all four limits; an empty tuple of licences allows any."""
    return [
        r
        for r in rows
        if r["memory_gb"] <= memory_gb
        and r["context"] >= context
        and (not licences or r["licence"] in licences)
        and r["tokens_per_s"] >= tokens_per_s
    ]
