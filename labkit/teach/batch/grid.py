"""GRID.yaml as a list of tasks: labs × the product of values, plus extra rows, minus dropped ones.

The file holds plain values only: tags, anchors, keys named twice and unknown keys are refused in one sentence.
A row that cannot run (a parameter its lab does not have, a model that is not here) becomes a task with `refused`
set; when no row can run, the grid itself is refused.

>>> tasks = read(Path("data/grids/class_comparison.yaml"))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictInt, StrictStr, ValidationError

from labkit.core.errors import BadInput, LabkitError, nearest
from labkit.teach.batch import task as tasks_of
from labkit.teach.batch.task import Limits, Task

_MAX_ROWS = 10_000
_MAX_DEPTH = 20
_LAB = "lab"  # in include and exclude, the row's lab


class Grid(BaseModel):
    """The file's shape."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labs: list[StrictInt | StrictStr] = Field(min_length=1)
    grid: dict[str, list[JsonValue]] = Field(default_factory=dict)
    include: list[dict[str, JsonValue]] = Field(default_factory=list)
    exclude: list[dict[str, JsonValue]] = Field(default_factory=list)
    limits: Limits = Limits()


def read(path: Path) -> list[Task]:
    """The tasks of a grid file, each with its parameters checked; no kernel is started.

    Raises:
        BadInput: the file cannot be read as a grid, names an unknown lab, or none of its rows can run.
    """
    path = Path(path)
    grid = _grid(path)
    base = path.resolve().parent
    labs = {_key(lab): tasks_of.find(lab, base) for lab in grid.labs}
    found: dict[str, Task] = {}
    first: LabkitError | None = None
    for notebook, parameters in _rows(grid, labs, path, base):
        try:
            task = tasks_of.make(notebook, parameters, grid.limits, base)
        except LabkitError as error:
            first = first or error
            task = tasks_of.refused(notebook, parameters, grid.limits, error)
        found.setdefault(task.run_id, task)
    if not found:
        raise BadInput(f"{path} has no rows", "give each key of grid at least one value, and exclude fewer rows")
    if first is not None and all(task.refused for task in found.values()):
        raise first
    return list(found.values())


def _rows(grid: Grid, labs: dict[str, Path], path: Path, base: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    count = len(labs) * math.prod(len(values) for values in grid.grid.values()) + len(grid.include) * len(labs)
    if count > _MAX_ROWS:
        raise BadInput(f"{path} makes {count} rows, more than {_MAX_ROWS}", "split it")
    product = [dict(zip(grid.grid, values, strict=True)) for values in itertools.product(*grid.grid.values())]
    rows = [(notebook, row) for notebook in labs.values() for row in product]
    for row in grid.include:
        extra = {key: value for key, value in row.items() if key != _LAB}
        chosen = [_lab(row[_LAB], base, path)] if _LAB in row else list(labs.values())
        rows += [(notebook, extra) for notebook in chosen]
    drop = [({k: v for k, v in row.items() if k != _LAB}, _lab(row[_LAB], base, path) if _LAB in row else None) for row in grid.exclude]
    known = {key for _, row in rows for key in row} | {_LAB}
    for row, _ in drop:
        for key in row:
            if key not in known:
                raise BadInput(f"{path}: exclude names {key}, which no row has", nearest(key, known))
    for notebook, row in rows:
        if not any((lab is None or lab == notebook) and _matches(row, values) for values, lab in drop):
            yield notebook, row


def _matches(row: dict[str, Any], values: dict[str, Any]) -> bool:
    # 1 == True in Python, but `threads: 1` and `quick: true` are different values
    return all(key in row and row[key] == value and isinstance(row[key], bool) == isinstance(value, bool) for key, value in values.items())


def _lab(value: Any, base: Path, path: Path) -> Path:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BadInput(f"{path}: lab must be a number, a name or a path, not {value!r}", "labkit batch --help")
    return tasks_of.find(value, base)


def _key(lab: int | str) -> str:
    """02, 2 and "02" are one lab (YAML reads a bare 02 as the number 2, and a bare 08 as the text "08")."""
    text = str(lab).strip()
    return str(int(text)) if text.isascii() and text.isdigit() else text


def _grid(path: Path) -> Grid:
    data = _plain(path)
    if not isinstance(data, dict):
        raise BadInput(f"{path} is not a grid: it must have the key labs", "start it with: labs: [01]")
    for key in data:
        if key not in Grid.model_fields:
            raise BadInput(f"{path}: unknown key {key}", nearest(str(key), Grid.model_fields))
    for name in ("grid", "include", "exclude", "limits"):
        if name in data and data[name] is None:  # "include:" with nothing behind it
            del data[name]
    try:
        grid = Grid.model_validate(data)
    except ValidationError as error:
        raise _sentence(path, error) from error
    for key, values in grid.grid.items():
        if not values:
            raise BadInput(f"{path}: grid.{key} has no values", f"write {key}: [1, 2], or leave it out")
        if key == _LAB:
            raise BadInput(f"{path}: grid.lab is not a parameter", "name the labs in labs")
    _finite(path, [grid.grid, grid.include, grid.exclude])
    return grid


def _plain(path: Path) -> Any:
    """The file's plain values: safe_load, with what it would pass over in silence refused."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}", "labkit batch GRID.yaml --out DIR"
        ) from error
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 0
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise BadInput(f"{path} line {line}: lists in lists in lists, too deep for a grid", "labkit batch --help")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise BadInput(f"{path} line {line}: a grid has no anchors or aliases", "write the value out")
            tag = getattr(event, "tag", None)
            if tag:
                raise BadInput(f"{path} line {line}: a grid has plain values only, not the tag {tag}", "remove the tag")
        _unique_keys(path, yaml.compose(text, Loader=yaml.SafeLoader))
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise BadInput(f"{path}{where} is not YAML: {' '.join(str(problem).split())}", "mend that line") from error


def _unique_keys(path: Path, node: Any) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key.value, str) and key.value in seen:
                raise BadInput(f"{path} line {key.start_mark.line + 1}: {key.value} is there twice", "keep one of them")
            seen.add(str(key.value))
            _unique_keys(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _unique_keys(path, item)


def _finite(path: Path, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{path}: {value} is not a number that a result file can hold", "give a finite number")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _finite(path, item)


def _sentence(path: Path, error: ValidationError) -> BadInput:
    first = error.errors()[0]
    names = [str(part) for part in first["loc"] if not str(part).startswith(("list[", "str", "int", "float", "bool", "dict["))]
    where = ".".join(names)
    hints = {
        "labs": "write labs: [01, my/own.ipynb]",
        "grid": f"write {names[-1]}: [1, 2]",
        "limits": "write limits: {seconds: 240, memory_gb: 2}",
    }
    if first["type"] == "extra_forbidden":
        return BadInput(f"{path}: unknown key {where}", nearest(names[-1], Limits.model_fields))
    message = first["msg"][0].lower() + first["msg"][1:]
    return BadInput(f"{path}: {where}: {message}", hints.get(names[0], "write include: [{model: smollm2-135m, threads: 2}]"))
