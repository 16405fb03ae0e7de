"""What lab 04 measures of a ladder of quantized files: rows (dicts) of each rung's contents, quality, memory, speed, answers.

A row's `label` names what a file is: the 16-bit copy of a quantized file is `F16-from-Q4_1`, not `F16`. What the rows say
in words is in `ladder_words`, how they are drawn in `ladder_plots`.

>>> rung_rows(models.resolve("stdlib-10m"), FULL, tokens=2048, threads=2)[0]["perplexity"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from labkit.core import paths
from labkit.core.records import ModelRef
from labkit.measure import ladder, logits, memory, quality
from labkit.models import footprint, inspect
from labkit.quant import gguf

Row = dict[str, Any]

# from many bits to few; the whole ladder, and the rungs that show what a quantized source does
FULL = ("F16", "Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q5_K_M", "Q4_1", "Q4_0", "Q4_K_M", "Q3_K_M", "Q2_K", "TQ2_0")
SHORT = ("F16", "Q8_0", "Q5_1", "Q4_K_M", "Q4_1", "Q4_0")
QUICK_FULL = ("F16", "Q8_0", "Q4_0", "Q2_K", "TQ2_0")
QUICK_SHORT = ("F16", "Q8_0", "Q4_1")
BLOCKS = ("F16", "Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q5_K", "Q4_1", "Q4_0", "Q4_K", "Q3_K", "Q2_K", "TQ2_0")
ROW_BLOCK = 256  # weights in a block of a K-quant; a row that is no multiple of it falls back


def files(ref: ModelRef, types: Sequence[str]) -> dict[str, ModelRef]:
    """The file of each rung, made where it is not in the cache yet."""
    return {kind: gguf.as_type(ref, kind, progress=False) for kind in tqdm(types, desc=f"files of {ref.name}", leave=False)}


def label(ref: ModelRef, kind: str) -> str:
    """What a rung is called: `F16-from-Q4_1` for the 16-bit copy of a quantized file."""
    return gguf.name_of(ref, kind).removeprefix(f"{ref.name}-") if kind == "F16" else kind


def contents_rows(ref: ModelRef, types: Sequence[str]) -> list[Row]:
    """What is in each rung's file: its true bits per weight, and the share of its weights that each tensor type holds."""
    rows = []
    for kind, file in files(ref, types).items():
        header = inspect.read(file.path)
        weights: dict[str, int] = {}
        for tensor in header.tensors:
            weights[tensor.type] = weights.get(tensor.type, 0) + tensor.elements
        shares = {name: count / header.parameters for name, count in sorted(weights.items(), key=lambda item: -item[1])}
        rows.append(
            {
                "model": ref.name,
                "type": kind,
                "label": label(ref, kind),
                "bytes": header.file_bytes,
                "bits_per_weight": header.bits_per_weight,
                "width": header.value("embedding_length"),
                "shares": shares,
            }
        )
    return rows


def rung_rows(ref: ModelRef, types: Sequence[str], tokens: int, threads: int) -> list[Row]:
    """Quality of each rung against the 16-bit one. These figures do not depend on the machine's load, so the cache may serve them.

    `log_ratio` is the mean difference of the surprises at the same tokens, ln of the ratio of the two perplexities.
    The rungs' own speeds are left out: a speed from the cache is from another day. `speed_rows` measures it now.
    """
    rungs = ladder.climb(ref, types=list(types), tokens=tokens, threads=threads, speeds=False)
    source = gguf.source_type(ref)
    base = np.asarray(next(rung.nll for rung in rungs if rung.type == "F16"))
    rows = []
    for rung in rungs:
        row = rung.model_dump(mode="json", exclude={"decode_tokens_per_s", "memory_bytes", "path"})
        gap, error = logits.mean(np.asarray(rung.nll) - base)  # of the same tokens, so what is hard for both cancels
        paired = {"log_ratio": gap, "log_ratio_stderr": error}
        rows.append(row | paired | {"model": ref.name, "label": label(ref, row["type"]), "source_type": source})
    return rows


def speed_rows(ref: ModelRef, types: Sequence[str], threads: int, rounds: int = 3, output_tokens: int = 24) -> list[Row]:
    """Decode rate of each rung, measured now: see `ladder.speeds_of`."""
    found = ladder.speeds_of(files(ref, types), threads, rounds, output_tokens)
    rows = []
    for kind, middle in found.items():
        rows.append({"model": ref.name, "type": kind, "tokens_per_s": None if middle is None else middle._asdict()})
    return rows


def memory_rows(ref: ModelRef, types: Sequence[str], threads: int, context: int = 512) -> list[Row]:
    """Memory of each rung in a fresh process with `context` tokens, and what one more token of context adds."""
    rows = []
    for kind, file in tqdm(files(ref, types).items(), desc=f"memory of {ref.name}", leave=False):
        found = memory.growth(file, context, threads=threads, fill=66, ubatch=64)
        per_token = footprint.kv_bytes_per_token(inspect.read(file.path))
        rows.append(
            {
                "model": ref.name,
                "type": kind,
                "memory_bytes": found["measured_bytes"],
                "context": context,
                "kv_bytes_per_token": per_token,
            }
        )
    return rows


def choice_rows(files_: Mapping[str, ModelRef], group: str, threads: int, count: int | None = None) -> list[Row]:
    """How many questions of a group each file answers right, with Wilson's interval."""
    items = questions(group)[:count]
    rows = []
    for name, file in files_.items():
        with quality.opened(file, context=128, threads=threads) as session:
            found = quality.accuracy(quality.choices(session, items, progress=False))
        rows.append({"model": file.name, "label": name, "group": group, **found._asdict()})
    return rows


def questions(group: str) -> list[Row]:
    """The course's own multiple-choice questions of a group: `english` or `python`."""
    lines = paths.data("evaluation", "choices.jsonl").read_text(encoding="utf-8").splitlines()
    return [item for item in map(json.loads, lines) if item["group"] == group]


def joined(*tables: Sequence[Row]) -> list[Row]:
    """Rows of one model's tables put together by `type`; a rung that is not in all of them is left out."""
    first, *others = ({row["type"]: row for row in table} for table in tables)
    return [{k: v for one in (first, *others) for k, v in one[kind].items()} for kind in first if all(kind in one for one in others)]


def memory_at(row: Mapping[str, Any], context: int) -> float:
    """Bytes with another context: the measured memory, and the KV cache of the tokens more or fewer."""
    return float(row["memory_bytes"] + row["kv_bytes_per_token"] * (context - row["context"]))


def with_context(rows: Sequence[Row], context: int) -> list[Row]:
    """The same rows with `memory_mb` for that context."""
    return [row | {"memory_mb": memory_at(row, context) / 1e6} for row in rows]


def block_table() -> list[tuple[str, int, int, float]]:
    """(type, weights in a block, its bytes, bits per weight) of the block formats that this lab meets."""
    rows = []
    for kind in BLOCKS:
        weights = next(n for n in (1, 32, 256) if inspect.tensor_bytes(kind, (n,)))
        size = inspect.tensor_bytes(kind, (weights,))
        rows.append((kind, weights, size, 8 * size / weights))
    return rows


def speed_table(rows: Sequence[Row]) -> Any:
    """A pandas table of size, memory and speed, speed with its interval and as a multiple of the 16-bit rung's."""
    import pandas as pd

    base = {row["model"]: row["tokens_per_s"]["median"] for row in rows if row["type"] == "F16" and row["tokens_per_s"]}
    lines = []
    for row in rows:
        rate = row["tokens_per_s"]
        line = {"model": row["model"], "label": row["label"], "file (MB)": row["bytes"] / 1e6, "memory (MB)": row["memory_mb"]}
        if rate:
            line["tokens/s"] = f"{rate['median']:.0f} ({rate['low']:.0f} to {rate['high']:.0f}, n={rate['n']})"
            line["times 16-bit"] = rate["median"] / base[row["model"]] if row["model"] in base else None
        lines.append(line)
    return pd.DataFrame(lines).round({"file (MB)": 1, "memory (MB)": 0, "times 16-bit": 2})


def asked_rows(small: ModelRef, model: ModelRef, threads: int, quick: bool) -> list[Row]:
    """Some rungs of the small model on the Python questions, two of the other on the English ones; a quick run asks fewer."""
    tables = (
        (small, ("F16", "Q4_0", "TQ2_0") if quick else ("F16", "Q8_0", "Q4_0", "Q3_K_M", "Q2_K", "TQ2_0"), "python"),
        (model, ("Q8_0", "Q4_1") if quick else ("F16", "Q4_0"), "english"),
    )
    rows = []
    for ref, kinds, group in tables:
        named_files = {label(ref, kind): file for kind, file in files(ref, kinds).items()}
        rows += choice_rows(named_files, group, threads, 8 if quick else None)
    return rows


def reference(rows: Sequence[Row]) -> Row:
    """The 16-bit rung that the others are compared with."""
    return next(row for row in rows if row["type"] == "F16")


def named(rows: Sequence[Row], kind: str) -> Row | None:
    return next((row for row in rows if row["type"] == kind), None)
