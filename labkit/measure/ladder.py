"""One model in many types: how large, how much worse, how fast? The table behind `labkit ladder`.

The reference of a ladder is the model with 16-bit weights: the model's own file where it has them, else a copy made from
it (`…-F16-from-Q4_1`), whose figures say how much was lost *since*, not since training. All rungs read the same tokens.
Speed is measured in turn, every rung loaded `REPEATS` times in alternating order, median: a machine's speed drifts.

Each rung's quality is kept in the cache as soon as it is known, so that a run that was cut short goes on where it was.
A speed from the cache is from another hour; when one rung's speed is missing, all are measured again, side by side.

>>> rungs = climb(models.resolve("stdlib-10m"), ["F16", "Q4_0", "TQ2_0"])
>>> [pair for pair in tied(rungs) if pair["tied"]]
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from tqdm.auto import tqdm

from labkit import engines
from labkit.core import machine, paths, results
from labkit.core.errors import BadInput
from labkit.core.records import ModelRef, Record, Request
from labkit.measure import clock, compare, logits, quality
from labkit.models import footprint, inspect, sha256_of
from labkit.quant import gguf

DEFAULT_10 = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "Q4_0", "Q3_K_M", "Q2_K", "TQ2_0")
REPEATS = 3
_SPEED = Request(tokens=tuple(range(40, 56)), ignore_eos=True)
_SCHEMA = 1


class Rung(Record):
    """One file of a ladder. `memory_bytes` is predicted, for the context that was read; `cached`: its quality was known.

    `nll` and `kl` have one value a scored token, the same tokens on every rung; they stay out of JSON.
    """

    type: str
    name: str
    path: Path
    bytes: int
    bits_per_weight: float
    perplexity: float
    perplexity_stderr: float
    kl_mean: float
    kl_stderr: float
    top1_agreement: float
    tokens: int
    scored_tokens: int
    memory_bytes: int
    decode_tokens_per_s: float | None
    cached: bool
    nll: tuple[float, ...] = Field(exclude=True, repr=False)
    kl: tuple[float, ...] = Field(exclude=True, repr=False)


def climb(
    ref: ModelRef,
    types: Sequence[str] | None = None,
    tokens: int = 2000,
    threads: int | None = None,
    text: str | None = None,
    context: int = 512,
    progress: bool = True,
    speeds: bool = True,
) -> list[Rung]:
    """The rungs in the order of `types` (None: DEFAULT_10), each compared with the 16-bit model.

    speeds False: no speed is measured, for a caller that does so itself; one that is known already is given.

    Raises: as `gguf.quantize` and `quality.evaluate`.
    """
    kinds = list(dict.fromkeys(gguf.type_named(name) for name in (DEFAULT_10 if types is None else types)))
    if not kinds:
        raise BadInput("a ladder needs a rung", "--types F16,Q8_0,Q4_0")
    text = quality.text_for(ref) if text is None else text
    base = gguf.to_f16(ref, progress)
    files = {}
    for kind in tqdm(kinds, desc=f"files of {ref.name}", unit="rung", leave=False, disable=not progress):
        files[kind] = base if kind == "F16" else gguf.as_type(ref, kind, progress)
    notes = {kind: _note(ref, kind, text, tokens, context) for kind in kinds}
    known = {kind: _read(notes[kind]) for kind in kinds}
    cached = {kind for kind, found in known.items() if found}
    _score([k for k in kinds if k not in cached], files, base, notes, text, tokens, context, threads, progress)
    where = f"{machine.fingerprint()['id']}/{threads or machine.cores()}"
    found = {kind: json.loads(notes[kind].read_text(encoding="utf-8")) for kind in kinds}
    if speeds and any(where not in note["speed"] for note in found.values()):
        for kind, speed in _speeds(files, threads, progress).items():
            found[kind]["speed"][where] = speed
            _write(notes[kind], found[kind])
    return [_rung(kind, files[kind], found[kind], found[kind]["speed"].get(where), context, kind in cached) for kind in kinds]


def tied(rungs: Sequence[Rung], figure: Literal["perplexity", "kl_mean"] = "perplexity") -> list[dict[str, Any]]:
    """Which two rungs does this text not separate? One row a pair: `a b figure difference stderr tied`.

    Paired: both rungs predicted the same tokens, so what counts is the mean of the differences, token by token, and its
    own standard error; b minus a, in nats: of surprise (then it is ln of the ratio of the perplexities) or of KL
    divergence. That error is far smaller than two separate ones, most of which come from some tokens being hard for
    every rung. Tied: the 95 % interval of the difference, 1.96 standard errors to each side, holds 0. Neighbouring
    tokens are taken as independent, so call a difference that is only just outside unproven.

    Raises BadInput where the rungs were not measured on the same tokens.
    """
    if len({len(rung.nll) for rung in rungs}) > 1:
        raise BadInput("these rungs read different tokens", "climb once with all types")
    rows = []
    for a, b in itertools.combinations(rungs, 2):
        gap = np.asarray(b.nll) - np.asarray(a.nll) if figure == "perplexity" else np.asarray(b.kl) - np.asarray(a.kl)
        mean, error = logits.mean(gap)
        rows.append(
            {"a": a.type, "b": b.type, "figure": figure, "difference": mean, "stderr": error, "tied": abs(mean) <= compare.Z * error}
        )
    return rows


def _score(
    kinds: Sequence[str],
    files: dict[str, ModelRef],
    base: ModelRef,
    notes: dict[str, Path],
    text: str,
    tokens: int,
    context: int,
    threads: int | None,
    progress: bool,
) -> None:
    """Quality of the rungs that are not known yet. The reference's scores are computed once and kept in a file meanwhile."""
    if not kinds:
        return
    with ExitStack() as stack:
        with quality.opened(base, context, threads) as session:
            cut, width = quality.windows(session, text, tokens, context), session.n_vocab
            reference = stack.enter_context(quality.kept(quality.live(session, cut), cut, width, f"reference {base.name}", progress))
        for kind in tqdm(kinds, desc=f"quality of {base.name}", unit="rung", leave=False, disable=not progress):
            if files[kind] is base:
                scores = quality.score(reference, cut, reference, kind, progress)
            else:
                with quality.opened(files[kind], context, threads) as session:
                    scores = quality.score(quality.live(session, cut), cut, reference, kind, progress)
            assert scores.kl is not None  # noqa: S101 - a reference was given
            note = {"schema": _SCHEMA, "quality": quality.summary(scores, cut).model_dump(), "speed": {}}
            note |= {"nll": np.round(scores.nll, 6).tolist(), "kl": np.round(scores.kl, 9).tolist()}
            _write(notes[kind], note)


def speeds_of(
    files: Mapping[str, ModelRef], threads: int | None, repeats: int = REPEATS, output_tokens: int = 24, progress: bool = True
) -> dict[str, clock.Spread | None]:
    """Decode rate of each file, measured now and in turn: every round loads and times each file once, in alternating order."""
    request = _SPEED.model_copy(update={"max_tokens": output_tokens})

    def timed(file: ModelRef) -> float | None:
        session = engines.open("llamacpp").load(file, context=256, **({"threads": threads} if threads else {}))
        try:
            clock.one(session, request.model_copy(update={"max_tokens": 4}))  # the first run reads the file's pages
            return clock.one(session, request).decode_tokens_per_s
        finally:
            session.close()

    cases: dict[str, Callable[[], Any]] = {kind: functools.partial(timed, file) for kind, file in files.items()}
    return {kind: clock.spread(rates) for kind, rates in clock.ab(cases, repeats, warmup=0, progress=progress).items()}


def _speeds(files: Mapping[str, ModelRef], threads: int | None, progress: bool) -> dict[str, float | None]:
    found = speeds_of(files, threads, progress=progress)
    return {kind: middle.median if middle else None for kind, middle in found.items()}


def _rung(kind: str, file: ModelRef, note: dict[str, Any], speed: float | None, context: int, cached: bool) -> Rung:
    header = inspect.read(file.path)
    return Rung(
        type=kind,
        name=file.name,
        path=file.path,
        bytes=header.file_bytes,
        bits_per_weight=header.bits_per_weight,
        memory_bytes=footprint.predict(header, context).total_bytes,
        decode_tokens_per_s=speed,
        cached=cached,
        nll=tuple(note["nll"]),
        kl=tuple(note["kl"]),
        **note["quality"],
    )


def _note(ref: ModelRef, kind: str, text: str, tokens: int, context: int) -> Path:
    """Where a rung's figures are kept: a name from all that they depend on."""
    words = (sha256_of(ref.path), kind, hashlib.sha256(text.encode()).hexdigest(), tokens, context, gguf.library_version(), _SCHEMA)
    return paths.cache("ladder") / f"{ref.name}-{kind}-{hashlib.sha256(repr(words).encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # not there, or broken: measured again
    whole = isinstance(note, dict) and note.get("schema") == _SCHEMA and {"quality", "speed", "nll", "kl"} <= note.keys()
    return note if whole else None


def _write(path: Path, note: dict[str, Any]) -> None:
    with paths.atomic(path, "w") as file:
        file.write(results.dumps(note) + "\n")
