"""What does labkit's evaluation cost above the bare library? And how long does a whole ladder take, with what memory?"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from labkit import engines, measure, models
from labkit.core import machine
from labkit.core.records import ModelRef
from labkit.measure import memory, quality

MODEL, TOKENS, CONTEXT, REPEATS = "smollm2-135m", 2000, 512, 5


def ladder() -> str:
    """Speed of `evaluate` over that of a bare loop with the same result; in brackets the ladder of ten rungs, first and second run."""
    ref, threads, text = models.resolve(MODEL), machine.cores(), quality.text_for(models.resolve(MODEL))
    results: dict[str, float] = {}

    def ours() -> float:
        started = time.perf_counter()
        results["labkit"] = quality.evaluate(ref, text, TOKENS, CONTEXT, threads=threads, progress=False).perplexity
        return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        results["bare"] = _bare(ref, text, threads)
        return time.perf_counter() - started

    found = measure.ab({"labkit": ours, "bare": theirs}, repeats=REPEATS)
    assert abs(results["labkit"] / results["bare"] - 1) < 1e-3, results
    ratio = statistics.median(b / a for a, b in zip(found["labkit"], found["bare"], strict=True))
    with tempfile.TemporaryDirectory() as folder:
        first, peak = _command(Path(folder))
        second, _ = _command(Path(folder))
    a, b = (TOKENS // CONTEXT * CONTEXT / statistics.median(found[name]) for name in ("labkit", "bare"))
    return (
        f"ladder ratio={ratio:.2f} (labkit {a:.0f} / bare {b:.0f} tokens/s, n={REPEATS}) "
        f"[ladder {first:.0f} s, peak {peak / 1e9:.2f} GB, second run {second:.1f} s]"
    )


def _bare(ref: ModelRef, text: str, threads: int) -> float:
    """The shortest loop that the C API allows: load, tokenize, one batch a window with the second half's scores, sum in float64."""
    engines.open("llamacpp").missing()  # the same library settings (threads that wait, no log)
    import llama_cpp as lib

    model = lib.llama_model_load_from_file(str(ref.path).encode(), lib.llama_model_default_params())
    vocab, raw = lib.llama_model_get_vocab(model), text.encode()
    width, buffer = lib.llama_vocab_n_tokens(vocab), (lib.llama_token * (len(raw) + 8))()
    count = lib.llama_tokenize(vocab, raw, len(raw), buffer, len(raw) + 8, True, False)
    tokens = np.array(buffer[: min(count, TOKENS)])
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
    params.n_threads = params.n_threads_batch = threads
    params.no_perf = True
    context, half, surprise = lib.llama_init_from_model(model, params), CONTEXT // 2, []
    batch = lib.llama_batch_init(CONTEXT, 0, 1)
    batch.n_tokens = CONTEXT
    for start in range(0, len(tokens) - CONTEXT + 1, CONTEXT):
        window = tokens[start : start + CONTEXT].copy()
        if lib.llama_vocab_get_add_bos(vocab):
            window[0] = lib.llama_vocab_bos(vocab)
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        for i, token in enumerate(window):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, i >= half
            batch.seq_id[i][0] = 0
        assert lib.llama_decode(context, batch) == 0
        rows = np.ctypeslib.as_array(lib.llama_get_logits(context), shape=(CONTEXT - half, width))[:-1].astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        surprise.append(np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(rows)), window[half + 1 :]])
    lib.llama_batch_free(batch)
    lib.llama_free(context)
    lib.llama_model_free(model)
    return float(np.exp(np.concatenate(surprise).mean()))


def _command(cache: Path) -> tuple[float, int]:
    """Seconds and peak memory of `labkit ladder` with a cache of its own; all of its processes count."""
    words = [str(Path(sys.executable).parent / "labkit"), "ladder", MODEL, "--tokens", str(TOKENS), "--json"]
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "LABKIT_CACHE": str(cache)}
    ) as process:
        while process.poll() is None:
            peak = max(peak, memory.of_tree(process.pid))
            time.sleep(0.1)
    assert process.returncode == 0, process.returncode
    return time.perf_counter() - started, peak
