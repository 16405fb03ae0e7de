"""The ledger data/claims.toml, and what was seen of a claim on this machine.

`shown` says whether what was seen here supports the ledger's truth: confirmed, refuted, or not-run where nothing
here can decide it.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from labkit.core import paths
from labkit.core.errors import BadInput, nearest
from labkit.models import catalog, footprint, shape
from labkit.models.inspect import Gguf
from labkit.quant import blocks

Shown = Literal["confirmed", "refuted", "not-run"]
_PROGRAMS = frozenset({"apt-cache", "curl", "docker", "foundry", "labkit", "llama-cli", "ollama", "python", "vllm"})


class Claim(BaseModel):
    """One statement of the ledger. `see`: a command, an address, a lab, or words on where another machine shows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    says: str
    verdict: Literal["true", "false", "outdated", "misleading", "unverified"]
    truth: str
    source: str
    see: str
    from_version: dict[str, str] = {}  # a release of the program -> what holds from it on, where that differs

    @property
    def seen_by(self) -> Literal["lab", "address", "command", "words"]:
        """What kind of thing `see` is."""
        first = self.see.split()[0]
        if first in ("lab", "labs"):
            return "lab"
        return "address" if first.startswith("https://") else "command" if first in _PROGRAMS else "words"


@functools.cache
def load() -> dict[str, Claim]:
    """All claims by id."""
    rows = tomllib.loads(paths.data("claims.toml").read_text(encoding="utf-8"))["claim"]
    return {row["id"]: Claim(**row) for row in rows}


def get(id: str) -> Claim:
    """One claim. Raises BadInput with the nearest id."""
    if id not in load():
        raise BadInput(f"no claim {id!r} in the ledger ({nearest(id, load())})", "look into data/claims.toml")
    return load()[id]


def row(id: str, shown: Shown, why: str) -> dict[str, Any]:
    """What was seen of a claim."""
    claim = get(id)
    return {"id": id, "says": claim.says, "verdict": claim.verdict, "shown": shown, "why": why}


def in_words(row: dict[str, Any]) -> str:
    """A row's result as a sentence: a claim that is false, and shown to be, reads 'your figures agree: it is false'."""
    told = "cannot be checked as it stands" if row["verdict"] == "unverified" else f"is {row['verdict']}"
    return {
        "confirmed": f"your figures agree: it {told}",
        "refuted": f"your figures disagree; the ledger says that it {told}",
        "not-run": "your figures cannot decide",
    }[row["shown"]]


def rule_factor(header: Gguf) -> float:
    """What the rule of `memory-is-size-times-two` says for a file: 2 at 16 bits a weight, 1.5 at 8, 1.2 at 4."""
    bits = header.bits_per_weight
    return 2.0 if bits > 12 else 1.5 if bits > 7 else 1.2


def savings(bits_per_weight: Callable[[str], float] = blocks.bits_per_weight) -> dict[str, Any]:
    """`quant-q4-75-percent`: what a format saves against F16, from the block sizes."""
    sizes = {name: 1 - bits_per_weight(name) / bits_per_weight("F16") for name in ("Q4_0", "Q8_0", "Q5_1")}
    said = {"Q4_0": 0.75, "Q8_0": 0.50, "Q5_1": 0.70}
    wrong = [name for name in said if abs(sizes[name] - said[name]) > 0.005]
    shown: Shown = "confirmed" if wrong else "refuted"
    why = ", ".join(f"{name} saves {sizes[name]:.1%}, not {said[name]:.0%}" for name in wrong) or "all three save what is said"
    return row("quant-q4-75-percent", shown, why)


def size_times_two(header: Gguf, measured: Sequence[dict[str, Any]], factor: float) -> dict[str, Any]:
    """`memory-is-size-times-two`: is the measured memory the same multiple of the file at every context?

    `measured`: rows with `context` and `measured_bytes`; `factor`: what the rule says for this file's type.
    """
    ratios = [r["measured_bytes"] / header.tensor_bytes for r in measured]
    if len({r["context"] for r in measured}) < 2:
        return row("memory-is-size-times-two", "not-run", "it takes two context lengths to see it")
    apart = max(ratios) / min(ratios) > 1.15 or any(abs(ratio - factor) / factor > 0.15 for ratio in ratios)
    why = f"measured {min(ratios):.2f} to {max(ratios):.2f} times the weights as the context grows, the rule says {factor:g}"
    return row("memory-is-size-times-two", "confirmed" if apart else "refuted", why)


def phi_on_a_small_gpu(gigabytes: float = 6.0) -> dict[str, Any]:
    """`phi4-mini-vram`: do Phi-4-mini's 16-bit weights fit a GPU of that size?"""
    model = catalog.get("phi-4-mini")
    header = shape.header(model, "BF16")
    weights, cache = header.tensor_bytes / 1e9, footprint.kv_cache_bytes(header, 32768) / 2**30
    why = f"bf16 weights {weights:.2f} GB, and {cache:.1f} GiB of KV cache at 32K, against {gigabytes:g} GB"
    return row("phi4-mini-vram", "confirmed" if weights > gigabytes else "refuted", why)


def tokens_per_second(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`framework-throughput-table`: one number for a framework, or does it depend on the model? From rates measured here."""
    rates = [r["decode_tokens_per_s"] for r in rows if r.get("decode_tokens_per_s")]
    if len(rates) < 2:
        return row("framework-throughput-table", "not-run", "it takes two models to see it")
    why = f"the same engine on the same machine gave {min(rates):.3g} to {max(rates):.3g} tokens/s, by model alone"
    return row("framework-throughput-table", "confirmed" if max(rates) / min(rates) > 1.5 else "refuted", why)
