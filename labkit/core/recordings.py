"""Recordings: the results of a real run, kept for machines where an engine is missing.

data/recordings/<lab>.jsonl: a header line, then the run's result lines as they were written. Only
`labkit.teach.recordings.record` writes them; whoever shows them says "recorded", with the header's date and machine.

>>> header, steps = load("01_first_model")
>>> steps["answer"][0]["decode_tokens_per_s"]
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labkit.core import paths, results
from labkit.core.errors import BadInput
from labkit.core.records import RunRecord

FORMAT = 1
_AGAIN = "make it again: labkit run LAB --record"


class Machine(BaseModel):
    """What a reader must know of the machine; more may be there."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str = Field(min_length=1)
    cpu: str = Field(min_length=1)
    cores: int = Field(ge=1)
    memory_bytes: int = Field(ge=1)


class Header(BaseModel):
    """First line of a recording: when, on what, with what, of which notebook, and that it really ran."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recording: int = Field(ge=FORMAT, le=FORMAT)
    date: datetime.date
    machine: Machine
    versions: dict[str, str] = Field(min_length=1)
    run: RunRecord
    notebook_sha256: str = Field(pattern=re.compile(r"^[0-9a-f]{64}$"))


class Step(BaseModel):
    """A result line of a lab."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(alias="schema")
    lab: str
    step: str
    source: str = Field(pattern="^measured$")
    machine: Machine
    timestamp: datetime.datetime
    parameters: dict[str, Any]
    rows: list[Any]


def path_of(lab: str) -> Path:
    """Where a lab's recording is kept."""
    return paths.data("recordings", f"{lab}.jsonl")


def load(lab: str) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """A lab's recording: its header, and the rows of each step.

    Raises:
        BadInput: there is none, or it lacks something.
    """
    return read(path_of(lab))


def read(path: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """As `load`, for a file anywhere."""
    if not path.is_file():
        raise BadInput(f"there is no recording {path.name}", _AGAIN)
    if not path.read_bytes().endswith(b"\n"):
        raise BadInput(f"recording {path.name} is cut off in its last line", _AGAIN)
    lines = results.read(path)
    header: dict[str, Any] = next(lines, {})
    head: Header = _valid(Header, header, path, "its header")
    if head.run.status != "ok" or head.run.source != "measured":
        raise BadInput(f"recording {path.name}: its run was {head.run.status} and {head.run.source}, not ok and measured", _AGAIN)
    steps: dict[str, list[Any]] = {}
    for number, line in enumerate(lines, 2):
        step: Step = _valid(Step, line, path, f"line {number}")
        if step.lab != path.stem or head.run.lab != path.stem:
            raise BadInput(f"recording {path.name}: line {number} is of lab {step.lab}, the header of {head.run.lab}", _AGAIN)
        if step.step in steps:
            raise BadInput(f"recording {path.name}: step {step.step} is there twice", "give each step of the lab a name of its own")
        steps[step.step] = line["rows"]
    if not steps:
        raise BadInput(f"recording {path.name} has no result lines", _AGAIN)
    return header, steps


def strings(value: Any) -> Iterator[str]:
    """Every text in a record, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)


def _valid(kind: type[BaseModel], line: Any, path: Path, where: str) -> Any:
    try:
        return kind.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "it"
        raise BadInput(f"recording {path.name}: {where}: {name}: {first['msg'][0].lower()}{first['msg'][1:]}", _AGAIN) from error
