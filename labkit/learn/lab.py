"""A running lab: its session, its steps and its result lines.

Every measured step goes through `Lab.step`. With the engine installed the step runs, and its rows go to the results
file. Without it the lab plays the recording of the same step, and says so wherever its rows show.

>>> lab = start("01_first_model", model="smollm2-135m", threads=0, seed=1, quick=False, results_path="results.jsonl")
>>> rows = lab.step("answer", lambda: measure.run(lab.session, request))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from labkit import engines, measure, models
from labkit.core import machine, recordings, results
from labkit.core.errors import BadInput, MissingPart
from labkit.core.records import SCHEMA, Measurement, Request, now

_PROBE = tuple(range(40, 72))  # any ids do: the speed does not depend on them


class Lab:
    """Made by `start`."""

    def __init__(self, name: str, parameters: dict[str, Any], session: Any, missing: str | None) -> None:
        self.name, self.parameters, self.session = name, parameters, session
        self.missing = missing
        self.source: Literal["measured", "recorded"] = "recorded" if missing else "measured"
        self.results_path = Path(parameters["results_path"])
        self._header, self._recorded = recordings.load(name) if missing else ({}, {})

    def step(self, key: str, function: Callable[[], Sequence[Measurement | dict[str, Any]]]) -> list[Any]:
        """Run one measured step, append its rows to the results file and return them; or play its recording.

        Raises:
            MissingPart: the engine is missing and no recording has this step.
        """
        if self.missing is None:
            rows = list(function())
        else:
            if key not in self._recorded:
                raise MissingPart(f"step {key!r} of lab {self.name} has no recording, and {self.missing}")
            rows = [_revive(row) for row in self._recorded[key]]
            print(f"recorded, not measured here: {self.caption()}")  # noqa: T201 - the reader must see it
        results.append(self.results_path, [self._line(key, rows)])
        return rows

    def caption(self) -> str:
        """For under a plot: measured here on this machine, or recorded when and where."""
        if self.missing is None:
            return f"measured on {machine.caption()}"
        made = self._header["machine"]
        return f"RECORDED {self._header['date']} on {made['cpu']}, {made['cores']} cores, {made['memory_bytes'] / 2**30:.1f} GiB"

    def _line(self, key: str, rows: list[Any]) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "lab": self.name,
            "step": key,
            "source": self.source,
            "machine": machine.fingerprint() if self.missing is None else self._header["machine"],
            "timestamp": now(),
            "parameters": self.parameters,
            "rows": [row.model_dump(mode="json") if isinstance(row, BaseModel) else row for row in rows],
        }


def start(
    name: str,
    *,
    model: str,
    threads: int,
    seed: int,
    quick: bool,
    results_path: str,
    engine: str = "llamacpp",
    context: int = 2048,
) -> Lab:
    """Open a lab: load the model, or say in one sentence what is missing and go on with the recording.

    threads 0: measure which count is fastest on this machine and take it.
    Raises: BadInput for an unknown model, engine or broken file.
    """
    if threads < 0:
        raise BadInput(f"threads is {threads}", "threads = 0 chooses by measuring, or give 1, 2, …")
    parameters = {"model": model, "engine": engine, "threads": threads, "seed": seed, "quick": quick, "results_path": results_path}
    chosen = engines.open(engine)
    missing = chosen.missing()
    session = None
    try:
        if missing is None:
            ref = models.resolve(model)
            session = _scorer(chosen.load(ref, threads=threads or None, context=context), engine)
            if threads == 0:
                session.set_threads(choose_threads(session))
    except MissingPart as error:
        missing = str(error)
    lab = Lab(name, parameters, session, missing)
    print(lab.missing + "\nThis lab goes on with a recording." if lab.missing else _opened(session, threads == 0))  # noqa: T201
    return lab


def _scorer(session: Any, engine: str) -> Any:
    if not isinstance(session, engines.Scorer):
        session.close()
        raise BadInput(f"this lab looks at tokens and logits, and engine {engine} does not show them", "-p engine llamacpp")
    return session


def choose_threads(session: Any) -> int:
    """The fastest thread count by a short measurement (32 prompt tokens, 12 output tokens, in turn)."""
    tokens = tuple(t % session.n_vocab for t in _PROBE)
    return measure.best_threads(session, Request(tokens=tokens, max_tokens=12, ignore_eos=True))


def _opened(session: Any, measured: bool) -> str:
    how = f"{session.threads} thread(s){', the fastest count in a short test' if measured else ''}"
    lines = [f"{session.model.name} is loaded in {session.load_s:.2f} s: {how}, context {session.context} tokens."]
    if not session.has_vocabulary:
        lines.append("It has no vocabulary (a shape-true model): each byte of a text counts as a token, and its answers mean nothing.")
    elif not session.has_chat_template:
        lines.append("It has no chat template: it continues a text (plain completion) and does not answer as an assistant would.")
    return "\n".join(lines)


def _revive(row: Any) -> Any:
    return Measurement.model_validate(row) if isinstance(row, dict) and "marks_ns" in row else row
