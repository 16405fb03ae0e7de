"""A llama-architecture language model in PyTorch, small enough to train on a laptop, and its way into a GGUF file.

One model class serves two teachers: `scripts/train_stdlib_10m.py` trained the course's own model with it, and
`labkit.quant.ternary` puts a BitLinear layer in the place of `nn.Linear`. Needs torch; import it where torch is there.

>>> model = Llama(Shape(vocab=4096, hidden=256, layers=10, heads=4, kv_heads=2, ff=768))
>>> logits = model(torch.zeros(1, 16, dtype=torch.long))     # float32 [1, 16, 4096]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.core import paths

Linear = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. `hidden / heads` is the width of a head; `kv_heads` heads of keys and values are shared by all."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ff: int
    context: int = 2048
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def _linear(inputs: int, outputs: int) -> nn.Module:
    return nn.Linear(inputs, outputs, bias=False)


class Block(nn.Module):
    """One transformer block: attention with rotary positions, then a gated feed-forward, each behind an RMS norm."""

    def __init__(self, shape: Shape, linear: Linear) -> None:
        super().__init__()
        q, kv = shape.hidden, shape.kv_heads * shape.head_dim
        self.shape = shape
        self.attn_norm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.attn_q, self.attn_k, self.attn_v = linear(shape.hidden, q), linear(shape.hidden, kv), linear(shape.hidden, kv)
        self.attn_output = linear(q, shape.hidden)
        self.ffn_norm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.ffn_gate, self.ffn_up = linear(shape.hidden, shape.ff), linear(shape.hidden, shape.ff)
        self.ffn_down = linear(shape.ff, shape.hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        y = self.attn_norm(x)
        layers = (self.attn_q, self.attn_k, self.attn_v)
        q, k, v = (layer(y).view(batch, length, -1, self.shape.head_dim).transpose(1, 2) for layer in layers)
        y = F.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v, is_causal=True, enable_gqa=True)
        x = x + self.attn_output(y.transpose(1, 2).reshape(batch, length, -1))
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions over neighbouring pairs (x0, x1), as ggml's normal mode does, so that nothing is permuted on export."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Llama(nn.Module):
    """Token ids [batch, length] in, logits float32 [batch, length, vocab] out. Embedding and output share one matrix."""

    def __init__(self, shape: Shape, linear: Linear = _linear) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.hidden)
        self.blk = nn.ModuleList(Block(shape, linear) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                last = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * shape.layers) ** 0.5 if last else 0.02)

    def hidden(self, tokens: Tensor) -> Tensor:
        """The last hidden state, float32 [batch, length, hidden], before the output matrix."""
        d = self.shape.head_dim
        frequency = self.shape.rope_theta ** (-torch.arange(0, d, 2, dtype=torch.float32) / d)
        angle = torch.arange(tokens.shape[1], dtype=torch.float32)[:, None] * frequency
        cos, sin = angle.cos(), angle.sin()
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, cos, sin)
        return self.output_norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.hidden(tokens), self.token_embd.weight)

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean cross entropy in nats of predicting tokens[:, 1:] from what stands before."""
        logits = self(tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    @property
    def parameters_total(self) -> int:
        return sum(p.numel() for p in self.parameters())


def export_gguf(
    model: Llama,
    path: Path,
    *,
    vocabulary: tuple[list[str], list[str]] | None = None,
    bos: int | None = None,
    encode: Callable[[str, np.ndarray], tuple[str, np.ndarray]] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write the model as a GGUF file that llama.cpp loads; whole or not at all.

    `vocabulary` is (tokens, merges) of a byte-level BPE cut by GPT-2's rule; without it the file has no vocabulary.
    `encode(name, weights float32 [rows, n])` gives (GGUF type, data) of each matrix; without it matrices are F16.
    """
    with paths.atomic_path(path) as temporary:
        writer = GGUFWriter(temporary, "llama")
        _describe(writer, model.shape, metadata or {})
        if vocabulary:
            _vocabulary(writer, *vocabulary, bos=bos)
        else:
            writer.add_tokenizer_model("no_vocab")
        for name, parameter in model.named_parameters():
            weights = parameter.detach().float().numpy()
            if weights.ndim == 1:
                writer.add_tensor(name, weights.astype(np.float32))
            elif encode is None:
                writer.add_tensor(name, weights.astype(np.float16))
            else:
                kind, data = encode(name, weights)
                writer.add_tensor(name, data, raw_dtype=GGMLQuantizationType[kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def _describe(writer: GGUFWriter, shape: Shape, texts: dict[str, str]) -> None:
    for key, value in texts.items():
        writer.add_string(key, value)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_rope_dimension_count(shape.head_dim)


def _vocabulary(writer: GGUFWriter, tokens: list[str], merges: list[str], bos: int | None) -> None:
    kinds = [3 if n == bos else 1 for n in range(len(tokens))]  # 3: control, 1: normal
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    if bos is not None:
        writer.add_bos_token_id(bos)
        writer.add_eos_token_id(bos)
        writer.add_add_bos_token(True)


def checkpoint(model: Llama) -> dict[str, Any]:
    """What `torch.save` keeps: tensors and plain numbers alone, so that it loads with weights_only=True."""
    return {"shape": asdict(model.shape), "state": model.state_dict()}
