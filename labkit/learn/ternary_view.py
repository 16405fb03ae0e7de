"""What lab 06 measures and draws: files made ternary after training, the experiment's curves, its files in llama.cpp, a widget.

Functions take plain values and return rows (dicts) or figures. Nothing here needs torch but `Runs`, which imports it when it is
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labkit import engines, models
from labkit.core import paths
from labkit.core.records import ModelRef, Request
from labkit.learn import plots
from labkit.measure import logits, quality
from labkit.models import inspect, shape
from labkit.models.catalog import Model
from labkit.models.inspect import Gguf
from labkit.quant import blocks, energy, gguf, tensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]

FULL, TRAINED_IN, AFTERWARDS = "full precision", "ternary, trained in", "ternary, afterwards"  # as in labkit.quant.ternary
_COLOURS = {FULL: plots.BLUE, TRAINED_IN: plots.GREEN, AFTERWARDS: plots.RED}
_MARKS = {FULL: "o", TRAINED_IN: "s", AFTERWARDS: "^"}
FILES = {FULL: "F16", TRAINED_IN: "TQ2_0", AFTERWARDS: "TQ2_0"}
WINDOW = 128  # bytes that the trained models see at once
PROMPT = "The Rays of Light "


# -- models made ternary after their training


def collapse_rows(names: Sequence[str], tokens: int, threads: int, context: int = 256) -> list[Row]:
    """Perplexity of each model's 16-bit copy and of its two ternary files, and their KL divergence from the copy."""
    rows = []
    for name in names:
        ref = models.resolve(name)
        source = gguf.to_f16(ref, progress=False)
        for kind in ("F16", *energy.TERNARY):
            file = gguf.as_type(ref, kind, progress=False)
            header = inspect.read(file.path)
            found = quality.evaluate(file, tokens=tokens, context=context, against=None if kind == "F16" else source, threads=threads)
            about = {"model": ref.name, "type": kind, "bits_per_weight": header.bits_per_weight, "ternary_share": ternary_share(file)}
            rows.append(about | found.model_dump(mode="json"))
    return rows


def ternary_share(file: ModelRef) -> float:
    """The share of a file's weights that lies in ternary blocks."""
    header = inspect.read(file.path)
    return sum(t.elements for t in header.tensors if t.type in energy.TERNARY) / header.parameters


def ternary_plan(model: Model) -> Gguf:
    """The header of a model's TQ2_0 file, by arithmetic; embedding and output in Q6_K, since llama.cpp keeps them in more bits."""
    plan = shape.header(model, "TQ2_0")
    six = {t.name: t for t in shape.header(model, "Q6_K").tensors if t.name in ("token_embd.weight", "output.weight")}
    tensors_ = tuple(six.get(t.name, t) for t in plan.tensors)
    size = plan.file_bytes + sum(t.bytes for t in tensors_) - plan.tensor_bytes
    return Gguf(path=plan.path, version=plan.version, file_bytes=size, metadata=plan.metadata, tensors=tensors_)


def draw_collapse(rows: Sequence[Row], my_guess_times: float, caption: str) -> Figure:
    """Perplexity of each model's files, logarithmic, with the guess for the first model: that many times its 16-bit file."""
    fig, ax = plots.figure(caption)
    names = list(dict.fromkeys(r["model"] for r in rows))
    kinds = list(dict.fromkeys(r["type"] for r in rows))
    for n, (kind, colour, hatch) in enumerate(zip(kinds, (plots.BLUE, plots.ORANGE, plots.RED), ("", "//", ".."), strict=False)):
        found = [next(r["perplexity"] for r in rows if (r["model"], r["type"]) == (name, kind)) for name in names]
        at = np.arange(len(names)) + 0.27 * (n - 1)
        ax.bar(at, found, 0.25, color=colour, hatch=hatch, edgecolor="white", label=kind)
        for x, value in zip(at, found, strict=True):
            ax.annotate(f"{value:,.3g}" if value < 1000 else f"{value:,.0f}", (x, value), ha="center", va="bottom", fontsize=8)
    guess = my_guess_times * rows[0]["perplexity"]
    ax.hlines(guess, -0.1, 0.45, color=plots.BLACK, ls=":", zorder=3, label="your guess for TQ2_0")  # not over the 16-bit bar's label
    ax.set_yscale("log")
    ax.set_xticks(range(len(names)), names)
    ax.set_ylabel("perplexity (log scale)")
    ax.margins(y=0.12)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=4, fontsize=8)
    return fig


# -- the experiment


class Runs:
    """Trains the small models and keeps those of the first seed, so that a later step can write them as files."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def train(self, seeds: Sequence[int], quick: bool) -> list[Row]:
        """The rows of `labkit.quant.ternary.experiment`."""
        from labkit.quant import ternary

        def keep(form: str, seed: int, model: Any) -> None:
            if seed == seeds[0]:
                self.kept[form] = model

        return ternary.experiment(seeds, quick=quick, keep=keep)

    def files(self, folder: Path | None = None, threads: int | None = None) -> list[Row]:
        """Write the three forms as GGUF files, run each in llama.cpp: size, agreement with torch, and a piece of text."""
        import torch

        from labkit.quant import ternary

        kept = self.kept | {AFTERWARDS: self.kept[FULL]}
        windows = ternary.held_out_windows(ternary.pieces()[1], 8)[:, :-1]
        rows = []
        for number, (form, kind) in enumerate(FILES.items()):
            path = ternary.export(kept[form], (folder or paths.cache("ternary")) / f"{number}-{kind}.gguf", kind)
            model = ternary.ternary_afterwards(kept[form]) if form == AFTERWARDS else kept[form]
            with torch.no_grad():
                expected = model(windows).flatten(0, 1).double().log_softmax(-1).numpy()
            rows.append({"form": form, "type": kind} | run_file(path, windows.tolist(), expected, threads))
        return rows


def run_file(path: Path, windows: Sequence[Sequence[int]], expected: np.ndarray, threads: int | None = None) -> Row:
    """Load a file in llama.cpp: bytes, bits per weight, KL divergence of its predictions from `expected`, and its text.

    expected: float64 [windows x positions, vocabulary], logarithms of probabilities.
    """
    header = inspect.read(path)
    with closing(engines.open("llamacpp").load(models.resolve(path), threads=threads, context=512)) as session:
        found = np.concatenate([logits.log_softmax(block) for tokens in windows for block in logits.blocks(session, tokens)])
        request = Request(prompt=PROMPT, max_tokens=120, temperature=0.7, seed=1, ignore_eos=True)
        text = "".join(chunk.text for chunk in session.stream(request))
    same = (expected.argmax(-1) == found.argmax(-1)).mean()
    return {
        "bytes": header.file_bytes,
        "bits_per_weight": header.bits_per_weight,
        "kl_from_torch": float(logits.divergence(expected, found).mean()),
        "same_first_choice": float(same),
        "text": PROMPT + text,
    }


def ends(rows: Sequence[Row]) -> dict[str, list[float]]:
    """form -> the loss of each seed at the end, in nats a byte."""
    found: dict[str, list[float]] = {FULL: [], TRAINED_IN: [], AFTERWARDS: []}
    for row in rows:
        if row["kind"] == "final":
            found[row["form"]].append(row["loss"])
    return found


def draw_curves(rows: Sequence[Row], my_guess_percent: float, caption: str) -> Figure:
    """Held-out loss over the steps: a line for the mean of the seeds, a band from the lowest to the highest."""
    fig, ax = plots.figure(caption, width=8)
    curves = [r for r in rows if r["kind"] == "curve"]
    for form, colour in _COLOURS.items():
        steps = sorted({r["step"] for r in curves})
        losses = [[r["loss"] for r in curves if (r["form"], r["step"]) == (form, s)] for s in steps]
        dashed = form == FULL  # it and the trained-in form may lie over each other; the dashed one is on top
        style: dict[str, Any] = {"ls": "--" if dashed else "-", "zorder": 3 if dashed else 2, "ms": 4, "color": colour}
        ax.plot(steps, [np.mean(v) for v in losses], _MARKS[form], label=form, **style)
        ax.fill_between(steps, [min(v) for v in losses], [max(v) for v in losses], color=colour, alpha=0.25)
    full = float(np.mean(ends(rows)[FULL]))
    ax.axhline(full * (1 + my_guess_percent / 100), color=plots.BLACK, ls=":", label="your guess for trained in, at the end")
    ax.set_xlabel("training steps")
    ax.set_ylabel("loss on held-out text (nats per byte)")
    later = [r["loss"] for r in curves if r["step"] > 1]  # the first point, a blind guess, would press all others together
    ax.set_ylim(0.9 * min(later), 1.1 * max(*later, full * (1 + my_guess_percent / 100)))
    seeds = len({r["seed"] for r in curves})
    ax.set_title(
        f"{seeds} seeds: mean, and a band from the lowest to the highest" if seeds > 1 else "one seed, so there is no band", fontsize=10
    )
    ax.legend(frameon=False, fontsize=8, ncols=2)
    return fig


# -- arithmetic


def energy_rows(parameters: int, kinds: Sequence[str] = ("F16", "Q8_0", "Q4_0", "TQ2_0", "TQ1_0")) -> list[Row]:
    """Size and energy for one token of a model with that many weights, by format: arithmetic, not measured."""
    rows = []
    for kind in kinds:
        one = energy.per_weight(kind)
        rows.append(
            {
                "type": kind,
                "bits per weight": blocks.bits_per_weight(kind),
                "weights (GB)": energy.weights_bytes(parameters, kind) / 1e9,
                "arithmetic (mJ/token)": one.arithmetic_pj * parameters / 1e9,
                "reading weights (mJ/token)": one.memory_pj * parameters / 1e9,
            }
        )
    return rows


def draw_energy(rows: Sequence[Row], caption: str) -> Figure:
    """Energy of arithmetic and of reading, side by side on a logarithmic axis."""
    fig, ax = plots.figure(caption)
    keys = ("arithmetic (mJ/token)", "reading weights (mJ/token)")
    for n, (key, colour, hatch) in enumerate(zip(keys, (plots.SKY, plots.ORANGE), ("//", ""), strict=True)):
        bars = ax.bar(np.arange(len(rows)) + 0.4 * n - 0.2, [r[key] for r in rows], 0.38, color=colour, hatch=hatch, edgecolor="white")
        ax.bar_label(bars, fmt="{:.3g}", fontsize=8)
        bars.set_label(key.split(" (")[0])
    ax.set_yscale("log")
    ax.set_xticks(range(len(rows)), [r["type"] for r in rows])
    ax.set_ylabel("millijoules for one token (log scale)")
    ax.margins(y=0.12)
    ax.legend(frameon=False)
    return fig


# -- the widget


class Rounded(NamedTuple):
    """What rounding to three values does: shares of -1, 0, 1, and the relative error |w - rounded| / |w| (both root mean square)."""

    shares: tuple[float, float, float]
    error: float


def matrix(path: Path, name: str = "blk.1.ffn_up.weight") -> np.ndarray:
    """A matrix of a GGUF file as float32, decoded from whatever type it has. Raises KeyError where there is none of that name."""
    return tensors.rows(path, {t.name: t for t in inspect.read(path).tensors}[name])


def rounded(weights: np.ndarray, scale: float, threshold: float) -> Rounded:
    """Weights of magnitude below `threshold` become 0, the others -scale or scale. Both are in units of mean |w|."""
    unit = np.abs(weights).mean()
    values = np.where(np.abs(weights) < threshold * unit, 0, np.sign(weights))
    error = np.sqrt(np.mean((weights - values * scale * unit) ** 2) / np.mean(weights**2))
    return Rounded(tuple(float((values == v).mean()) for v in (-1, 0, 1)), float(error))  # type: ignore[arg-type]


def draw_rounding(weights: np.ndarray, scale: float, threshold: float, caption: str) -> Figure:
    """The histogram of a matrix, coloured by what each weight becomes, with the three values as lines."""
    fig, ax = plots.figure(caption)
    unit = float(np.abs(weights).mean())
    found = rounded(weights, scale, threshold)
    edges = np.linspace(-5, 5, 161)
    counts, _ = np.histogram(weights / unit, edges)
    middles = (edges[:-1] + edges[1:]) / 2
    value = np.where(np.abs(middles) < threshold, 0, np.sign(middles))
    for v, share, colour in zip((-1, 0, 1), found.shares, (plots.ORANGE, "0.7", plots.BLUE), strict=True):
        ax.bar(
            middles[value == v],
            counts[value == v],
            edges[1] - edges[0],
            color=colour,
            label=f"becomes {v:+d}: {share:.0%}" if v else f"becomes 0: {share:.0%}",
        )
        ax.axvline(v * scale, color=plots.RED, ls="--", lw=1)
    ax.set_xlabel("weight, in units of the mean magnitude (dashed: the three values)")
    ax.set_ylabel("number of weights")
    ax.set_title(f"relative error {found.error:.0%}", fontsize=10)
    ax.legend(frameon=False)
    return fig
