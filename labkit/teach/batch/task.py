"""One notebook, its parameters and its limits: what a batch runs, named by its content.

Making a task reads text only (the lab's source, or the cells of an instructor's notebook); nothing is built or
executed, so thousands of tasks are cheap.

>>> task = make("01", {"seed": 2})
>>> task.run_id
'0c2f6e0f4a9b1d37'
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

import labkit
from labkit import models
from labkit.core.errors import BadInput, LabkitError, MissingPart
from labkit.core.records import Record

# engines that open a model by its file; the others name models of their own server
_FILE_ENGINES = ("llamacpp",)


class Limits(BaseModel):
    """What one run may use; None is no limit. The parent process enforces both."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seconds: float | None = Field(None, gt=0)
    memory_gb: float | None = Field(None, gt=0, description="10^9 bytes, the whole process tree")


class Task(Record):
    """A run to do. `refused` is the sentence why it must not start, or None."""

    lab: str
    notebook: Path = Field(description="a lab's source (.py), executed in its solved form, or any .ipynb, executed as it is")
    content: str = Field(description="sha256 of the cells, outputs left out")
    parameters: dict[str, Any] = Field(default_factory=dict)
    model_sha256: str | None = None
    limits: Limits = Limits()
    refused: str | None = None

    @property
    def run_id(self) -> str:
        """16 hex digits that change when the notebook, a parameter, the model's bytes or labkit's version change."""
        facts = [self.lab, self.content, self.parameters, self.model_sha256, labkit.__version__]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def make(lab: int | str | Path, parameters: dict[str, Any] | None = None, limits: Limits | None = None, base: Path | None = None) -> Task:
    """The task of one lab (number, name) or notebook (path, relative to `base`), with its parameters checked.

    Raises:
        BadInput: no such lab, an unknown or ill-typed parameter, an unknown model.
        MissingPart: the model's weights are not on this machine.
    """
    from labkit.teach.notebooks import parameters as reader

    notebook = find(lab, base)
    cells = light(notebook)
    checked = dict(reader.validate(cells, _absolute_model(dict(parameters or {}), base)))
    defaults = {name: parameter.default for name, parameter in reader.read(cells).items()}
    return Task(
        lab=notebook.stem,
        notebook=notebook,
        content=content_sha256(notebook),
        parameters=checked,
        model_sha256=_model_sha256(notebook, defaults, checked),
        limits=limits or Limits(),
    )


def refused(notebook: Path, parameters: dict[str, Any], limits: Limits, why: LabkitError) -> Task:
    """A row of a batch that must not start, and why."""
    text = " ".join(str(why).split())
    return Task(lab=notebook.stem, notebook=notebook, content=content_sha256(notebook), parameters=parameters, limits=limits, refused=text)


def find(lab: int | str | Path, base: Path | None = None) -> Path:
    """The file behind a lab's number or name (its source), or behind a path to a notebook."""
    from labkit.teach import notebooks

    found = notebooks.find(lab, base=base)
    return (found.source or found.notebook).resolve()


def content_sha256(notebook: Path) -> str:
    """What decides a run: a source's text; of a notebook each cell's kind, text and tags, and the kernel's name."""
    try:
        text = notebook.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {notebook}: {error}", "give the path of a notebook") from error
    if notebook.suffix == ".ipynb":
        text = json.dumps(_essence(notebook, text))
    return hashlib.sha256(text.encode()).hexdigest()


def _essence(notebook: Path, text: str) -> list[Any]:
    return [_json(notebook, text).get("metadata", {}).get("kernelspec", {}).get("name"), *_cells(notebook, text)]


def _cells(notebook: Path, text: str) -> list[tuple[str, str, list[str]]]:
    """Kind, text and tags of each cell."""
    try:
        node = _json(notebook, text)
        return [(cell["cell_type"], "".join(cell["source"]), cell.get("metadata", {}).get("tags", [])) for cell in node["cells"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{notebook} is not a notebook (nbformat 4)", "open it in JupyterLab and save it again") from error


def _json(notebook: Path, text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{notebook} is not a notebook", "give a file that JupyterLab saved") from error


def light(notebook: Path) -> Any:
    """The cells tagged `parameters`, in the shape that labkit.teach.notebooks.parameters reads, without importing nbformat."""
    text = notebook.read_text(encoding="utf-8")
    if notebook.suffix == ".ipynb":
        cells = _cells(notebook, text)
    else:  # py:percent: a cell reaches from its marker to the next one
        parts = re.split(r"^(?=# %%)", text, flags=re.MULTILINE)
        marked = [part.partition("\n") for part in parts if re.match(r"# %%.*\btags=\[[^\]]*[\"']parameters[\"']", part)]
        cells = [("code", body.strip("\n"), ["parameters"]) for _, _, body in marked]
    return SimpleNamespace(cells=[SimpleNamespace(cell_type=kind, source=source, metadata={"tags": tags}) for kind, source, tags in cells])


def _absolute_model(given: dict[str, Any], base: Path | None) -> dict[str, Any]:
    """A run has a folder of its own, so a model's relative path would lead nowhere there."""
    model = given.get("model")
    if isinstance(model, str):
        for folder in (base or Path(), Path()):
            path = folder / Path(model).expanduser()
            if path.exists() and ("/" in model or "\\" in model or path.is_file()):
                return {**given, "model": str(path.resolve())}
    return given


def _model_sha256(notebook: Path, defaults: dict[str, Any], given: dict[str, Any]) -> str | None:
    """Hash of the model that the run will load, None where no file here stands for it.

    One of our labs with a model that is not there is refused, unless it is the lab's own default: then the lab goes on
    with its recording. In an instructor's notebook `model` may mean anything, and an engine behind a URL has models
    of its server's: their names alone are hashed.
    """
    effective = {**defaults, **given}
    model = effective.get("model")
    if not isinstance(model, str) or not model:
        return None
    try:
        return _sha256(_resolved(model, _stamp(Path(model))))
    except LabkitError as error:
        by_file = notebook.suffix == ".py" and effective.get("engine", "llamacpp") in _FILE_ENGINES
        if by_file and ("model" in given or not isinstance(error, MissingPart)):
            raise
        return None


@functools.lru_cache(maxsize=256)
def _resolved(model: str, stamp: tuple[int, int] | None) -> Path:
    # a class's grid names the same model in hundreds of rows, and resolving a file reads its whole header
    return models.resolve(model).path


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None  # a catalogue name
    return stat.st_size, stat.st_mtime_ns


def _sha256(path: Path) -> str:
    if path.is_file():
        return models.sha256_of(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    text = "".join(f"{file.relative_to(path).as_posix()} {models.sha256_of(file)}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()
