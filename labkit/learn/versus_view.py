"""What lab 12 measures and says: a contest of engines on one model, and the decision table that its rows fill.

Functions take plain values and return rows (dicts), records or sentences, so that they are tested without a notebook. Each
step of a contest loads its engines and closes them again, so no server stays behind, whatever ends the step. What the rows
look like in pictures is in `versus_plots`.

>>> contest = Contest(models.resolve("smollm2-135m"), ["llamacpp", "openai"], threads=1, seed=1, quick=True)
>>> figures = versus.figures(contest.compare())
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

from labkit import servers
from labkit.core import machine
from labkit.core.errors import BadInput
from labkit.core.records import Measurement, Message, ModelRef
from labkit.facts import comparison
from labkit.measure import versus, versus_parallel, versus_quality, versus_start
from labkit.quant import gguf

Row = Mapping[str, Any]
IN_PROCESS = ("llamacpp", "ortgenai")
TITLES = {
    "llamacpp": "llama.cpp",
    "ollama": "Ollama",
    "ortgenai": "ONNX Runtime GenAI",
    "foundry": "Foundry Local",
    "openai": "llama-server",
}


def title(engine: str) -> str:
    """What a reader calls an engine."""
    return TITLES.get(engine, engine)


def spare_threads() -> int:
    """All cores but one: a server, its client and the system want to run too, and threads that wait for each other stand still."""
    return max(1, machine.cores() - 1)


@dataclass
class Contest:
    """The measured steps of the lab. `quick`: fewer rounds and fewer tokens."""

    model: ModelRef
    engines: Sequence[str]
    threads: int
    seed: int
    quick: bool

    def compare(self) -> list[Measurement]:
        """Every engine on every prompt, in turn: 24 output tokens each, 7 rounds (quick: 8 and 2)."""
        rounds, tokens = (2, 8) if self.quick else (7, 24)
        with versus.opened(self.model, self.engines, self.threads) as ring:
            return versus.compare(ring, versus.prompts(ring, rounds + 1, self.seed), tokens)

    def formats(self) -> list[Measurement]:
        """llama.cpp alone on the model's own file and on a rung of another type, in turn: is it the engine, or the file?"""
        own = gguf.source_type(self.model)
        other = "Q8_0" if own == "Q4_0" else "Q4_0"
        files = {own: self.model, other: gguf.as_type(self.model, other, progress=False)}
        rounds, tokens = (2, 8) if self.quick else (5, 24)
        with ExitStack() as stack:
            rings = [stack.enter_context(versus.opened(file, [versus.REFERENCE], self.threads)) for file in files.values()]
            sides = {name: ring.contenders[versus.REFERENCE]._replace(name=name) for name, ring in zip(files, rings, strict=True)}
            ring = rings[0]._replace(contenders=sides)
            return versus.compare(ring, versus.prompts(ring, rounds + 1, self.seed, first=7), tokens)

    def start(self) -> list[dict[str, Any]]:
        """Each engine in a fresh process: load for the first time and again, memory with all its processes."""
        with versus.opened(self.model, [versus.REFERENCE], self.threads) as ring:
            (prompt,) = versus.prompts(ring, 1, self.seed, first=99)
        return [versus_start.fresh(name, self.model, prompt, self.threads) for name in self.engines]

    def parallel(self) -> list[dict[str, Any]]:
        """Throughput at 1, 2, 4 and 8 requests at once (quick: 1 and 4), one request a stream."""
        levels, least, tokens = ((1, 4), 1, 8) if self.quick else (versus_parallel.LEVELS, 2, 16)
        with versus.opened(self.model, self.engines, self.threads, context=512, slots=max(levels)) as ring:
            return versus_parallel.throughput(
                ring, lambda count, first: versus.prompts(ring, count, self.seed, first), levels, least, tokens
            )

    def quality(self) -> list[dict[str, Any]]:
        """The model's own file, two GGUF rungs and ONNX folders against the 16-bit copy, on the same tokens."""
        from labkit.quant import onnx

        recipes = ("int4",) if self.quick else ("int4", "int4-shared")
        folders = {f"ONNX {recipe}": ("ortgenai", onnx.convert(self.model, recipe)) for recipe in recipes}
        return versus_quality.rows(self.model, folders, tokens=512 if self.quick else 1024, threads=self.threads)

    def claims(self) -> list[dict[str, Any]]:
        """The claims that the feature table wants, checked on an Ollama and a Foundry Local that are started for it."""
        from labkit.facts import live
        from labkit.quant import onnx
        from labkit.servers import foundry, runtimes

        folder = onnx.convert(self.model)
        with ExitStack() as stack:
            limits = {"threads": self.threads, "context": 1024}
            ollama = stack.enter_context(servers.open("ollama").start(self.model, parallel=1, **limits))
            local = stack.enter_context(servers.open("foundry").start(self.model, **limits))
            program = runtimes.open("ollama").find()
            world = live.World(
                ollama_url=ollama.url,
                ollama_model=self.model.name,
                ollama_program=str(program.path) if program else None,
                foundry_url=local.url,
                foundry_model=foundry.model_id(self.model.name),
                foundry_folder=folder.path,
            )
            return list(live.rows(comparison.claim_ids(), world))


# -- the same prompt


class Careless(NamedTuple):
    """A session that puts one more blank in front of the assistant's turn: what a hand-made template easily does."""

    text: str

    def chat_prompt(self, messages: Sequence[Message]) -> str:
        return self.text.replace("assistant\n", "assistant\n ")


def careless_ring(text: str) -> tuple[versus.Ring, versus.Prompt]:
    """A ring with an engine that makes another text of the same messages, and the prompt that it was given."""
    one = versus.Contender("careless", Careless(text), versus.Way("messages", includes_http=True))
    return versus.Ring({"careless": one}, None, {}), versus.Prompt((), text, ())


def fairness_rows(found: Sequence[Measurement]) -> list[dict[str, Any]]:
    """One row an engine: what it was handed, prompt and output tokens counted, whether HTTP is in its times, its turns in the order."""
    rows = []
    for name in dict.fromkeys(m.engine for m in found):
        mine = [m for m in found if m.engine == name]
        rows.append(
            {
                "engine": title(name),
                "is given": mine[0].settings["takes"],
                "HTTP in its times": mine[0].settings["includes_http"],
                "prompt tokens": sum(m.prompt_tokens or 0 for m in mine),
                "output tokens": sum(m.output_tokens or 0 for m in mine),
                "turns": " ".join(str(m.settings["turn"]) for m in mine),
            }
        )
    return rows


def told_latency(figures: Sequence[Row], guess: str, guess_times: float) -> list[str]:
    """Who has the shortest time per token, whom the intervals do not tell from it, how far the last one is, and the guesses."""
    rows = sorted((row for row in figures if row["tpot_s"]), key=lambda row: row["tpot_s"])
    best, last = rows[0], rows[-1]
    tied = [title(row["engine"]) for row in rows[1:] if row["tpot_s_low"] <= best["tpot_s_high"]]
    right = guess == best["engine"] or any(row["engine"] == guess and title(guess) in tied for row in rows)
    said = [f"Shortest time per token: {title(best['engine'])}, {1e3 * best['tpot_s']:.3g} ms."]
    said += [f"Not to be told from it here: {', '.join(tied)}."] if tied else []
    said += [f"{title(last['engine'])} takes {last['tpot_s'] / best['tpot_s']:.1f} times as long; your guess was {guess_times:g}."]
    return [*said, f"Your guess for the fastest, {title(guess)}, " + ("agrees with that." if right else "does not agree.")]


def told_formats(figures: Sequence[Row]) -> list[str]:
    """llama.cpp on two files: time to first token and time per token, with their intervals."""
    said = []
    for row in figures:
        ttft, tpot = (
            f"{1e3 * row[key]:.3g} ms ({1e3 * row[f'{key}_low']:.3g} to {1e3 * row[f'{key}_high']:.3g})" for key in ("ttft_s", "tpot_s")
        )
        said.append(f"{row['engine']}: first token after {ttft}, then {tpot} for each")
    return said


def told_table(table: Sequence[Row]) -> Iterator[str]:
    """Each statement of the feature table with what came of it, by what, and the figures."""
    for row in table:
        for side in ("ollama", "foundry"):
            if row[f"{side}_shown"] != "–":
                why = str(row[f"{side}_why"]).removeprefix("no run-time test, ")
                yield f"{row['aspect']}: {title(side)} {row[f'{side}_says']}\n    {row[f'{side}_shown']} ({row[f'{side}_by']}): {why}"


def told_largest(cold: Sequence[Row], guess: str) -> str:
    """Who takes the most memory, and the guess."""
    most = max(cold, key=lambda row: row["memory_bytes"])
    words = f"{title(most['engine'])} takes the most memory: {most['memory_bytes'] / 1e6:.0f} MB in {most['processes']} process(es)."
    return f"{words} Your guess: {title(guess)}."


def table_words(table: Sequence[Row]) -> list[dict[str, str]]:
    """The feature table as it is shown: what is said of each side, and what came of it here."""
    rows = []
    for row in table:
        words = {"aspect": row["aspect"]}
        for side in ("ollama", "foundry"):
            words |= {f"{title(side)} …": row[f"{side}_says"], f"{title(side)}: here": row[f"{side}_shown"]}
        rows.append(words)
    return rows


# -- the decision


class Need(NamedTuple):
    """A situation: the figure that decides it, its unit, and whether more is better."""

    key: str
    words: str
    scale: float
    unit: str
    more: bool = False
    shared: bool = False  # do several programs or people use the same process?


NEEDS = {
    "one person waits for long answers": Need("tpot_s", "time per output token", 1e-3, "ms"),
    "a long document, a short answer": Need("prefill_tokens_per_s", "prefill rate", 1, "tokens/s", more=True),
    "started for one question, then ended": Need("first_token_s", "from nothing to the first token", 1, "s"),
    "many people at once on one machine": Need(
        "most_tokens_per_s", "tokens in all, most requests at once", 1, "tokens/s", more=True, shared=True
    ),
    "a machine with little memory": Need("memory_bytes", "memory", 1e6, "MB"),
}


def options(figures: Sequence[Row], start: Sequence[Row], parallel: Sequence[Row]) -> list[dict[str, Any]]:
    """One row an engine with all that the decision needs; what was not measured is None."""
    rows = []
    for one in figures:
        name = one["engine"]
        cold = next((r for r in start if r["engine"] == name), {})
        rates: dict[int, float] = {}
        for r in parallel:
            if r["engine"] == name:
                rates[r["parallel"]] = max(r["tokens_per_s"], rates.get(r["parallel"], 0.0))
        keys = ("ttft_s", "tpot_s", "decode_tokens_per_s", "prefill_tokens_per_s")
        row = {"engine": name, **{key: one[key] for key in keys}, **{key: cold.get(key) for key in ("first_token_s", "memory_bytes")}}
        row |= {"one_tokens_per_s": rates.get(1), "most_tokens_per_s": rates[max(rates)] if rates else None}
        rows.append(row | {"at_once": max(rates, default=None)})
    return rows


def judge(choices: Mapping[str, str], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The learner's decision table beside the evidence: for each need the best engine, and how far the chosen one is behind.

    Raises: BadInput for a situation that the table does not have, or an engine that was not measured.
    """
    out = []
    for situation, chosen in choices.items():
        if situation not in NEEDS:
            raise BadInput(f"there is no situation {situation!r}", "; ".join(NEEDS))
        if chosen not in {row["engine"] for row in rows}:
            raise BadInput(f"{chosen!r} was not measured", ", ".join(str(row["engine"]) for row in rows))
        out.append({"situation": situation, "your choice": title(chosen), **_verdict(NEEDS[situation], chosen, rows)})
    return out


def _verdict(need: Need, chosen: str, rows: Sequence[Row]) -> dict[str, str]:
    fit = [r for r in rows if r[need.key] is not None and not (need.shared and r["engine"] in IN_PROCESS)]
    if not fit:
        return {"evidence": "not measured", "verdict": "not decided here"}
    best = (max if need.more else min)(fit, key=lambda r: r[need.key])
    evidence = f"{need.words}: {title(best['engine'])} is best with {best[need.key] / need.scale:.3g} {need.unit}"
    mine = next((r for r in fit if r["engine"] == chosen), None)
    if mine is None:
        return {"evidence": evidence, "verdict": "it runs inside one program, and this need is shared"}
    behind = best[need.key] / mine[need.key] if need.more else mine[need.key] / best[need.key]
    if behind < comparison.CLEARLY:
        return {"evidence": evidence, "verdict": "the figures agree" + ("" if mine is best else " (no clear difference from the best)")}
    return {
        "evidence": evidence,
        "verdict": f"the figures disagree: yours has {mine[need.key] / need.scale:.3g} {need.unit}, {behind:.1f} times",
    }


def deployment(row: Row, people: int, tokens_per_s_each: float) -> dict[str, Any]:
    """How many copies of an engine would so many people need, and how much memory do they take? Computed, not measured.

    copies: people times the rate that each wants, divided by the most that one copy was measured to give, rounded up. One copy
    is a local program; several are what containers are for. It assumes a machine with enough processors
    for each copy.
    """
    most = max(row["one_tokens_per_s"] or 0, row["most_tokens_per_s"] or 0)
    fast_enough = (row["decode_tokens_per_s"] or 0) >= tokens_per_s_each
    copies = math.ceil(people * tokens_per_s_each / most) if most and fast_enough else None
    how = "too slow for one" if copies is None else "one local process" if copies == 1 else f"{copies} copies"
    memory = copies * row["memory_bytes"] if copies and row["memory_bytes"] else None
    return {"engine": row["engine"], "copies": copies, "memory_bytes": memory, "how": how}
