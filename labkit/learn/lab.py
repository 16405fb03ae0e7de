"""A running lab: its session, its steps and its result lines.

Every measured step goes through `Lab.step`. With its parts installed the step runs, and its rows go to the results
file. Without them the lab plays the recording of the same step, and says so wherever its rows show.

>>> lab = start("01_first_model", model="smollm2-135m", threads=0, seed=1, quick=False, results_path="results.jsonl")
>>> rows = lab.step("answer", lambda: measure.run(lab.session, request))

A lab that needs no engine, and a step that needs an extra of its own:

>>> lab = start("06_ternary_bitnet", ..., load=False, needs="torch")
>>> rows = lab.step("convert", lambda: convert_rows(lab.model), needs="hf")
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from labkit import engines, measure, models, servers
from labkit.core import extras, machine, recordings, results
from labkit.core.errors import BadInput, MissingPart
from labkit.core.records import SCHEMA, Measurement, ModelRef, Request, now
from labkit.servers import runtimes

_PROBE = tuple(range(40, 72))  # any ids do: the speed does not depend on them

Source = Literal["measured", "recorded"]


class Lab:
    """Made by `start`. `missing` says what keeps the whole lab from running here; a step may lack more."""

    def __init__(
        self, name: str, parameters: dict[str, Any], session: Any, missing: str | None, model: ModelRef | None = None, threads: int = 1
    ) -> None:
        self.name, self.parameters, self.session, self.model, self.threads = name, parameters, session, model, threads
        self.missing = missing
        self.source: Source = "recorded" if missing else "measured"
        self.results_path = Path(parameters["results_path"])
        self._sources: dict[str, Source] = {}  # of the steps so far

    def step(
        self,
        key: str,
        function: Callable[[], Sequence[Measurement | dict[str, Any]]],
        needs: str | Sequence[str] = (),
        left_out: str = "",
    ) -> list[Any]:
        """Run one measured step, append its rows to the results file and return them; or play its recording.

        needs: parts that this step wants beyond what the lab wants: extras, engines, servers, runtimes, `containers`,
        `compose`; where one is missing the step is played.
        left_out: why this run plays the step though nothing is missing, such as a quick run that starts a slow server only once.
        Raises:
            MissingPart: a part is missing and no recording has this step.
        """
        lacking = self.missing or left_out or _first_missing(needs)
        rows = [_revive(row) for row in self._rows_of(key, lacking)] if lacking else list(function())
        self._sources[key] = "recorded" if lacking else "measured"
        if lacking:
            why = "" if self.missing else f" ({lacking})"
            print(f"recorded, not measured here: {self.caption(key)}{why}")  # noqa: T201 - the reader must see it
        results.append(self.results_path, [self._line(key, rows)])
        return rows

    def caption(self, *keys: str) -> str:
        """For under a plot: measured here on this machine, or recorded when and where. Of those steps, or of all so far."""
        sources = {key: self._sources.get(key, self.source) for key in keys or self._sources} or {"": self.source}
        recorded = [key for key, source in sources.items() if source == "recorded"]
        here, there = f"measured on {machine.caption()}", self._recorded_caption if recorded else ""
        if not recorded or len(recorded) == len(sources):
            return there if recorded else here
        return f"{', '.join(recorded)}: {there}; the rest {here}"

    def _rows_of(self, key: str, lacking: str) -> list[Any]:
        if key not in self._recording[1]:
            raise MissingPart(f"step {key!r} of lab {self.name} has no recording, and {lacking}")
        return self._recording[1][key]

    @functools.cached_property
    def _recording(self) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        return recordings.load(self.name)

    @property
    def _recorded_caption(self) -> str:
        header = self._recording[0]
        made = header["machine"]
        return f"RECORDED {header['date']} on {made['cpu']}, {made['cores']} cores, {made['memory_bytes'] / 2**30:.1f} GiB"

    def _line(self, key: str, rows: list[Any]) -> dict[str, Any]:
        source = self._sources[key]
        return {
            "schema": SCHEMA,
            "lab": self.name,
            "step": key,
            "source": source,
            "machine": machine.fingerprint() if source == "measured" else self._recording[0]["machine"],
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
    load: bool = True,
    needs: str | Sequence[str] = (),
) -> Lab:
    """Open a lab: load the model, or say in one sentence what is missing and go on with the recording.

    threads 0: measure which count is fastest on this machine and take it (without a session: all cores).
    load False: a lab that works on the model's file or trains its own; no engine is opened, `lab.session` is None.
    needs: parts that the whole lab wants beyond its engine ("torch", "ollama", "containers", ...).
    Raises: BadInput for an unknown model, engine, part or broken file.
    """
    if threads < 0:
        raise BadInput(f"threads is {threads}", "threads = 0 chooses by measuring, or give 1, 2, …")
    parameters = {"model": model, "engine": engine, "threads": threads, "seed": seed, "quick": quick, "results_path": results_path}
    chosen = engines.open(engine)
    missing = (chosen.missing() if load else None) or _first_missing(needs)
    session = ref = None
    try:
        if missing is None:
            ref = models.resolve(model)
        if ref and load:
            session = _scorer(chosen.load(ref, threads=threads or None, context=context), engine)
            if threads == 0:
                session.set_threads(choose_threads(session))
    except MissingPart as error:
        missing = str(error)
    lab = Lab(name, parameters, session, missing, ref, getattr(session, "threads", None) or threads or machine.cores())
    if lab.missing:
        recordings.load(name)  # a lab that can neither run nor be played is refused at its first step
    print(lab.missing + "\nThis lab goes on with a recording." if lab.missing else _opened(lab, threads == 0))  # noqa: T201
    return lab


def _first_missing(needs: str | Sequence[str]) -> str | None:
    """What the first missing one of some parts says of itself."""
    return next((said for part in ([needs] if isinstance(needs, str) else needs) if (said := _missing(part))), None)


def _missing(part: str) -> str | None:
    """Of an engine, a server, a runtime, `containers` (Podman or Docker), `compose` (and Compose stacks), or an extra."""
    if part in ("containers", "compose"):
        from labkit.servers import images  # its own imports are for those who build and run images

        return images.missing() or (images.missing_compose() if part == "compose" else None)
    if part in servers.companions():
        return servers.companion(part).missing()
    tables: tuple[Any, ...] = (engines, servers, runtimes)
    for table in tables:
        if part in table.names():
            return table.open(part).missing()
    return extras.missing(part)


def _scorer(session: Any, engine: str) -> Any:
    if not isinstance(session, engines.Scorer):
        session.close()
        raise BadInput(f"this lab looks at tokens and logits, and engine {engine} does not show them", "-p engine llamacpp")
    return session


def choose_threads(session: Any) -> int:
    """The fastest thread count by a short measurement (32 prompt tokens, 12 output tokens, in turn)."""
    tokens = tuple(t % session.n_vocab for t in _PROBE)
    return measure.best_threads(session, Request(tokens=tokens, max_tokens=12, ignore_eos=True))


def _opened(lab: Lab, measured: bool) -> str:
    session = lab.session
    if session is None:
        return f"{lab.model.name if lab.model else lab.parameters['model']} is on this machine; up to {lab.threads} thread(s)."
    how = f"{session.threads} thread(s){', the fastest count in a short test' if measured else ''}"
    lines = [f"{session.model.name} is loaded in {session.load_s:.2f} s: {how}, context {session.context} tokens."]
    if not session.has_vocabulary:
        lines.append("It has no vocabulary (a shape-true model): each byte of a text counts as a token, and its answers mean nothing.")
    elif not session.has_chat_template:
        lines.append("It has no chat template: it continues a text (plain completion) and does not answer as an assistant would.")
    return "\n".join(lines)


def _revive(row: Any) -> Any:
    return Measurement.model_validate(row) if isinstance(row, dict) and "marks_ns" in row else row
