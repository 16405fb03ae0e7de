"""Shape-true models: a GGUF with a family's real architecture and shape, random weights and no vocabulary.

Memory and speed of such a file on this machine are real, because they depend on the sizes of the tensors and not on
what is in them. Its text means nothing. Writing one takes seconds and needs no download.

>>> path = shape.write(catalog.get("qwen3-0.6b"), "Q4_0")      # 336 MB
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.gguf_writer import WriterState
from tqdm.auto import tqdm

from labkit.core import paths
from labkit.core.errors import BadInput, nearest
from labkit.core.records import ModelRef
from labkit.models.catalog import Model, Shape
from labkit.models.inspect import Gguf, Tensor, tensor_bytes

# where each block type keeps its half-precision scales (byte offsets; ggml-common.h). Everything else may be random.
_SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "IQ4_NL": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "TQ1_0": (52,), "TQ2_0": (64,),
}  # fmt: skip
# a row that is no whole number of 256-blocks takes these instead, as llama-quantize does
_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0"}
TYPES = ("F32", "F16", "BF16", *_SCALES)
_CHUNK = 1 << 20


def tensor_shapes(architecture: str, s: Shape, context: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes (row length first) of a model's tensors, as llama.cpp's loader expects them.

    Source: the load_arch_tensors functions in llama.cpp's src/models/.
    """
    if architecture not in ARCHITECTURES:
        raise BadInput(f"no tensor list for architecture {architecture!r} ({nearest(architecture, ARCHITECTURES)})", "labkit models")
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    yield "token_embd.weight", (s.hidden, s.vocab)
    if architecture == "bert":
        yield from _bert(s, context)
        return
    yield "output_norm.weight", (s.hidden,)
    if not s.tied_embeddings:
        yield "output.weight", (s.hidden, s.vocab)
    for n in range(s.layers):
        b = f"blk.{n}."
        yield b + "attn_norm.weight", (s.hidden,)
        if architecture == "phi3":
            yield b + "attn_qkv.weight", (s.hidden, q + 2 * kv)
        else:
            yield from ((f"{b}attn_{x}.weight", (s.hidden, width)) for x, width in (("q", q), ("k", kv), ("v", kv)))
        if s.qkv_bias:
            yield from ((f"{b}attn_{x}.bias", (width,)) for x, width in (("q", q), ("k", kv), ("v", kv)))
        if s.qk_norm:  # olmoe norms the whole projection, the others each head
            whole = architecture == "olmoe"
            yield b + "attn_q_norm.weight", (q if whole else s.head_dim,)
            yield b + "attn_k_norm.weight", (kv if whole else s.head_dim,)
        yield b + "attn_output.weight", (q, s.hidden)
        if architecture == "bitnet":
            yield b + "attn_sub_norm.weight", (s.hidden,)
            yield b + "ffn_sub_norm.weight", (s.ff,)
        if architecture in ("gemma2", "gemma3"):
            yield b + "post_attention_norm.weight", (s.hidden,)
            yield b + "post_ffw_norm.weight", (s.hidden,)
        yield b + "ffn_norm.weight", (s.hidden,)
        yield from _feed_forward(architecture, s, b)


def _feed_forward(architecture: str, s: Shape, b: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    if s.experts:
        width = s.expert_ff or s.ff
        yield b + "ffn_gate_inp.weight", (s.hidden, s.experts)
        yield b + "ffn_gate_exps.weight", (s.hidden, width, s.experts)
        yield b + "ffn_up_exps.weight", (s.hidden, width, s.experts)
        yield b + "ffn_down_exps.weight", (width, s.hidden, s.experts)
    elif architecture == "phi3":  # gate and up in one matrix
        yield b + "ffn_up.weight", (s.hidden, 2 * s.ff)
        yield b + "ffn_down.weight", (s.ff, s.hidden)
    else:
        yield b + "ffn_gate.weight", (s.hidden, s.ff)
        yield b + "ffn_up.weight", (s.hidden, s.ff)
        yield b + "ffn_down.weight", (s.ff, s.hidden)


def _bert(s: Shape, context: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_types.weight", (s.hidden, 2)
    yield "position_embd.weight", (s.hidden, context)
    norms = ["token_embd_norm"]
    for n in range(s.layers):
        b = f"blk.{n}."
        for x, shape in (
            ("attn_q", (s.hidden, s.hidden)), ("attn_k", (s.hidden, s.hidden)), ("attn_v", (s.hidden, s.hidden)),
            ("attn_output", (s.hidden, s.hidden)), ("ffn_up", (s.hidden, s.ff)), ("ffn_down", (s.ff, s.hidden)),
        ):  # fmt: skip
            yield f"{b}{x}.weight", shape
            yield f"{b}{x}.bias", shape[1:]
        norms += [f"{b}attn_output_norm", f"{b}layer_output_norm"]
    for name in norms:
        yield name + ".weight", (s.hidden,)
        yield name + ".bias", (s.hidden,)


ARCHITECTURES = (
    "llama", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3", "bitnet", "granitemoe", "olmoe", "bert"
)  # fmt: skip


def parameters(model: Model) -> int:
    """Weights of a model, from its shape."""
    return sum(_count(shape) for _, shape in tensor_shapes(model.architecture, model.shape, model.context))


def active_parameters(model: Model) -> int:
    """Weights that one token meets: in a mixture of experts only experts_used of the experts."""
    total = 0
    for name, shape in tensor_shapes(model.architecture, model.shape, model.context):
        part = _count(shape)
        if "_exps." in name and model.shape.experts and model.shape.experts_used:
            part = part * model.shape.experts_used // model.shape.experts
        total += part
    return total


def header(model: Model, type_name: str = "Q4_0") -> Gguf:
    """The header that a shape-true file of this model has, without writing it: for arithmetic on models not here."""
    if type_name not in TYPES:
        raise BadInput(f"no tensor type {type_name!r} ({nearest(type_name, TYPES)})", f"labkit models shape {model.name} --type Q4_0")
    tensors, offset = [], 0
    for name, shape in tensor_shapes(model.architecture, model.shape, model.context):
        kind = _type_of(name, shape, type_name)
        size = tensor_bytes(kind, shape)
        tensors.append(Tensor(name=name, type=kind, shape=shape, bytes=size, offset=offset))
        offset += -(-size // 32) * 32
    where = Path(f"{model.name}-{type_name}.gguf")
    return Gguf(path=where, version=3, file_bytes=offset, metadata=_metadata(model), tensors=tuple(tensors))


def write(model: Model, type_name: str = "Q4_0", folder: Path | None = None, seed: int = 0) -> ModelRef:
    """Write the file into the cache (or `folder`) unless it is there, whole or not at all.

    Raises:
        BadInput: no such type or architecture, or too little space.
    """
    if model.kind == "embedding":
        raise BadInput(f"{model.name} is an embedding model: it has no decoder to time", "labkit models")
    plan = header(model, type_name)
    folder = folder or paths.cache("shapes")
    key = hashlib.sha256(repr((plan.metadata, plan.tensors, seed, 1)).encode()).hexdigest()[:8]
    path = folder / f"{model.name}-shape-{type_name}-{key}.gguf"
    if not path.exists():
        free = shutil.disk_usage(folder).free
        if plan.file_bytes * 1.02 > free:
            need = f"{path.name} needs {plan.file_bytes / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB free"
            raise BadInput(need, "labkit cache --clean")
        with paths.atomic(path) as file:
            _write(file, plan, seed)
    return ModelRef(name=f"{model.name}-shape", path=path, format="gguf", licence="CC0-1.0")


def _write(file: Any, plan: Gguf, seed: int) -> None:
    writer = GGUFWriter(None, plan.architecture)
    for key, value in plan.metadata.items():
        if key == "general.architecture":
            continue  # the writer adds it
        kind = GGUFValueType.get_type(value) if not isinstance(value, int) or isinstance(value, bool) else GGUFValueType.UINT32
        writer.add_key_value(key, value, kind)
    for t in plan.tensors:
        writer.add_tensor_info(t.name, t.shape[::-1], np.dtype(np.float32), t.bytes, GGMLQuantizationType[t.type])
    writer.fout, writer.state = [file], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    file.write(b"\0" * (-file.tell() % 32))
    rng, blocks = np.random.default_rng(seed), {}
    for t in tqdm(plan.tensors, desc=f"writing {plan.path.name}", unit="tensor", leave=False, delay=2):
        if t.type not in blocks:
            blocks[t.type] = _random_blocks(t.type, rng)
        chunk = blocks[t.type] if not t.name.endswith("norm.weight") else np.ones(t.elements, np.float32).tobytes()
        left = t.bytes
        while left > 0:
            left -= file.write(chunk[: min(left, len(chunk))])
        file.write(b"\0" * (-t.bytes % 32))


def _random_blocks(type_name: str, rng: np.random.Generator) -> bytes:
    """About a megabyte of valid random blocks: random quants, small fixed scales (no infinities, no denormals)."""
    kind = GGMLQuantizationType[type_name]
    if type_name in ("F32", "F16", "BF16"):
        values = rng.standard_normal(_CHUNK // 4).astype(np.float32) * 0.02
        if type_name == "BF16":
            return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        return values.astype(np.float16 if type_name == "F16" else np.float32).tobytes()
    size = GGML_QUANT_SIZES[kind][1]
    data = rng.integers(0, 256, (_CHUNK // size, size), dtype=np.uint8)
    for offset in _SCALES[type_name]:
        data[:, offset : offset + 2] = np.frombuffer(np.float16(0.002).tobytes(), np.uint8)
    return data.tobytes()


def _type_of(name: str, shape: tuple[int, ...], wanted: str) -> str:
    """Norms, biases and routers stay F32; rows that do not fit the block fall back."""
    if len(shape) == 1 or "ffn_gate_inp" in name or name.startswith(("token_types", "position_embd")):
        return "F32"
    if shape[0] % GGML_QUANT_SIZES[GGMLQuantizationType[wanted]][0] == 0:
        return wanted
    second = _FALLBACK.get(wanted, "F16")
    return second if shape[0] % 32 == 0 else "F16"


def _metadata(model: Model) -> dict[str, Any]:
    s, a = model.shape, model.architecture
    out: dict[str, Any] = {
        "general.architecture": a,
        "general.name": f"{model.name} shape, random weights",
        "tokenizer.ggml.model": "no_vocab",
        f"{a}.vocab_size": s.vocab,
        f"{a}.context_length": model.context,
        f"{a}.embedding_length": s.hidden,
        f"{a}.block_count": s.layers,
        f"{a}.feed_forward_length": s.ff,
        f"{a}.attention.head_count": s.heads,
        f"{a}.attention.head_count_kv": s.kv_heads,
        f"{a}.attention.key_length": s.head_dim,
        f"{a}.attention.value_length": s.head_dim,
        f"{a}.attention.layer_norm_rms_epsilon": float(s.norm_eps),
        f"{a}.rope.freq_base": float(s.rope_theta),
        f"{a}.rope.dimension_count": s.head_dim,
    }
    if s.experts:
        out |= {f"{a}.expert_count": s.experts, f"{a}.expert_used_count": s.experts_used or 1}
        out[f"{a}.expert_feed_forward_length"] = s.expert_ff or s.ff
    if s.sliding_window:
        out[f"{a}.attention.sliding_window"] = s.sliding_window
    if a == "granitemoe":  # multipliers that its loader asks for; any value gives the true speed
        out |= {f"{a}.logit_scale": 1.0, f"{a}.embedding_scale": 1.0, f"{a}.residual_scale": 1.0, f"{a}.attention.scale": 0.1}
    return out


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total
