# /// script
# requires-python = "==3.11.*"
# dependencies = ["torch==2.13.0", "tokenizers==0.23.3", "gguf==0.19.0", "numpy>=2", "tqdm", "platformdirs", "pydantic>=2.11", "psutil>=7"]
# ///
"""Train stdlib-10m, the course's own small language model, on the source of Python's standard library.

It was run once; the file it wrote is data/models/stdlib-10m.gguf, and everyone uses that file. Run it again to see a
model being born, or to make another one:

    PYTHONPATH=. uv run --script scripts/train_stdlib_10m.py --out build/stdlib-10m

Under an hour on two idle cores (2.6 to 3.4 s a step while the machine was quiet, Xeon 2.5 GHz). It saves its state every
50 steps and on Ctrl-C, and goes on from there when started again. Text: the modules of the running CPython 3.11
(PSF-2.0), tests, tables and a few held-out modules left out. What a step sees follows from the seed and the step's number alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sysconfig
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm import tqdm

from labkit.quant.torch_llama import Llama, Shape, export_gguf

SHAPE = Shape(vocab=4096, hidden=512, layers=4, heads=8, kv_heads=2, ff=768, context=1024)
END = "<|endoftext|>"  # id 0: stands in front of every module
# never trained on: what evaluation reads
HELD_OUT = (
    "bisect.py", "cmd.py", "csv.py", "fnmatch.py", "fractions.py", "graphlib.py", "heapq.py", "json/decoder.py", "queue.py", "sched.py",
    "shelve.py", "statistics.py", "textwrap.py", "tomllib/_parser.py",
)  # fmt: skip
# tests, other people's code, and files that are tables rather than code
LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "pydoc_data", "ensurepip", "turtledemo", "encodings", "idle_test"}
TABLES = ("html/entities.py", "this.py", "stringprep.py", "locale.py")
BATCH_TOKENS = 4096
MUON_RATE, ADAM_RATE = 0.02, 0.003


def modules() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(name, source) of the modules to train on, and of those held out; sorted by name."""
    root = Path(sysconfig.get_paths()["stdlib"])
    train, held = [], []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if LEFT_OUT & set(name.split("/")) or name in TABLES or name.startswith(("_sysconfigdata", "config-")):
            continue
        try:
            text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue  # two old modules in Latin-1
        (held if name in HELD_OUT else train).append((name, text))
    return train, held


def make_tokenizer(texts: list[str], path: Path) -> Tokenizer:
    """Byte-level BPE, cut by GPT-2's rule, so that llama.cpp's own tokenizer gives the same ids."""
    if not path.exists():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=SHAPE.vocab, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.save(str(path))
    return Tokenizer.from_file(str(path))


def ids(tokenizer: Tokenizer, files: list[tuple[str, str]]) -> Tensor:
    out: list[int] = []
    for _, text in files:
        out += [0, *tokenizer.encode(text).ids]
    return torch.tensor(out)


class Muon:
    """Momentum, then the nearest orthogonal matrix, as the step of a weight matrix (Keller Jordan's Muon).

    Newton-Schulz runs in float32 over stacks of equal shape: torch.optim.Muon computes in bfloat16, which a CPU
    without bfloat16 units does several times slower.
    """

    def __init__(self, parameters: list[Tensor], momentum: float = 0.95, decay: float = 0.01) -> None:
        self.stacks: dict[torch.Size, list[Tensor]] = {}
        for p in parameters:
            self.stacks.setdefault(p.shape, []).append(p)
        self.buffers = {shape: torch.zeros(len(stack), *shape) for shape, stack in self.stacks.items()}
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for shape, stack in self.stacks.items():
            gradient = torch.stack([p.grad for p in stack])
            buffer = self.buffers[shape].lerp_(gradient, 1 - self.momentum)
            update = _orthogonal(gradient.lerp(buffer, self.momentum)) * max(1, shape[0] / shape[1]) ** 0.5
            for p, u in zip(stack, update, strict=True):
                p.mul_(1 - rate * self.decay).sub_(u, alpha=rate)


def _orthogonal(g: Tensor) -> Tensor:
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


def rate_at(step: int, steps: int) -> float:
    """Warm-up over 50 steps, flat, then straight down over the last 40 %."""
    return min((step + 1) / 50, 1.0, (steps - step) / (0.4 * steps))


def batch(tokens: Tensor, seed: int, step: int, steps: int) -> Tensor:
    """The windows of one step: 512 tokens long, 1024 in the last fifth of the training."""
    length = 512 if step < 0.8 * steps else 1024
    starts = np.random.default_rng((seed, step)).integers(0, len(tokens) - length - 1, BATCH_TOKENS // length)
    return torch.stack([tokens[s : s + length + 1] for s in starts])


@torch.no_grad()
def held_out_loss(model: Llama, tokens: Tensor, windows: int = 24) -> float:
    starts = np.linspace(0, len(tokens) - 514, windows).astype(int)
    return float(torch.stack([model.loss(tokens[s : s + 513][None]) for s in starts]).mean())


def train(folder: Path, steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    files, held = modules()
    corpus = hashlib.sha256("".join(name + text for name, text in files).encode()).hexdigest()
    tokenizer = make_tokenizer([text for _, text in files], folder / "tokenizer.json")
    tokens, check = ids(tokenizer, files), ids(tokenizer, held)
    model = Llama(SHAPE)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("blk.")]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and n.startswith("blk."))]
    muon, adam = Muon(matrices), torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    saved, first = folder / "state.pt", 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        for shape, buffer in zip(muon.buffers, state["muon"], strict=True):
            muon.buffers[shape] = buffer
        first = state["step"]
    print(f"{len(files)} modules, {len(tokens):,} tokens to train on, {len(check):,} held out; {model.parameters_total:,} parameters")
    clock = time.perf_counter()
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: asked.append(got))
    for step in tqdm(range(first, steps), initial=first, total=steps, unit="step", mininterval=10):
        rate = rate_at(step, steps)
        loss = model.loss(batch(tokens, seed, step, steps))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for group in adam.param_groups:
            group["lr"] = ADAM_RATE * rate
        adam.step()
        muon.step(MUON_RATE * rate)
        model.zero_grad()
        if (step + 1) % 10 == 0:
            line = {"step": step + 1, "tokens": (step + 1) * BATCH_TOKENS, "loss": round(loss.item(), 4), "rate": round(rate, 4)}
            if (step + 1) % 50 == 0 or step + 1 == steps:
                line["held_out_loss"] = round(held_out_loss(model, check), 4)
                line["seconds"] = round(time.perf_counter() - clock, 1)
            with (folder / "training.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
        if (step + 1) % 50 == 0 or step + 1 == steps or asked:
            state = {"model": model.state_dict(), "adam": adam.state_dict(), "muon": list(muon.buffers.values()), "step": step + 1}
            torch.save(state, folder / "new.pt")
            (folder / "new.pt").replace(saved)
        if asked:
            raise SystemExit(f"stopped after step {step + 1}; the same command goes on from there")
    write(model, tokenizer, folder / "stdlib-10m.gguf", corpus)


def write(model: Llama, tokenizer: Tokenizer, path: Path, corpus: str) -> None:
    table = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    texts = {
        "general.name": "stdlib-10m",
        "general.description": f"trained on the source of CPython 3.11's standard library (sha256 {corpus[:16]})",
        "general.license": "MIT",
    }
    export_gguf(model, path, vocabulary=([token for token, _ in table], merges), bos=0, metadata=texts)
    print(path, hashlib.sha256(path.read_bytes()).hexdigest())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/stdlib-10m"))
    parser.add_argument("--steps", type=int, default=750)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    train(given.out, given.steps, given.seed)
