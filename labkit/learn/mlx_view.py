"""What lab 08 measures and draws: MLX folders and their bits, one group of weights, errors beside GGUF's, a few tokens.

Functions take plain values and return rows (dicts) or figures, so that they are tested without a notebook. Only the
functions that convert or run a model need the extra `mlx`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labkit import engines, measure
from labkit.core.records import Measurement, ModelRef, Request
from labkit.learn import plots
from labkit.models import inspect
from labkit.quant import affine, blocks, hf, mlx
from labkit.quant import tensors as stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# (bits, group size, type of the scales): MLX's usual one first
VARIANTS: tuple[tuple[int | None, int, str], ...] = (
    (4, 64, "float16"), (4, 64, "float32"), (4, 32, "float16"), (8, 64, "float16"), (None, 64, "float16")
)  # fmt: skip
GGUF = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K")
# published by Apple: newsroom of 2022-06-06 (M2) and 2024-10-30 (M4 family); GB/s, the largest version of each
MACS = {"M2": 100, "M4": 120, "M4 Pro": 273, "M4 Max": 546}
_SHOWN = "model.layers.0.mlp.up_proj"  # the matrix that a group is taken from
_WIDTH = 256  # the longest block of the formats compared


def label(bits: int | None, group_size: int, dtype: str) -> str:
    """How a variant is called in tables and plots."""
    return f"{bits} bit, groups of {group_size}, {dtype} scales" if bits else f"unquantized, {dtype}"


def predicted_bits(bits: int | None, group_size: int, dtype: str) -> float:
    """Bits per weight of a quantized matrix, by arithmetic; the norms, which stay unquantized, are left out."""
    width = 32 if dtype == "float32" else 16
    return affine.bits_per_weight(bits, group_size, width) if bits else float(width)


def conversion_rows(ref: ModelRef, variants: Sequence[tuple[int | None, int, str]] = VARIANTS) -> list[dict[str, Any]]:
    """Convert a model in several ways; one row each: predicted and measured bits per weight, bytes by part."""
    rows = []
    for bits, group_size, dtype in variants:
        found = mlx.inspect(mlx.convert(ref, bits, group_size, dtype=dtype).path)
        rows.append(
            {
                "name": label(bits, group_size, dtype),
                "bits": bits,
                "group_size": group_size,
                "dtype": dtype,
                "predicted": predicted_bits(bits, group_size, dtype),
                "bits_per_weight": found.bits_per_weight,
                "bytes": found.tensor_bytes,
                "parameters": found.parameters,
                **{f"{part}_bytes": size for part, size in found.bytes_by_part.items()},
            }
        )
    return rows


def tensor_rows(ref: ModelRef, bits: int = 4, group_size: int = 64) -> list[dict[str, Any]]:
    """The tensors of one converted model: name, kind, type, shape, bytes in all and of its parts, bits per weight."""
    found = mlx.inspect(mlx.convert(ref, bits, group_size).path)
    return [{**t.model_dump(mode="json"), "bytes": t.bytes, "bits_per_weight": t.bits_per_weight} for t in found.tensors]


def group_rows(ref: ModelRef, seed: int, bits: int = 4, group_size: int = 64) -> list[dict[str, Any]]:
    """One group of a real matrix, chosen by the seed: the words as they lie in the file, scale, bias, and the original weights."""
    source, folder = hf.to_hf(ref), mlx.convert(ref, bits, group_size).path
    original = mlx.tensor(source.path, f"{_SHOWN}.weight")
    words, scales, biases = (mlx.tensor(folder, f"{_SHOWN}.{part}") for part in ("weight", "scales", "biases"))
    rng = np.random.default_rng(seed)
    row, group = int(rng.integers(original.shape[0])), int(rng.integers(scales.shape[1]))
    per_group = group_size * bits // 32
    return [
        {
            "tensor": _SHOWN,
            "row": row,
            "group": group,
            "bits": bits,
            "group_size": group_size,
            "words": [int(w) for w in words[row, group * per_group : (group + 1) * per_group]],
            "scale": float(scales[row, group]),
            "bias": float(biases[row, group]),
            "original": [float(w) for w in original[row, group * group_size : (group + 1) * group_size]],
        }
    ]


def restored(row: dict[str, Any]) -> NDArray[np.float32]:
    """The weights that a row of `group_rows` stands for."""
    codes = affine.unpack(np.array(row["words"], np.uint32), row["bits"])
    return affine.dequantize(codes, np.array([row["scale"]], np.float32), np.array([row["bias"]], np.float32))


# -- errors


def matrices(path: Path, most_weights: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """(type in the file, weights float32 [rows, n]) of a GGUF file's matrices, every k-th row so that about `most_weights` come."""
    header = inspect.read(path)
    known = [t for t in header.tensors if len(t.shape) == 2 and (t.type in blocks.KINDS or t.type == "F32")]
    wide = [t for t in known if t.shape[0] % _WIDTH == 0] or known
    every = max(1, round(sum(t.elements for t in wide) / most_weights))
    for tensor in wide:
        yield tensor.type, stored.rows(path, tensor, every=every)


def error_rows(path: Path, most_weights: int = 2_000_000) -> list[dict[str, Any]]:
    """Each format of MLX and GGUF: bits per weight, and the root mean square of the errors over that of the weights.

    All formats get the same weights. Needs no MLX: `labkit.quant.affine` makes the same codes.
    """
    sums: dict[str, float] = {}
    formats: dict[str, dict[str, Any]] = {}
    total, count, types = 0.0, 0, set()
    for type_, weights in matrices(path, most_weights):
        types.add(type_)
        total, count = total + float(np.square(weights, dtype=np.float64).sum()), count + weights.size
        for row, back in _roundtrips(weights):
            formats[row["name"]] = row
            sums[row["name"]] = sums.get(row["name"], 0.0) + float(np.square(back - weights, dtype=np.float64).sum())
    common = {"weights": count, "source_types": sorted(types)}
    return [{**row, **common, "error": (sums[name] / total) ** 0.5} for name, row in formats.items()]


def _roundtrips(weights: NDArray[np.float32]) -> Iterator[tuple[dict[str, Any], NDArray[np.float32]]]:
    """(a format's row, the weights after its encoding and decoding), for every format that takes rows of this width."""
    half = weights.astype(np.float16)  # what mlx-lm quantizes where scales are float16
    for bits in affine.BITS:
        for size in affine.GROUP_SIZES:
            if weights.shape[-1] % size == 0:
                row = {"name": f"MLX {bits} bit, {size}", "family": "MLX", "bits": bits, "group_size": size}
                yield row | {"bits_per_weight": affine.bits_per_weight(bits, size)}, affine.dequantize(*affine.quantize(half, bits, size))
    for kind in GGUF:
        if weights.shape[-1] % blocks.KINDS[kind].block == 0:
            row = {"name": kind, "family": "GGUF", "bits": None, "group_size": blocks.KINDS[kind].block}
            back = blocks.decode(kind, blocks.encode(kind, weights)).reshape(weights.shape)
            yield row | {"bits_per_weight": blocks.bits_per_weight(kind)}, back


def of(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """The row of a format by its name."""
    return next(row for row in rows if row["name"] == name)


# -- a few tokens


def run_rows(ref: ModelRef, prompt: str, tokens: int = 16, repeats: int = 3) -> list[dict[str, Any]]:
    """The same prompt on MLX in three ways and on llama.cpp, a few tokens each; medians of the repeats.

    MLX on a CPU with the file's own 16-bit arithmetic takes seconds a token, so it gets fewer tokens and one repeat there.
    """
    from labkit.quant import gguf

    cases: list[tuple[str, str, ModelRef, dict[str, Any]]] = [
        ("MLX 4 bit, arithmetic in float16", "mlx", ref, {"compute": "file"}),
        ("MLX 4 bit, arithmetic in float32", "mlx", ref, {"compute": "float32"}),
        ("MLX unquantized, float32", "mlx", ref, {"bits": None, "compute": "float32"}),
        ("llama.cpp Q4_0", "llamacpp", gguf.as_type(ref, "Q4_0"), {}),
    ]
    rows = []
    for name, engine, model, options in cases:
        session = engines.open(engine).load(model, context=256, **options)
        slow = options.get("compute") == "file" and session.settings["device"] == "cpu"
        request = Request(prompt=prompt, max_tokens=min(tokens, 3) if slow else tokens, ignore_eos=True)
        found = measure.run(session, request, repeats=1 if slow else repeats, warmup=0 if slow else 1)
        rows.append(_run_row(name, session.settings.get("device", "cpu"), found))
        session.close()
    return rows


def _run_row(name: str, device: str, found: Sequence[Measurement]) -> dict[str, Any]:
    middle = {key: measure.spread(getattr(m, key) for m in found) for key in ("ttft_s", "tpot_s", "decode_tokens_per_s")}
    last = found[-1]
    figures = {key: value.median if value else None for key, value in middle.items()}
    counts = {"prompt_tokens": last.prompt_tokens, "output_tokens": last.output_tokens, "repeats": len(found)}
    return {"name": name, "engine": last.engine, "device": device, "system": platform.system(), **figures, **counts, "text": last.text}


def keyword_rows(ref: ModelRef) -> list[dict[str, Any]]:
    """What mlx_lm.generate says to two ways of asking for a temperature: the error's name, or 'works'."""
    with mlx.library() as mlx_lm:
        from mlx_lm.sample_utils import make_sampler

        model, tokenizer = mlx_lm.load(str(mlx.convert(ref).path))
        ways: dict[str, dict[str, Any]] = {
            "temperature=0.7": {"temperature": 0.7},
            "sampler=make_sampler(temp=0.7)": {"sampler": make_sampler(temp=0.7)},
        }
        rows = []
        for way, options in ways.items():
            try:
                mlx_lm.generate(model, tokenizer, prompt=tokenizer.encode("x")[:1], max_tokens=1, **options)
                rows.append({"way": way, "result": "works", "said": ""})
            except TypeError as error:
                rows.append({"way": way, "result": "TypeError", "said": str(error)})
    return rows


def ceilings(bytes_per_token: float) -> list[dict[str, Any]]:
    """Decode rates that the published memory bandwidth of some Macs would allow at most, for so many bytes read a token."""
    return [{"name": name, "bandwidth_gb_per_s": rate, "tokens_per_s_at_most": rate * 1e9 / bytes_per_token} for name, rate in MACS.items()]


# -- pictures


def draw_bits(rows: Sequence[dict[str, Any]], guess: float, caption: str) -> Figure:
    """Predicted and measured bits per weight of the variants, with the learner's guess for the first one."""
    fig, ax = plots.figure(caption, width=8.5)
    names = [r["name"].replace(", ", ",\n") for r in rows]
    plots.predicted_measured(ax, names, [r["predicted"] for r in rows], [r["bits_per_weight"] for r in rows], "bits per weight")
    for tick in ax.get_xticklabels():
        tick.set(rotation=0, ha="center", fontsize=8)
    ax.plot([-0.45, 0.45], [guess, guess], color=plots.RED, ls=":", lw=2, label="your guess for the first")
    ax.legend(frameon=False, loc="upper left")
    return fig


def draw_group(row: dict[str, Any], caption: str) -> Figure:
    """The weights of a group, before and after; the lines are the values that a code can stand for."""
    fig, ax = plots.figure(caption, width=8.5)
    before, after = np.array(row["original"]), restored(row)
    for code in range(2 ** row["bits"]):
        ax.axhline(row["scale"] * code + row["bias"], color="0.85", lw=0.8, zorder=0)
    at = np.arange(len(before))
    ax.vlines(at, before, after, color=plots.RED, lw=1.5, label="error")
    ax.plot(at, before, "o", color=plots.BLUE, ms=4, label="original")
    ax.plot(at, after, "_", color=plots.BLACK, ms=7, mew=1.5, label="what comes back")
    ax.set_xlabel(f"weight's place in the group of {row['group_size']}")
    ax.set_ylabel("weight")
    ax.grid(visible=False)
    ax.set_title(f"{row['tensor']}, row {row['row']}, group {row['group']}", fontsize=10)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def draw_errors(rows: Sequence[dict[str, Any]], caption: str, chosen: tuple[int, int] | None = None) -> Figure:
    """Bits per weight against relative error, MLX's formats and GGUF's; the error's axis is logarithmic. `chosen`: (bits, group)."""
    from matplotlib.ticker import LogLocator, NullFormatter

    fig, ax = plots.figure(caption, width=8.5, height=4.8)
    for size, marker, colour in zip(affine.GROUP_SIZES, ("v", "o", "^"), (plots.SKY, plots.BLUE, plots.GREEN), strict=True):
        mine = sorted((r for r in rows if r["family"] == "MLX" and r["group_size"] == size), key=lambda r: r["bits_per_weight"])
        at = [r["bits_per_weight"] for r in mine], [100 * r["error"] for r in mine]
        ax.plot(*at, marker=marker, color=colour, lw=1, ms=5, label=f"MLX, groups of {size}")
    theirs = [r for r in rows if r["family"] == "GGUF"]
    at = [r["bits_per_weight"] for r in theirs], [100 * r["error"] for r in theirs]
    ax.plot(*at, "D", color=plots.ORANGE, ms=9, mfc="none", mew=1.8, label="GGUF")  # hollow: a dot of MLX's may lie below it
    ax.axhline(5, color="0.4", ls=":", lw=1)
    ax.annotate("5 %", (1, 5), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color="0.4")
    for r in theirs:
        ax.annotate(r["name"], (r["bits_per_weight"], 100 * r["error"]), xytext=(7, 3), textcoords="offset points", fontsize=8)
    if chosen:
        one = next(r for r in rows if (r["bits"], r["group_size"]) == chosen and r["family"] == "MLX")
        ax.plot([one["bits_per_weight"]], [100 * one["error"]], "o", ms=16, mfc="none", mec=plots.RED, mew=2)
        ax.set_title(
            f"{chosen[0]} bits, groups of {chosen[1]}: {one['bits_per_weight']:g} bits per weight, error {one['error']:.2%}", fontsize=10
        )
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("bits per weight")
    ax.set_ylabel("error in % of the weights (root mean square)")
    ax.legend(frameon=False)
    return fig


def draw_speed(rows: Sequence[dict[str, Any]], caption: str) -> Figure:
    """Decode rates as bars on a logarithmic axis, with the number on each."""
    fig, ax = plots.figure(caption, width=8.5, height=3.2)
    names, rates = [f"{r['name']}\n({r['device']})" for r in rows], [r["decode_tokens_per_s"] for r in rows]
    ax.barh(range(len(rows)), rates, 0.6, color=[plots.ORANGE if r["engine"] == "llamacpp" else plots.BLUE for r in rows])
    for y, rate in enumerate(rates):
        ax.annotate(f" {rate:.3g}", (rate, y), va="center", fontsize=9)
    ax.set_yticks(range(len(rows)), names, fontsize=8)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.margins(x=0.15)
    ax.set_xlabel("decode, tokens per second (logarithmic)")
    ax.grid(axis="y", visible=False)
    return fig
