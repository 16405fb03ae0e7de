"""What a ladder's rows say, in words: ties, the front, a choice under a budget, and what became of a guess.

No sentence holds a figure of its own: all are made from the rows, so that they hold for any model and machine.

>>> told_choice(rows, budget=40)
'With 40 MB take Q4_0: 5 of 12 rungs fit; ...'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from labkit.learn import ladders
from labkit.measure import compare

Row = dict[str, Any]


def told_cached(*tables: Sequence[Row]) -> str:
    """How many rungs' quality came from the cache, for a caption; empty where none did."""
    rows = [row for table in tables for row in table]
    kept = sum(bool(row["cached"]) for row in rows)
    return f"; quality of {kept} of {len(rows)} rungs from an earlier run on the same files" if kept else ""


def told_contents(row: Row) -> str:
    """One file in words: 'Q4_K_M of smollm2-135m: 6.17 bits per weight. Its weights: 61% Q5_0, …'."""
    parts = ", ".join(f"{share:.0%} {name}" for name, share in row["shares"].items() if share >= 0.005)
    name = f"{row['label']} of {row['model']} (width {row['width']})"
    return f"{name}: {row['bits_per_weight']:.2f} bits per weight. Its weights: {parts}"


def told_ties(rows: Sequence[Row], figure: str) -> str:
    """Which rungs cannot be told apart by a figure, in its order: chains of neighbours that are tied."""
    name = {"kl_mean": "KL divergence", "perplexity": "perplexity"}[figure]
    ordered = sorted((row for row in rows if row[figure] is not None), key=lambda r: r[figure])
    pairs = {(a["type"], b["type"]) for a, b in compare.tied_neighbours(ordered, figure)}
    chains: list[list[str]] = []
    for before, row in zip([None, *ordered], ordered, strict=False):
        if before is not None and (before["type"], row["type"]) in pairs:
            chains[-1].append(row["label"])
        else:
            chains.append([row["label"]])
    said = [" = ".join(chain) for chain in chains]
    count = len(pairs)
    ties = "no two neighbours are tied"
    if count:
        ties = f"{count} of {len(ordered) - 1} neighbours are tied, that is closer than their error bars (=)"
    return f"By {name}, best first: {', '.join(said)}. Here {ties}."


def told_ratio(rows: Sequence[Row], kind: str, guess: float) -> str:
    """A rung's perplexity against the reference's, beside the learner's guess."""
    row, ref = ladders.named(rows, kind), ladders.reference(rows)
    if row is None or row["perplexity"] is None:
        return f"{kind} was not measured."
    ratio = row["perplexity"] / ref["perplexity"]
    said = f"{row['label']} has {ratio:.3f} times the perplexity of {ref['label']}; your guess was {guess:g}. "
    if compare.tied(row, ref, "perplexity"):
        said += "The difference between the two files is less than the error of their perplexities: by their bars they are tied. "
    else:
        said += "The difference between the two files is larger than the error bars. "
    low, high = (math.exp(row["log_ratio"] + side * compare.Z * row["log_ratio_stderr"]) for side in (-1, 1))
    return said + f"Compared token by token on the same text, the ratio lies between {low:.3f} and {high:.3f} (95 %)."


def told_within(rows: Sequence[Row], limit: float, guess: str) -> str:
    """The smallest rung within a limit of KL divergence, and what became of the guess."""
    found = compare.smallest_within([row for row in rows if row["type"] != "F16"], limit)
    said = f"No quantized rung stays within {limit:g}." if found is None else f"Smallest rung within {limit:g}: {found['label']}."
    row = ladders.named(rows, guess)
    if row is None:
        return f"{said} Your guess {guess} is not on this ladder: {', '.join(r['type'] for r in rows)}."
    low, high = compare.interval(row)
    if found is not None and row["type"] == found["type"]:
        return f"{said} That was your guess."
    where = "is within it too, but larger" if high <= limit and found else "is above it" if low > limit else "may be on either side of it"
    return f"{said} Your guess {guess} has {row['kl_mean']:.3g} ({low:.3g} to {high:.3g}): it {where}."


def told_inversions(rows: Sequence[Row]) -> str:
    """Does a rung with fewer bits lie clearly closer to the reference than one with more? In words."""
    found = compare.inversions(rows)
    if not found:
        return "More bits were never clearly worse on this ladder."
    lines = []
    for row, larger in found:
        others = ", ".join(f"{r['label']} ({r['bits_per_weight']:.2f} bits, {r['kl_mean']:.2g})" for r in larger)
        lines.append(
            f"{row['label']} ({row['bits_per_weight']:.2f} bits per weight, KL {row['kl_mean']:.2g}) is clearly closer than {others}."
        )
    return "\n".join(lines)


def told_front(rows: Sequence[Row]) -> str:
    """The Pareto front by bits and KL divergence, and which rungs that it beats are tied with one of its own."""
    front = compare.front(rows, "bits_per_weight")
    beaten = [row for row in rows if row not in front]
    near = [r["label"] for r in beaten if any(compare.tied(r, f) and f["bits_per_weight"] <= r["bits_per_weight"] for f in front)]
    said = "front from small to large: " + ", ".join(r["label"] for r in front)
    return said + (f"; not on it, yet tied in quality with a smaller one on it: {', '.join(near)}" if near else "")


def told_choice(rows: Sequence[Row], budget: float, cost: str = "memory_mb", unit: str = "MB") -> str:
    """Which rung to take under a budget, and why."""
    found = compare.choose(rows, budget, cost)
    if found is None:
        least = min(row[cost] for row in rows)
        return f"No rung fits into {budget:.0f} {unit}: the smallest takes {least:.0f} {unit}. Take a smaller model or a shorter context."
    take, best = found.take, found.best
    why = f"{len(found.fits)} of {len(rows)} rungs fit; {best['label']} has the lowest KL divergence of them ({best['kl_mean']:.3g})"
    others = [r["label"] for r in found.tied if r is not best]
    if take is not best:
        digits = 0 if best[cost] - take[cost] >= 1 else 2
        why += f", and {take['label']} is tied with it and takes less: {take[cost]:.{digits}f} instead of {best[cost]:.{digits}f} {unit}"
    elif others:
        why += f"; tied with it, and not smaller: {', '.join(others)}"
    return f"With {budget:.0f} {unit} take {take['label']}: {why}."


def told_shares(rows: Sequence[Row]) -> str:
    """What a handful of questions can say: each share with its interval, and whether any two intervals are apart."""
    lines = [
        f"{r['label']}: {r['right']} of {r['n']} right, {r['accuracy']:.0%} (95 % interval {r['low']:.0%} to {r['high']:.0%})" for r in rows
    ]
    ordered = sorted(rows, key=lambda r: r["accuracy"])
    apart = [(a["label"], b["label"]) for i, a in enumerate(ordered) for b in ordered[i + 1 :] if a["high"] < b["low"]]
    if apart:
        lines.append("Intervals that do not touch: " + "; ".join(f"{a} is below {b}" for a, b in apart) + ". All others overlap.")
    elif len(rows) > 1:
        lines.append("All intervals overlap: these questions rank none of the files.")
    # one right and one wrong answer more, so that a full score does not say that the next question must be right too
    middle = sum((r["right"] + 1) / (r["n"] + 2) for r in rows) / len(rows)
    lines.append(f"To see a difference of 2 points here takes about {compare.questions_for(0.02, middle):,} questions for each file.")
    return "\n".join(lines)


def told_closest(rows: Sequence[Row], guess: str) -> str:
    """The quantized rungs in the order of their divergence, beside the learner's guess."""
    ordered = sorted((r for r in rows if r["type"] != "F16"), key=lambda r: r["kl_mean"])
    first = ordered[0]
    tied = [r["label"] for r in ordered[1:] if compare.tied(r, first)]
    said = "Closest first: " + ", ".join(f"{r['label']} ({r['kl_mean']:.2g})" for r in ordered) + "."
    right = "That was your guess." if guess == first["type"] else f"You guessed {guess}."
    return f"{said} {right}" + (f" Tied with the first: {', '.join(tied)}." if tied else "")


def told_floor(rows: Sequence[Row]) -> str:
    """What is left of the divergence where a rung holds the source's very weights."""
    ref = ladders.reference(rows)
    row = ladders.named(rows, ref["source_type"])
    if row is None or row is ref:
        return f"The source of {ref['model']} has 16 bits: no rung below holds exactly its weights."
    return (
        f"{row['label']} is the type of the source: it holds the same weights as {ref['label']}. Yet its divergence is "
        f"{row['kl_mean']:.2g}, "
        "not 0. That is left for the arithmetic: with quantized weights llama.cpp rounds the other factor of each product to 8 bits."
    )
