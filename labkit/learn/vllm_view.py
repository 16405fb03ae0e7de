"""What lab 18 says of its rows: groups, medians, sentences, and the verdict on a table that others published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from labkit.facts import claims
from labkit.learn import vllm_metrics as metrics
from labkit.learn import vllm_sums as sums

Row = Mapping[str, Any]
Rows = list[dict[str, Any]]
KINDS = {"same": "same beginning", "cache_salt": "a cache_salt\nof its own", "other": "other\nfirst words"}


def by(rows: Sequence[Row], key: str) -> dict[Any, list[Row]]:
    """Rows in groups, in the order in which they first come."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


def median(rows: Sequence[Row], key: str) -> float:
    """Of a column; unknown values are left out."""
    return float(np.median([row[key] for row in rows if row[key] is not None]))


def best(rows: Sequence[Row]) -> tuple[int, float]:
    """(clients, tokens a second) of the level with the largest median."""
    found = {clients: median(some, "tokens_per_s") for clients, some in by(rows, "clients").items()}
    clients = max(found, key=lambda n: found[n])
    return clients, found[clients]


def computed(rows: Sequence[Row]) -> float:
    """Tokens a second that the runs' TTFT and TPOT come to."""
    first = rows[0]
    return sums.tokens_per_s(first["clients"], median(rows, "ttft_s"), median(rows, "tpot_s"), first["tokens_each"])


def told_batching(rows: Sequence[Row]) -> list[str]:
    """What more clients gave, and what each of them paid."""
    groups = by(rows, "clients")
    low, high = min(groups), max(groups)
    gain = median(groups[high], "tokens_per_s") / median(groups[low], "tokens_per_s")
    price = median(groups[high], "tpot_s") / median(groups[low], "tpot_s")
    wait = median(groups[high], "ttft_s") / median(groups[low], "ttft_s")
    return [
        f"{high} clients instead of {low}: {gain:.1f} times as many tokens per second in all",
        f"each of them: {price:.1f} times as long for a token, {wait:.1f} times as long until the first one",
    ]


def told_prefix(rows: Sequence[Row]) -> list[str]:
    """How much sooner the first token came, and whether arithmetic, usage and counters agree."""
    kinds = by(rows, "kind")
    pairs = [a["ttft_s"] / b["ttft_s"] for a, b in zip(kinds["cache_salt"], kinds["same"], strict=True)]
    counted = sum(row["hits"] for row in rows)
    expected = sum(row["predicted_tokens"] for row in rows)
    said = [row["usage_cached_tokens"] for row in rows]
    usage = "not told" if any(one is None for one in said) else f"{sum(said):,}"
    return [
        f"without the cache the first token takes {np.median(pairs):.1f} times as long (median of {len(pairs)} pairs)",
        f"tokens from the cache: computed {expected:,}, by the counter {counted:,.0f}, by the answers' usage {usage}",
    ]


def told_bracket(rows: Sequence[Row]) -> list[str]:
    """The change against the noise: how far the two outer servers, which have the same setting, lie apart."""
    rates = [median(some, "tokens_per_s") for some in by(rows, "turn").values()]
    first, changed, again = rates
    noise, effect = abs(again / first - 1), changed / ((first + again) / 2) - 1
    verdict = "more than the noise" if abs(effect) > 2 * noise else "not clearly more than the noise: measure again, with more runs"
    return [
        f"the two servers with the same setting: {first:.0f} and {again:.0f} tokens/s, {noise:.0%} apart. That is the noise.",
        f"the one in between: {changed:.0f} tokens/s, {effect:+.0%} against their mean: {verdict}",
    ]


def p95_rows(rows: Sequence[Row]) -> Rows:
    """TTFT's p95 by the client and out of the server's buckets, for each rate; n is the number of requests."""
    return [
        {
            "rate (requests/s)": round(row["rate"], 2),
            "n": row["requests"],
            "client, p95 (s)": row["ttft_p95_s"],
            "buckets, p95 (s)": sums.quantile(metrics.from_rows(row["ttft_buckets"]), 0.95),
            "longest queue seen": row["most_waiting"],
        }
        for row in rows
    ]


def table_rows(rows: Sequence[Row]) -> Rows:
    """vLLM's throughput over llama.cpp's: what the published table says, and what was measured here, by number of clients.

    llama-server stands for Ollama, which computes with the same library; its faster file counts.
    """
    said: Rows = [
        {"where": "published, GPU", "clients": "not said", "vLLM : Ollama": 25 / 20},
        {"where": "published, CPU", "clients": "not said", "vLLM : Ollama": 8 / 12},
    ]
    for clients, some in by(rows, "clients").items():
        sides = {name: median(mine, "tokens_per_s") for name, mine in by(some, "server").items()}
        mine = next(rate for name, rate in sides.items() if name.startswith("vLLM"))
        for name, rate in sides.items():
            if not name.startswith("vLLM"):
                said.append({"where": f"here, against {name}", "clients": clients, "vLLM : Ollama": mine / rate})
    return said


def table_claim(rows: Sequence[Row]) -> dict[str, Any]:
    """`framework-throughput-table`: one ratio for two programs, or does it depend on how many ask and on the file?"""
    ratios = [row["vLLM : Ollama"] for row in table_rows(rows) if row["clients"] != "not said"]
    why = f"vLLM's throughput over llama-server's here: {min(ratios):.2f} to {max(ratios):.2f}, by the number of clients and the file"
    return claims.row("framework-throughput-table", "confirmed" if max(ratios) / min(ratios) > 1.5 else "refuted", why)
