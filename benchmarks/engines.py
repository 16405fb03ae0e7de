"""Does labkit cost speed? Its sessions against the bare library loop, on the same build, model and tokens, in turn."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from labkit import engines, measure, models
from labkit.core import machine
from labkit.core.records import Request

PROMPT, OUTPUT = 128, 48


class Bare:
    """The shortest loop that the library's C API allows: decode the prompt, then take the likeliest token again and again."""

    def __init__(self, path: str, threads: int) -> None:
        engines.open("llamacpp").missing()  # the same library settings (threads that wait, no log)
        import llama_cpp as lib

        self.lib, model = lib, lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.no_perf = 256, 512, 512, True
        params.n_threads = params.n_threads_batch = threads
        self.context = lib.llama_init_from_model(model, params)
        self.sampler = lib.llama_sampler_init_greedy()

    def _step(self, tokens: list[int]) -> None:
        buffer = (self.lib.llama_token * len(tokens))(*tokens)
        assert self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(buffer, len(tokens))) == 0

    def run(self, tokens: list[int]) -> tuple[float, float]:
        """(prefill, decode) in tokens per second."""
        self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(self.context), 0, 0, -1)
        marks = [time.perf_counter_ns()]
        self._step(tokens)
        for n in range(OUTPUT):
            token = self.lib.llama_sampler_sample(self.sampler, self.context, -1)
            marks.append(time.perf_counter_ns())
            if n < OUTPUT - 1:
                self._step([token])
        return len(tokens) / (marks[1] - marks[0]) * 1e9, (OUTPUT - 1) / (marks[-1] - marks[1]) * 1e9


def _pairs(repeats: int = 9) -> dict[str, list[Any]]:
    ref, threads = models.resolve("smollm2-135m"), machine.cores()
    bare = Bare(str(ref.path), threads)
    session = engines.open("llamacpp").load(ref, threads=threads, context=256)
    tokens = [int(t) for t in np.random.default_rng(1).integers(300, 40000, PROMPT)]
    request = Request(tokens=tuple(tokens), max_tokens=OUTPUT, ignore_eos=True)

    def ours() -> tuple[float, float]:
        found = measure.one(session, request)
        return found.prefill_tokens_per_s or 0.0, found.decode_tokens_per_s or 0.0

    return measure.ab({"labkit": ours, "bare": lambda: bare.run(tokens)}, repeats=repeats)


def _line(name: str, which: int) -> str:
    found = _pairs()
    ours, bare = ([row[which] for row in found[side]] for side in ("labkit", "bare"))
    # neighbours in time are compared, so that a drifting machine does not decide
    ratio = float(np.median([a / b for a, b in zip(ours, bare, strict=True)]))
    return f"{name} ratio={ratio:.3f} (labkit {np.median(ours):.1f} / bare {np.median(bare):.1f} tokens/s, n={len(ours)})"


def decode() -> str:
    """Decode rate; target at least 0.97."""
    return _line("decode", 1)


def prefill() -> str:
    """Prefill rate; target at least 0.97."""
    return _line("prefill", 0)


def threads_auto() -> str:
    """The rate at the count that `--threads auto` takes, over the best count of a sweep in the same run; target 0.95."""
    from labkit.measure import bench

    ref = models.resolve("smollm2-135m")
    session: Any = engines.open("llamacpp").load(ref, context=256)
    warm, request = bench.requests(session.n_vocab, 64, 32, 2)
    chosen = measure.best_threads(session, warm)
    counts = sorted({1, 2, chosen, machine.cores()})
    rows = measure.sweep_threads(session, request, counts, repeats=7)
    medians = {n: float(np.median([m.decode_tokens_per_s for m in rows if m.threads == n])) for n in counts}
    best = max(medians.values())
    return f"threads_auto ratio={medians[chosen] / best:.3f} (auto {chosen} threads {medians[chosen]:.1f} / best {best:.1f} tokens/s, n=7)"
