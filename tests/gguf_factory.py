"""Tiny GGUF files with random weights, for tests that need a file that labkit has never seen.

Their vocabulary is that of the course's default model, so that they load with a real tokenizer.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter

from labkit import models
from labkit.models import shape
from labkit.models.catalog import Shape

TINY = Shape(layers=2, hidden=64, ff=128, heads=4, kv_heads=2, head_dim=32, vocab=49152, tied_embeddings=True)


@functools.cache
def _vocabulary() -> dict[str, Any]:
    reader = GGUFReader(models.resolve("smollm2-135m").path)
    keys = ("tokens", "token_type", "merges")
    found = {k: reader.fields[f"tokenizer.ggml.{k}"].contents() for k in keys}
    return found | {"template": reader.fields["tokenizer.chat_template"].contents()}


def write(
    path: Path, architecture: str = "llama", vocab: int = 49152, template: bool = True, window: int | None = None, seed: int = 0
) -> Path:
    """A model of two layers; `vocab` above 49152 is filled up with tokens that no text contains."""
    s = TINY.model_copy(update={"vocab": vocab})
    words = _vocabulary()
    writer = GGUFWriter(path, architecture)
    for key, value in {
        "block_count": s.layers, "context_length": 8192, "embedding_length": s.hidden, "feed_forward_length": s.ff,
        "attention.head_count": s.heads, "attention.head_count_kv": s.kv_heads, "attention.key_length": s.head_dim,
        "attention.value_length": s.head_dim, "rope.dimension_count": s.head_dim, "vocab_size": vocab,
    }.items():  # fmt: skip
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    if window:
        writer.add_uint32(f"{architecture}.attention.sliding_window", window)
    extra = vocab - len(words["tokens"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words["tokens"] + [f"\u0120unused{n}" for n in range(extra)])
    writer.add_token_types(words["token_type"] + [1] * extra)
    writer.add_token_merges(words["merges"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if template:
        writer.add_chat_template(words["template"])
    rng = np.random.default_rng(seed)
    if architecture == "gemma3":
        s = s.model_copy(update={"qk_norm": True})
    for name, dims in shape.tensor_shapes(architecture, s, 8192):
        array = np.ones(dims[::-1], np.float32) if "norm" in name else (rng.standard_normal(dims[::-1]) * 0.05).astype(np.float16)
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
