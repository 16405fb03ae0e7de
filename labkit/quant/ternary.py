"""Weights of three values, trained in or put on afterwards: BitLinear, and a small language model in three forms.

**BitLinear** is the layer of BitNet b1.58 (Ma and others 2024, arXiv:2402.17764; the team's "Training Tips, Code and FAQ"
lies in github.com/microsoft/unilm under bitnet/):

- weights: divided by the mean of their magnitudes, rounded, cut to -1, 0, 1 (absmean), one scale a matrix;
- activations: 8 bits, one scale a token, from its largest magnitude (absmax);
- training: the layer keeps full-precision weights and rounds them anew in every step. Rounding has no useful gradient, so the
  gradient goes through as if nothing had been rounded (straight-through estimator);
- normalisation: the paper puts an RMS norm inside every BitLinear. Here it stays before the layer, where the llama architecture
  has its two norms a block; the inputs of attn_output and ffn_down get none. So the file is a llama model, as the
  published Llama3-8B-1.58 is, and llama.cpp runs it.

**The experiment** trains a byte-level model of about a million weights on Newton's Opticks: in full precision, and with
BitLinear; and makes the full-precision one's weights ternary afterwards. All three are scored on the same held-out windows.

Same seed, same numbers: on the same machine, with the same torch. Each training takes one thread, so the number of cores does not
matter; several run side by side. Elsewhere sums are added in another order, and the last digits drift apart over the steps.
Needs torch; import it where torch is there.

>>> rows = experiment(seeds=(1, 2, 3))
>>> [(r["form"], round(r["loss"], 2)) for r in rows if r["kind"] == "final"]
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from labkit.core import machine, paths
from labkit.core.errors import RunFailed
from labkit.quant import blocks
from labkit.quant.torch_llama import Llama, Shape, export_gguf

END = 256  # the token in front of every window; 0 to 255 are the bytes
SHAPE = Shape(vocab=257, hidden=256, layers=2, heads=4, kv_heads=2, ff=512, context=512)  # rows of 256: one TQ block, or two
FULL, TRAINED_IN, AFTERWARDS = "full precision", "ternary, trained in", "ternary, afterwards"
FORMS = (FULL, TRAINED_IN, AFTERWARDS)
TEXT = "opticks.txt"

STEPS, QUICK_STEPS = 300, 200
BATCH, WINDOW = 4, 128  # windows a step, bytes a window
EVALUATE_EVERY = 50
_CHUNK = 2048  # the text is cut into pieces of this many bytes; every tenth is held out
_GENERATOR = threading.Lock()  # torch's generator is one for all threads
_SMALLEST = 1e-5  # as in the paper's code: no division by zero


@dataclass(frozen=True)
class Recipe:
    """How a form is trained: AdamW at `rate`, from first weights `spread` times as large as Llama's own (0.02, 0.01 behind a branch).

    Both figures come from a small search for each form, by held-out loss, so that neither is held back by the other's.
    """

    rate: float
    spread: float
    warm_up: int = 20

    def rate_at(self, step: int, steps: int) -> float:
        """Up over the first steps, then straight down to 0: weights near a rounding threshold come to rest."""
        return self.rate * min((step + 1) / self.warm_up, 1.0) * (steps - step) / steps


# a weight of a ternary layer must cross a threshold before it counts, and the scale of all grows slowly: it starts from larger ones
RECIPES = {FULL: Recipe(1.5e-3, spread=3), TRAINED_IN: Recipe(1.5e-3, spread=4)}


def absmean(weights: Tensor) -> tuple[Tensor, Tensor]:
    """(values -1, 0, 1 in the shape of `weights`, the matrix's one scale): scale = mean |w|, values = round(w / scale), cut."""
    scale = weights.abs().mean().clamp_(min=_SMALLEST)
    return (weights / scale).round_().clamp_(-1, 1), scale


class _TernaryWeights(torch.autograd.Function):
    """absmean forward; backward the gradient unchanged."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor) -> Tensor:
        values, scale = absmean(weights)
        return values.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _EightBits(torch.autograd.Function):
    """Each token's activations to -127 ... 127 times a scale, so that the largest is 127; backward the gradient unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True).clamp_(min=_SMALLEST).div_(127)
        return (x / scale).round_().mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class BitLinear(nn.Module):
    """In the place of `nn.Linear(inputs, outputs, bias=False)`. `weight` [outputs, inputs] is what training moves; the layer
    computes with its rounded copy. Rounding happens in float32: this teaches and trains, it is not fast."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(_EightBits.apply(x), _TernaryWeights.apply(self.weight))


def ternary_afterwards(model: Llama) -> Llama:
    """The same weights in a model of BitLinear layers: what rounding to three values after training gives."""
    other = _first(TRAINED_IN, 0, model.shape)
    other.load_state_dict(model.state_dict())
    return other


# -- the text


def pieces(name: str = TEXT) -> tuple[Tensor, Tensor]:
    """(bytes to train on, held-out bytes), int64 [pieces, 2048] each: every tenth piece of the text is held out."""
    raw = np.frombuffer(paths.data("evaluation", name).read_bytes(), np.uint8).astype(np.int64)
    cut = raw[: len(raw) // _CHUNK * _CHUNK].reshape(-1, _CHUNK)
    held = np.arange(len(cut)) % 10 == 5
    return torch.from_numpy(cut[~held]), torch.from_numpy(cut[held])


def _windows(source: Tensor, rows: np.ndarray, starts: np.ndarray) -> Tensor:
    """[n, WINDOW + 1] tokens, the first of them END."""
    cut = torch.stack([source[r, s : s + WINDOW] for r, s in zip(rows, starts, strict=True)])
    return F.pad(cut, (1, 0), value=END)


def held_out_windows(held: Tensor, count: int = 32) -> Tensor:
    """The same `count` windows for every model: spread evenly over the held-out pieces."""
    places = np.linspace(0, held.numel() - 1, count, endpoint=False).astype(int)
    return _windows(held, places // _CHUNK, np.minimum(places % _CHUNK, _CHUNK - WINDOW))


@torch.no_grad()
def loss_of(model: Llama, windows: Tensor) -> float:
    """Mean cross entropy in nats a byte."""
    return float(model.loss(windows))


# -- training


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch computes in this thread alone, and afterwards with as many as before."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def _first(form: str, seed: int, shape: Shape) -> Llama:
    """A form before its first step; torch's own generator stays as it was."""
    with _GENERATOR, torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Llama(shape, linear=BitLinear) if form == TRAINED_IN else Llama(shape)
        for parameter in model.blk.parameters():
            if parameter.ndim == 2:
                parameter.mul_(RECIPES[form].spread)
    return model


def train(
    form: str,
    seed: int,
    steps: int = STEPS,
    *,
    shape: Shape = SHAPE,
    text: str = TEXT,
    watch: Callable[[int, Llama], None] | None = None,
) -> Llama:
    """Train one form (FULL or TRAINED_IN). First weights (but for their spread) and the text follow from the seed, the same for both.

    watch(step, model) is called after every step, step counted from 1; what it raises ends the training.
    """
    recipe, (source, _) = RECIPES[form], pieces(text)
    with _one_thread():
        model = _first(form, seed, shape)
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        random = np.random.default_rng(seed)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate_at(step, steps)
            batch = _windows(source, random.integers(0, len(source), BATCH), random.integers(0, _CHUNK - WINDOW, BATCH))
            optimizer.zero_grad()
            model.loss(batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if watch:
                watch(step + 1, model)
    return model


def experiment(
    seeds: Sequence[int] = (1, 2, 3),
    steps: int | None = None,
    quick: bool = False,
    *,
    workers: int | None = None,
    keep: Callable[[str, int, Llama], None] | None = None,
) -> list[dict[str, Any]]:
    """Train both forms for each seed and score all three: rows of the curves (kind "curve") and of the ends (kind "final").

    A row: kind, form, seed, step, loss (nats a byte, held-out). `quick` takes QUICK_STEPS. `workers` trainings run at a time (one a
    core, where not given). keep(form, seed, model) gets the finished models, for export.
    """
    steps = steps or (QUICK_STEPS if quick else STEPS)
    windows = held_out_windows(pieces()[1])
    jobs = [(form, seed) for seed in seeds for form in (FULL, TRAINED_IN)]
    stop = threading.Event()
    bar = tqdm(total=steps * len(jobs), desc="training", unit="step", mininterval=1)

    def run(form: str, seed: int) -> tuple[list[dict[str, Any]], Llama]:
        rows: list[dict[str, Any]] = []

        def watch(step: int, model: Llama) -> None:
            bar.update()
            if stop.is_set():
                raise RunFailed("the training was stopped", "start it again")
            if step == 1 or step % EVALUATE_EVERY == 0 or step == steps:
                scored = {form: model} | ({AFTERWARDS: ternary_afterwards(model)} if form == FULL else {})
                rows.extend(_row("curve", name, seed, step, loss_of(m, windows)) for name, m in scored.items())

        return rows, train(form, seed, steps, watch=watch)

    # torch counts its threads partly for each of ours and partly for all, so it is told twice
    with bar, _one_thread(), ThreadPoolExecutor(workers or machine.cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running = [pool.submit(run, form, seed) for form, seed in jobs]
        try:
            done = [future.result() for future in running]
        finally:
            stop.set()  # Ctrl-C, or one that failed: the others end at their next step
            pool.shutdown(cancel_futures=True)
    for (form, seed), (_, model) in zip(jobs, done, strict=True):
        if keep:
            keep(form, seed, model)
    rows = [row for found, _ in done for row in found]
    return rows + [row | {"kind": "final"} for row in rows if row["step"] == steps]


def _row(kind: str, form: str, seed: int, step: int, loss: float) -> dict[str, Any]:
    return {"kind": kind, "form": form, "seed": seed, "step": step, "loss": loss}


# -- the file


def vocabulary() -> tuple[list[str], list[str]]:
    """(tokens, merges) for llama.cpp's GPT-2 tokenizer: a token for each byte in byte order, then the end token.

    GPT-2 writes each byte as a character that can be printed: those that can stand for themselves, the others follow from
    256 on. llama.cpp refuses an empty list of merges, so there is one that never applies: it joins two pairs that nothing forms.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = {byte: 256 + n for n, byte in enumerate(b for b in range(256) if b not in printable)}
    return [chr(others.get(byte, byte)) for byte in range(256)] + ["<|endoftext|>"], ["ab cd"]


def export(model: Llama, path: Path, kind: str = "TQ2_0") -> Path:
    """Write a GGUF file: the layers' matrices in `kind`, the embedding (also the output matrix) in F16, norms in F32.

    With TQ1_0 and TQ2_0 the matrices are made ternary by absmean. Both formats keep that exactly, but for the scale, which becomes a
    16-bit number (relative error at most 2**-11). With F16 and other kinds of `labkit.quant.blocks` the trained weights go in as they are.
    Raises BadInput for an unknown kind.
    """
    blocks.bits_per_weight(kind)

    def encode(name: str, weights: np.ndarray) -> tuple[str, np.ndarray]:
        if name == "token_embd.weight":
            return "F16", weights.astype(np.float16)
        if kind in ("TQ1_0", "TQ2_0"):
            values, scale = absmean(torch.from_numpy(weights))
            weights = (values * scale).numpy()
        return kind, weights.astype(np.float16) if kind == "F16" else blocks.encode(kind, weights)

    about = {"general.name": "ternary-demo", "general.description": f"matrices in {kind}, trained for minutes on Newton's Opticks"}
    return export_gguf(model, path, vocabulary=vocabulary(), bos=END, encode=encode, metadata=about)
