"""The well-known table of Ollama against Foundry Local, decided by the rows of a fair comparison and by claims checked live.

data/feature_table.toml says, for each aspect and each side, what is said and what decides it. A function here looks at the
rows of lab 12's steps, by the step's name: `compare` (`versus.figures`), `start` (`versus_start.fresh`), `parallel`
(`versus_parallel.throughput`), `quality` (`versus_quality.rows`); a claim's row (`claims.row`) decides where an id is named.

>>> table({"compare": [], "claims": []})[0]["ollama_shown"]
'not decided here'
"""

from __future__ import annotations

import functools
import itertools
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from labkit.core import paths
from labkit.measure import compare

Rows = Sequence[Mapping[str, Any]]
Evidence = Mapping[str, Rows]
Seen = tuple[bool | None, str]  # does the statement hold (None: it cannot be decided), and the figures
Shown = Literal["holds", "holds in part", "does not hold", "not decided here", "no run-time test"]

CLEARLY = 1.1  # a difference of less than a tenth is none: machines drift
_SIDES = ("ollama", "foundry")
_NONE = "not measured here"


class Side(BaseModel):
    """What is said of one program, and what decides it: exactly one of `claim`, `rows` and `none`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    says: str
    claim: str | None = None
    rows: str | None = None
    steps: tuple[str, ...] = ()
    none: str | None = None
    beyond: str = ""  # what the statement says, too, and no row of one machine shows: what holds then holds in part

    @model_validator(mode="after")
    def _one_way(self) -> Side:
        if sum(way is not None for way in (self.claim, self.rows, self.none)) != 1 or bool(self.steps) != bool(self.rows):
            raise ValueError("give exactly one of claim, rows (with its steps) and none")
        return self


class Feature(BaseModel):
    """One row of the table; a side of which nothing is said is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    aspect: str
    ollama: Side | None = None
    foundry: Side | None = None

    def sides(self) -> list[tuple[str, Side]]:
        return [(name, side) for name in _SIDES if (side := getattr(self, name))]


@functools.cache
def features() -> tuple[Feature, ...]:
    """The rows of the table, in its order."""
    return tuple(Feature(**row) for row in tomllib.loads(paths.data("feature_table.toml").read_text(encoding="utf-8"))["row"])


def claim_ids() -> list[str]:
    """The claims that the table wants checked."""
    return list(dict.fromkeys(side.claim for feature in features() for _, side in feature.sides() if side.claim))


def table(evidence: Evidence) -> list[dict[str, Any]]:
    """The table with what was seen: `aspect`, and for each side `says`, `shown`, `why` and `by` what; "–" where nothing is said."""
    rows = []
    for feature in features():
        row: dict[str, Any] = {"aspect": feature.aspect}
        for name in _SIDES:
            side = getattr(feature, name)
            shown, why, by = decide(side, evidence) if side else ("–", "", "")
            row |= {f"{name}_says": side.says if side else "–", f"{name}_shown": shown, f"{name}_why": why, f"{name}_by": by}
        rows.append(row)
    return rows


def decide(side: Side, evidence: Evidence) -> tuple[Shown, str, str]:
    """(does it hold, the figures, by what) of one side."""
    if side.none:
        return "no run-time test", side.none, "terms cited" if "terms cited" in side.none else "not by a run"
    if side.claim:
        found = next((row for row in evidence.get("claims", ()) if row["id"] == side.claim), None)
        return by_claim(found) if found else "not decided here", str(found["why"]) if found else "not checked", f"claim {side.claim}"
    said, why = DECIDERS[side.rows or ""](evidence)
    by = f"step {' and '.join(side.steps)}"
    return ("holds in part", f"{why}; {side.beyond}", by) if said and side.beyond else (_word(said), why, by)


def by_claim(row: Mapping[str, Any]) -> Shown:
    """Does what is said hold? The ledger's verdict, where what was seen supports it; else the other way round."""
    if row["shown"] == "not-run" or row["verdict"] == "unverified":
        return "not decided here"
    if row["shown"] == "confirmed":
        return {"true": "holds", "misleading": "holds in part"}.get(row["verdict"], "does not hold")  # type: ignore[return-value]
    return "does not hold" if row["verdict"] == "true" else "holds"


def _word(said: bool | None) -> Shown:
    return "not decided here" if said is None else "holds" if said else "does not hold"


# -- the deciding functions


def _of(rows: Iterable[Mapping[str, Any]], engine: str, key: str) -> float | None:
    return next((row[key] for row in rows if row["engine"] == engine and row.get(key) is not None), None)


def ollama_on_processor(evidence: Evidence) -> Seen:
    """Did Ollama give tokens on this machine's processor, at a rate that is of use (a tenth of the best one's)?"""
    rates = {row["engine"]: row["decode_tokens_per_s"] for row in evidence.get("compare", ()) if row["decode_tokens_per_s"]}
    if "ollama" not in rates or len(rates) < 2:
        return None, _NONE
    best = max(rates.values())
    why = f"{rates['ollama']:.0f} tokens/s on this processor, the best engine {best:.0f}"
    return rates["ollama"] > best / 10, why


def ollama_is_fastest(evidence: Evidence) -> Seen:
    """Is no other engine clearly faster? Clearly: its whole interval above Ollama's, and a tenth more."""
    rows = [row for row in evidence.get("compare", ()) if row["decode_tokens_per_s"]]
    mine = next((row for row in rows if row["engine"] == "ollama"), None)
    if mine is None or len(rows) < 2:
        return None, _NONE
    key = "decode_tokens_per_s"
    ahead = [row for row in rows if row[f"{key}_low"] > mine[f"{key}_high"] and row[key] > CLEARLY * mine[key]]
    rates = ", ".join(f"{row['engine']} {row[key]:.0f}" for row in rows)
    return not ahead, f"decode, tokens/s: {rates}" + (f"; clearly faster: {', '.join(row['engine'] for row in ahead)}" if ahead else "")


def _least(evidence: Evidence, key: str, unit: str, scale: float, margin: float) -> Seen:
    """Ollama's figure against those of the programs with a server; what runs inside another program is only named."""
    rows = [row for row in evidence.get("start", ()) if row.get(key) is not None]
    served = {row["engine"]: row[key] for row in rows if row["includes_http"]}
    if "ollama" not in served or len(served) < 2:
        return None, _NONE
    told: dict[bool, list[str]] = {True: [], False: []}
    for row in rows:
        told[row["includes_http"]].append(f"{row['engine']} {row[key] / scale:.3g} {unit}")
    why = f"judged among the servers: {', '.join(told[True])}" + (f"; in process: {', '.join(told[False])}" if told[False] else "")
    return served["ollama"] <= margin * min(served.values()), why


def ollama_starts_fast(evidence: Evidence) -> Seen:
    """From nothing to the first token: within half as much again as the quickest program with a server?"""
    return _least(evidence, "first_token_s", "s", 1.0, 1.5)


def ollama_is_small(evidence: Evidence) -> Seen:
    """Memory after an answer, server included: within a tenth of the smallest program with a server?"""
    return _least(evidence, "memory_bytes", "MB", 1e6, CLEARLY)


def foundry_scales(evidence: Evidence) -> Seen:
    """Does Foundry Local give twice as many tokens in all when asked most at once as when asked one by one?"""
    rates: dict[int, list[float]] = {}
    for row in evidence.get("parallel", ()):
        if row["engine"] == "foundry":
            rates.setdefault(row["parallel"], []).append(row["tokens_per_s"])
    if len(rates) < 2 or min(rates) != 1:
        return None, _NONE
    one, most = max(rates[1]), max(rates[max(rates)])
    return most >= 2 * one, f"{one:.0f} tokens/s in all with one request at a time, {most:.0f} with {max(rates)} at once"


def _equal_size(evidence: Evidence) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The ONNX folder and the GGUF file that are nearest to each other in size; None where none are within a quarter."""
    rows = [row for row in evidence.get("quality", ()) if row.get("kl_mean") is not None]
    folders, rungs = ([row for row in rows if (row["format"] == "gguf") is gguf] for gguf in (False, True))
    near = min(itertools.product(folders, rungs), key=_times, default=None)
    return near if near and _times(near) < 1.25 else None


def _times(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> float:
    sizes = sorted(row["bytes"] for row in pair)
    return float(sizes[1] / sizes[0])


def _keeps_quality(evidence: Evidence, gguf: bool) -> Seen:
    pair = _equal_size(evidence)
    if pair is None:
        return None, "no two files of about the same size were read"
    mine, other = pair[::-1] if gguf else pair
    why = "; ".join(f"{row['name']}: {row['bytes'] / 1e6:.0f} MB, KL {row['kl_mean']:.4f} ± {1.96 * row['kl_stderr']:.4f}" for row in pair)
    return compare.tied(mine, other) or mine["kl_mean"] < other["kl_mean"], why


def gguf_keeps_quality(evidence: Evidence) -> Seen:
    """At about equal size: is the GGUF rung's divergence no larger than that of the ONNX file, within the error?"""
    return _keeps_quality(evidence, gguf=True)


def onnx_keeps_quality(evidence: Evidence) -> Seen:
    """And the other way round."""
    return _keeps_quality(evidence, gguf=False)


def _both(ours: Sequence[tuple[str, float | None, float | None]]) -> Seen:
    """(name, our figure, theirs), less is better: ahead in all, behind in all, or split (None)."""
    known = [(name, a, b) for name, a, b in ours if a is not None and b is not None]
    if len(known) < len(ours):
        return None, _NONE
    ahead = [a < b for _, a, b in known]
    why = ", ".join(f"{name} {'less' if a < b else 'not less'} than the other's" for name, a, b in known)
    return (True if all(ahead) else False if not any(ahead) else None), why + ("" if len(set(ahead)) == 1 else ": no clear winner")


def choose_ollama(evidence: Evidence) -> Seen:
    """For a small budget: does Ollama take less memory than Foundry Local, and less time to the first token from nothing?"""
    rows = evidence.get("start", ())
    keys = (("memory", "memory_bytes"), ("time from nothing", "first_token_s"))
    return _both([(name, _of(rows, "ollama", key), _of(rows, "foundry", key)) for name, key in keys])


def choose_foundry(evidence: Evidence) -> Seen:
    """For strict performance: has Foundry Local a shorter time per token than Ollama, and more throughput with most requests at once?"""
    rates: dict[str, dict[int, float]] = {}
    for row in evidence.get("parallel", ()):
        rates.setdefault(row["engine"], {})[row["parallel"]] = row["tokens_per_s"]
    most = {name: found[max(found)] for name, found in rates.items()}
    per_token = {name: 1 / most[name] if name in most else None for name in ("foundry", "ollama")}
    times = {name: _of(evidence.get("compare", ()), name, "tpot_s") for name in ("foundry", "ollama")}
    return _both(
        [
            ("time per token", times["foundry"], times["ollama"]),
            ("time per token with most requests at once", per_token["foundry"], per_token["ollama"]),
        ]
    )


DECIDERS: dict[str, Callable[[Evidence], Seen]] = {
    one.__name__: one
    for one in (
        ollama_on_processor, ollama_is_fastest, ollama_starts_fast, ollama_is_small, foundry_scales, gguf_keeps_quality,
        onnx_keeps_quality, choose_ollama, choose_foundry,
    )
}  # fmt: skip


def break_even_tokens(fee_per_million: float, hardware: float, watts: float, price_per_kwh: float, tokens_per_s: float) -> float | None:
    """After how many output tokens have saved fees paid for the hardware? None: never, since a token's electricity costs more.

    fee_per_million: of a cloud's output tokens; all prices in one currency. Left out: staff, idle hours, repair, and that
    the two models may not be equally good.
    """
    electricity = watts / tokens_per_s / 3.6e6 * price_per_kwh  # joules a token -> kWh -> money
    saved = fee_per_million / 1e6 - electricity
    return hardware / saved if saved > 0 else None
