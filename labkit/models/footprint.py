"""How much memory will a model take? Weights + KV cache + compute buffers, from the shape in its header.

A model of llama.cpp on a CPU. Each part is a formula whose source is named; labs measure the rest and show it.

>>> footprint.predict(inspect.read(path), context=2048).total_bytes
"""

from __future__ import annotations

from pydantic import computed_field

from labkit.core import machine
from labkit.core.errors import BadInput
from labkit.core.records import Record
from labkit.models.inspect import Gguf

# bits a KV cache value takes; q8_0 keeps one half-precision scale for 32 values
KV_BITS = {"f16": 16.0, "q8_0": 8.5}
# every n-th layer of these sees the whole context (llama.cpp src/models/*.cpp, load_swa_pattern)
_WINDOW_PATTERN = {"gemma2": 2, "gemma3": 6}
# types that ggml copies into an interleaved layout for this CPU (ggml-cpu/repack.cpp)
_REPACK_X86 = {"avx2": ("Q4_0", "Q4_K", "IQ4_NL", "MXFP4"), "avx512f": ("Q2_K",)}
_REPACK_ARM = {"asimddp": ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4")}
_RUNTIME_BYTES = 6 << 20  # graphs, work buffers and allocator slack: measured once on shape-true models
_TOKEN_BYTES = {True: 240, False: 40}  # a vocabulary entry in llama.cpp's tables, with and without its text


class Footprint(Record):
    """Bytes of memory of one loaded model."""

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    repacked_bytes: int = 0
    context: int
    kv: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total_bytes(self) -> int:
        """weights (repacked copies included) + KV cache + compute."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes


def predict(header: Gguf, context: int = 2048, kv: str = "f16", ubatch: int = 512, isa: frozenset[str] | None = None) -> Footprint:
    """The arithmetic for one model, context length and KV cache type ("f16" or "q8_0")."""
    isa = frozenset(machine.fingerprint()["isa"]) if isa is None else isa
    repacked = repacked_bytes(header, isa)
    return Footprint(
        weights_bytes=header.tensor_bytes + repacked,
        repacked_bytes=repacked,
        kv_cache_bytes=kv_cache_bytes(header, context, kv, ubatch),
        compute_bytes=compute_bytes(header, context, ubatch),
        context=context,
        kv=kv,
    )


def kv_bytes_per_token(header: Gguf, kv: str = "f16") -> float:
    """Growth of the cache with each token while no window is full: sum over layers of (K + V values) x bits / 8."""
    return sum(_kv_values(header)) * KV_BITS[kv] / 8


def kv_cache_bytes(header: Gguf, context: int, kv: str = "f16", ubatch: int = 512) -> int:
    """The whole cache, which llama.cpp allocates and clears when the context is made.

    A layer with a sliding window keeps only window + ubatch cells, rounded up to 256 (llama-kv-cache-iswa.cpp).
    """
    if kv not in KV_BITS:
        raise BadInput(f"no KV cache type {kv!r}, known: {', '.join(KV_BITS)}", "--kv f16")
    cells, window = _pad(context), sliding_window(header)
    short = min(cells, _pad(window + ubatch)) if window else cells
    every = _WINDOW_PATTERN.get(header.architecture, 1)
    total = 0.0
    for layer, values in enumerate(_kv_values(header)):
        full = not window or layer % every == every - 1
        total += values * (cells if full else short) * KV_BITS[kv] / 8
    return int(total)


def sliding_window(header: Gguf) -> int:
    """Tokens that a windowed layer looks back, 0 where the architecture has none in llama.cpp."""
    if header.architecture not in _WINDOW_PATTERN:
        return 0
    return int(header.value("attention.sliding_window", 4096 if header.architecture == "gemma2" else 0) or 0)


def compute_bytes(header: Gguf, context: int, ubatch: int = 512) -> int:
    """Activations of one step of `ubatch` tokens, its attention mask, one row of logits, and what the library itself needs.

    The widest point of a layer holds three feed-forward rows and four hidden rows a token at once (read off the
    buffers that llama.cpp reserves; they agree to 5 % on the catalogue's families).
    """
    hidden = int(header.value("embedding_length", 0) or 0)
    per_token = 4 * (3 * _ff(header) + 4 * hidden)
    masks = 2 if sliding_window(header) else 1
    rows = vocabulary(header)
    logits, tables = 4 * rows, _TOKEN_BYTES[header.has_vocabulary] * rows
    return ubatch * (per_token + masks * 2 * _pad(context)) + logits + tables + _RUNTIME_BYTES


def repacked_bytes(header: Gguf, isa: frozenset[str]) -> int:
    """Bytes of matrices that ggml keeps a second, interleaved copy of, beside the pages of the mapped file.

    Only matrices that are multiplied: the token embedding counts where it is also the output matrix.
    """
    tables = (_REPACK_X86, _REPACK_ARM)
    types = {t for table in tables for flag, names in table.items() if flag in isa for t in names}
    tied = not any(t.name == "output.weight" for t in header.tensors)
    return sum(
        t.bytes
        for t in header.tensors
        if t.type in types and len(t.shape) >= 2 and t.shape[1] % 8 == 0 and (t.name != "token_embd.weight" or tied)
    )


def vocabulary(header: Gguf) -> int:
    """Rows of the token embedding."""
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight" and len(tensor.shape) > 1:
            return tensor.shape[1]
    return int(header.value("vocab_size", 0) or 0)


def check_fits(header: Gguf, context: int, kv: str, ubatch: int) -> None:
    """Raises BadInput, before anything is loaded, where the prediction exceeds the memory that is free."""
    need, free = predict(header, context, kv, ubatch).total_bytes, machine.memory_available_bytes()
    if need > free:
        smaller = max(256, context // 4)
        raise BadInput(
            f"{header.path.name} needs about {need / 2**30:.2f} GiB with a context of {context}, {free / 2**30:.2f} GiB are free",
            f"labkit footprint {header.path} --context {smaller}, or a smaller model",
        )


def _kv_values(header: Gguf) -> list[int]:
    """K and V values a token adds, layer by layer."""
    layers = int(header.value("block_count", 0) or 0)
    heads = _per_layer(header.value("attention.head_count", 0), layers)
    kv_heads = _per_layer(header.value("attention.head_count_kv", header.value("attention.head_count", 0)), layers)
    hidden = int(header.value("embedding_length", 0) or 0)
    key, value = header.value("attention.key_length"), header.value("attention.value_length")
    return [n_kv * ((key or hidden // max(n, 1)) + (value or hidden // max(n, 1))) for n, n_kv in zip(heads, kv_heads, strict=True)]


def _ff(header: Gguf) -> int:
    """Feed-forward width that one token meets: experts_used x expert width in a mixture of experts."""
    used, width = header.value("expert_used_count", 0), header.value("expert_feed_forward_length", 0)
    if used and width:
        return int(used * width)
    lengths = _per_layer(header.value("feed_forward_length", 0), 1)
    return max(lengths, default=0)


def _per_layer(value: object, layers: int) -> list[int]:
    if isinstance(value, list):
        return [int(v) for v in value]
    return [int(value) if isinstance(value, int) else 0] * layers


def _pad(tokens: int) -> int:
    return -(-tokens // 256) * 256
