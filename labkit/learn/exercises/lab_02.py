"""The exercises of lab 02: the size of weights and cache, the ceiling of decode, and a choice under limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labkit.learn.check import Exercise, Part, Wrong, close, likely_mistake

_BITS = "Your result is in bits. Eight bits make a byte: divide by 8."


# -- the weights


def _weights(answer: Any, rng: Any) -> str | None:
    parameters, bits = int(rng.integers(10**8, 9 * 10**9)), float(rng.choice([4.5, 5.5, 6.5625, 8.5, 16.0]))
    likely = {
        8.0: _BITS,
        1 / 1e9: "That is gigabytes. The answer is wanted in bytes: do not divide by a billion.",
        1 / 1e6: "That is megabytes. The answer is wanted in bytes: do not divide by a million.",
        16 / bits: "That is the size at 16 bits a weight. Use bits_per_weight.",
        8.0 / bits: "That counts one byte a weight. Multiply by bits_per_weight and divide by 8.",
    }
    return likely_mistake(
        answer(parameters, bits), parameters * bits / 8, "Multiply the weights by their bits, and divide by 8.", factors=likely
    )


weights_bytes = Exercise(
    "weights_bytes",
    "The bytes of the weights",
    (Part(1, "some models and formats", _weights),),
    (
        Wrong("return parameters * bits_per_weight", "divide by 8", "forgets that eight bits make a byte"),
        Wrong("return parameters * 2", "16 bits", "takes every model for a 16-bit one"),
        Wrong("return parameters * bits_per_weight / 8 / 1e9", "gigabytes", "answers in another unit"),
        Wrong("return parameters", "one byte a weight", "counts a byte for each weight"),
    ),
)


# -- the KV cache


def _cache(bits: float) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        layers, kv_heads, head_dim = int(rng.integers(12, 60)), int(rng.integers(3, 12)), int(rng.choice([64, 96, 128, 256]))
        right = 2 * layers * kv_heads * head_dim * bits / 8
        likely = {
            0.5: "A token leaves a key and a value in each layer: that is twice as much.",
            8.0: _BITS,
            1 / layers: "That is one layer's share. Every layer keeps its own keys and values.",
            1 / kv_heads: "That is one head's share. Multiply by the number of KV heads.",
            16 / bits: "That holds for a 16-bit cache only. Use bits.",
        }
        given = answer(layers, kv_heads, head_dim, bits)
        return likely_mistake(given, right, "Multiply: key and value, layers, KV heads, numbers a head, bits; divide by 8.", factors=likely)

    return test


kv_bytes_per_token = Exercise(
    "kv_bytes_per_token",
    "What a token costs in the KV cache",
    (Part(1, "an f16 cache", _cache(16)), Part(1, "a q8_0 cache", _cache(8.5))),
    (
        Wrong("return layers * kv_heads * head_dim * bits / 8", "a key and a value", "counts the keys and forgets the values"),
        Wrong("return 2 * kv_heads * head_dim * bits / 8", "Every layer", "counts one layer"),
        Wrong("return 2 * layers * kv_heads * head_dim * bits", "divide by 8", "answers in bits"),
        Wrong("return 2 * layers * kv_heads * head_dim * 2", "16-bit cache only", "ignores the cache's type"),
    ),
)


# -- the ceiling of decode


def _ceiling(sparse: bool, cached: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        bandwidth, weights = float(rng.uniform(5e9, 9e10)), int(rng.integers(10**8, 6 * 10**9))
        share = float(rng.uniform(0.1, 0.6)) if sparse else 1.0
        cache = int(rng.integers(10**7, 10**9)) if cached else 0
        given, right = answer(bandwidth, weights, share, cache), bandwidth / (weights * share + cache)
        for value, hint in (
            (bandwidth / (weights + cache), "All weights are stored, but one token reads only active_share of them."),
            (bandwidth / (weights * share), "A token also reads the KV cache so far: add it to what is read."),
            (bandwidth / weights, "A token reads the active share of the weights, and the KV cache so far."),
            (bandwidth / ((weights + cache) * share), "The share holds for the weights only: the KV cache is read as a whole."),
            (1 / right, "That is seconds per token. The answer is wanted in tokens per second: bandwidth goes on top."),
            (bandwidth * share / weights + cache, "The cache is read as well: it belongs below the line, beside the weights."),
        ):
            if close(given, value) and not close(given, right):
                return hint
        return None if close(given, right) else "Bandwidth divided by the bytes that one token reads."

    return test


decode_ceiling = Exercise(
    "decode_ceiling",
    "The ceiling of decode",
    (Part(1, "a dense model with a KV cache", _ceiling(False, True)), Part(1, "a mixture of experts", _ceiling(True, True))),
    (
        Wrong("return bandwidth_bytes_per_s / (stored_bytes + kv_cache_bytes)", "only active_share", "reads all experts for each token"),
        Wrong("return bandwidth_bytes_per_s / (stored_bytes * active_share)", "KV cache so far", "forgets the cache"),
        Wrong("return (stored_bytes * active_share + kv_cache_bytes) / bandwidth_bytes_per_s", "seconds per token", "turns it over"),
        Wrong(
            "return bandwidth_bytes_per_s / ((stored_bytes + kv_cache_bytes) * active_share)",
            "weights only",
            "applies the share to the cache too",
        ),
    ),
)


# -- the choice

_LICENCES = ("Apache-2.0", "MIT", "Gemma Terms of Use", "Llama 3.2 Community License")


def _rows(rng: Any) -> list[dict[str, Any]]:
    """Models that differ in all five columns; no two have the same quality."""
    quality = rng.permutation(range(30, 80))[:12]
    return [
        {
            "name": f"model-{chr(97 + n)}",
            "memory_gb": round(float(rng.uniform(0.5, 8)), 2),
            "context": int(rng.choice([4096, 8192, 32768, 131072])),
            "tokens_per_s": round(float(rng.uniform(2, 40)), 1),
            "quality": float(q),
            "licence": str(rng.choice(_LICENCES)),
        }
        for n, q in enumerate(quality)
    ]


def _limits(rows: list[dict[str, Any]], rng: Any) -> dict[str, Any]:
    """Limits that some row meets exactly, so that 'at most' and 'at least' are tried at their edges."""
    kept = rows[int(rng.integers(len(rows)))]
    return {
        "memory_gb": kept["memory_gb"],
        "context": kept["context"],
        "tokens_per_s": kept["tokens_per_s"],
        "licences": [kept["licence"], "MIT"],
    }


def _best(rows: list[dict[str, Any]], limits: dict[str, Any], without: str = "") -> str:
    tests = {
        "memory_gb": lambda r: r["memory_gb"] <= limits["memory_gb"],
        "context": lambda r: r["context"] >= limits["context"],
        "tokens_per_s": lambda r: r["tokens_per_s"] >= limits["tokens_per_s"],
        "licences": lambda r: r["licence"] in limits["licences"],
    }
    fits = [r for r in rows if all(test(r) for name, test in tests.items() if name != without)]
    return str(max(fits, key=lambda r: r["quality"])["name"]) if fits else "none"


_FORGOTTEN = {
    "memory_gb": "The model you chose needs too much memory.",
    "context": "The model you chose offers too little context.",
    "tokens_per_s": "The model you chose is too slow.",
    "licences": "The licence of the model you chose is not among those allowed.",
}


def _chosen(answer: Any, rng: Any) -> str | None:
    rows = _rows(rng)
    limits = _limits(rows, rng)
    given, right = answer([dict(r) for r in rows], **limits), _best(rows, limits)
    if given == right:
        return None
    named = {r["name"]: r for r in rows}
    if isinstance(given, dict):
        return "Return the name of the model, not its whole row."
    if given not in named:
        return "Some model is allowed here: 'at most' and 'at least' include the limit itself."
    row = named[given]
    for name, broken in (
        ("memory_gb", row["memory_gb"] > limits["memory_gb"]),
        ("context", row["context"] < limits["context"]),
        ("tokens_per_s", row["tokens_per_s"] < limits["tokens_per_s"]),
        ("licences", row["licence"] not in limits["licences"]),
    ):
        if broken:
            return _FORGOTTEN[name]
    return "It is allowed, but another allowed model has a higher quality."


def _nothing_fits(answer: Any, rng: Any) -> str | None:
    rows = _rows(rng)
    limits = _limits(rows, rng) | {"memory_gb": 0.1}
    return None if answer([dict(r) for r in rows], **limits) == "none" else 'Nothing is allowed here: return "none".'


choose = Exercise(
    "choose",
    "The best model within limits",
    (Part(2, "some model fits", _chosen), Part(1, "nothing fits", _nothing_fits)),
    (
        Wrong('return max(rows, key=lambda r: r["quality"])["name"]', "The model you chose", "takes the best and ignores every limit"),
        Wrong(
            'fits = [r for r in rows if r["memory_gb"] <= memory_gb and r["context"] >= context and r["tokens_per_s"] >= tokens_per_s]\n'
            'return max(fits, key=lambda r: r["quality"])["name"] if fits else "none"',
            "licence",
            "forgets the licence",
        ),
        Wrong(
            'fits = [r for r in rows if r["memory_gb"] < memory_gb and r["context"] > context]\n'
            'fits = [r for r in fits if r["tokens_per_s"] > tokens_per_s and r["licence"] in licences]\n'
            'return max(fits, key=lambda r: r["quality"])["name"] if fits else "none"',
            "include the limit itself",
            "leaves out what meets a limit exactly",
        ),
        Wrong(
            'fits = [r for r in rows if r["memory_gb"] <= memory_gb and r["context"] >= context]\n'
            'fits = [r for r in fits if r["tokens_per_s"] >= tokens_per_s and r["licence"] in licences]\n'
            'return min(fits, key=lambda r: r["memory_gb"])["name"] if fits else "none"',
            "higher quality",
            "takes the smallest instead of the best",
        ),
    ),
)
