"""One self-contained HTML page over the runs of a folder, and the same table for the terminal.

The page needs no network and no script: pictures are inside it. What was recorded and not measured here says so.

>>> write(Path("build/class"))
PosixPath('build/class/index.html')
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from labkit.core import machine, paths, results
from labkit.core.errors import BadInput
from labkit.core.records import RunRecord, now
from labkit.teach import recordings
from labkit.teach.batch.run import RUNS, finished, results_path

if TYPE_CHECKING:
    from rich.table import Table

_MAX_SHOWN = 6  # runs of one lab whose figures are in the page
_STATUS = {"ok": ("✓", "ok"), "cached": ("✓", "ok"), "failed": ("✗", "failed"), "refused": ("⊘", "refused"), "timeout": ("!", "timeout")}


@dataclass
class Picture:
    """A figure of an executed notebook: base64 PNG, and the heading that it stands under."""

    png: str
    title: str


@dataclass
class Run:
    """A row of the page: the run's record and what its folder holds."""

    record: RunRecord
    link: str | None
    lines: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    @property
    def parameters(self) -> str:
        return words(self.record.parameters)

    @property
    def recorded(self) -> bool:
        return self.record.source == "recorded"

    @property
    def status(self) -> tuple[str, str]:
        """A sign and a word: colour alone tells nothing to many readers."""
        return _STATUS[self.record.status]

    @property
    def seconds(self) -> str:
        return "–" if self.record.seconds is None else f"{self.record.seconds:.1f}"

    @property
    def memory(self) -> str:
        return "–" if self.record.peak_memory_bytes is None else f"{self.record.peak_memory_bytes / 1e6:.0f}"


def write(folder: Path, page: Path | None = None) -> Path:
    """Write the page of a batch folder, to `page` (a file, or a folder for its index.html; default: the batch's own).

    Raises:
        BadInput: the folder holds no runs, or the page cannot be written.
    """
    folder = Path(folder)
    page = _page(folder, page)
    runs = _runs(folder, page.parent)
    text = _html(runs)
    try:
        with paths.atomic(page, "w") as file:
            file.write(text)
    except OSError as error:
        raise BadInput(f"cannot write {page}: {error.strerror or error}", "free some space or choose another folder") from error
    return page


def table(records: Iterable[RunRecord]) -> Table:
    """The runs as a Rich table, for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    out = Table(title="Labs", title_justify="left")
    for name, justify in (("lab", "left"), ("result", "left"), ("source", "left"), ("seconds", "right"), ("peak MB", "right")):
        out.add_column(name, justify=justify)  # type: ignore[arg-type]
    out.add_column("parameters", overflow="fold")
    for record in records:
        run = Run(record, None)
        sign, word = run.status
        word = "cached" if record.status == "cached" else word
        colour = "green" if record.status in ("ok", "cached") else "red"
        source = record.source or "–"
        result = f"[{colour}]{sign} {word}[/]"
        out.add_row(escape(record.lab), result, source.upper() if run.recorded else source, run.seconds, run.memory, escape(run.parameters))
        if record.error:
            out.add_row("", "", "", "", "", f"[{colour}]{escape(record.error)}[/]")
    return out


def words(parameters: dict[str, Any]) -> str:
    """Parameters as a reader writes them; a path by its last part."""
    shown = {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value for name, value in parameters.items()
    }
    return ", ".join(f"{name}={value}" for name, value in shown.items()) or "as they are"


def pictures(notebook: Path) -> list[Picture]:
    """The PNG figures of an executed notebook; none where it was cut off in the middle of writing."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return []
    found: list[Picture] = []
    title = notebook.stem
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            headings = re.findall(r"^#+ +(.+?) *$", source, flags=re.MULTILINE)
            title = re.sub(r"[`*_]", "", headings[-1]) if headings else title
        for output in cell.get("outputs", []):
            png = output.get("data", {}).get("image/png")
            if png:
                found.append(Picture(re.sub(r"\s", "", "".join(png)), title))
    return found


def _page(folder: Path, page: Path | None) -> Path:
    if page is None:
        return folder / "index.html"
    page = Path(page)
    return page if page.suffix in (".html", ".htm") else page / "index.html"


def _runs(folder: Path, page_folder: Path) -> list[Run]:
    if not (folder / RUNS).is_file():
        raise BadInput(f"{folder} holds no runs", f"labkit run --out {folder}")
    found = []
    # of a lab that was edited in between, the newest run with the same parameters
    newest = {(record.lab, results.dumps(record.parameters)): record for record in finished(folder).values()}
    for record in newest.values():
        notebook = folder / "runs" / record.run_id / f"{record.lab}.ipynb"
        there = notebook.is_file()
        link = quote(Path(os.path.relpath(notebook.resolve(), page_folder.resolve())).as_posix()) if there else None
        file = results_path(notebook.parent, record.parameters)
        found.append(Run(record, link, _lines(file), pictures(notebook) if there else []))
    return sorted(found, key=lambda run: (run.record.lab, json.dumps(run.record.parameters, sort_keys=True)))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Result lines of a run; an instructor's own file of another kind has none for us."""
    try:
        return [line for line in results.read(path) if isinstance(line, dict) and isinstance(line.get("rows"), list)]
    except (BadInput, UnicodeDecodeError, OSError):
        return []


def _html(runs: list[Run]) -> str:
    import jinja2

    from labkit.teach import report_plots

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    labs: dict[str, list[Run]] = {}
    for run in runs:
        labs.setdefault(run.record.lab, []).append(run)
    good = sum(run.status[1] == "ok" for run in runs)
    return environment.get_template("report.html").render(
        runs=runs,
        labs=[
            {
                "name": name,
                "shown": [run for run in members if run.pictures][:_MAX_SHOWN],
                "hidden": max(0, sum(bool(run.pictures) for run in members) - _MAX_SHOWN),
                "comparisons": report_plots.comparisons([(run.record, run.lines) for run in members]),
            }
            for name, members in labs.items()
        ],
        good=good,
        bad=len(runs) - good,
        recorded=sum(run.recorded for run in runs),
        minutes=sum(run.record.seconds or 0 for run in runs) / 60,
        machines=_machines(runs),
        versions=recordings.versions(),
        date=now().replace("T", " ").replace("+00:00", " UTC"),
    )


def _machines(runs: list[Run]) -> list[tuple[str, str]]:
    """("measured on" or "recorded on", machine): from the result lines; without any, the machine of this page."""
    found: dict[tuple[str, str], None] = {}
    for run in runs:
        for line in run.lines:
            facts = line.get("machine")
            if isinstance(facts, dict):
                source = "recorded" if line.get("source") == "recorded" else "measured"
                found[(f"{source} on", _machine(facts, str(line.get("timestamp", ""))[:10] if source == "recorded" else ""))] = None
    return list(found) or [("written on", machine.caption())]


def _machine(facts: dict[str, Any], date: str) -> str:
    memory = facts.get("memory_bytes")
    parts = [
        str(facts.get("cpu", "unknown processor")),
        f"{facts['cores']} cores" if "cores" in facts else "",
        f"{memory / 2**30:.1f} GiB" if isinstance(memory, int | float) else "",
        f"{facts.get('system', '')} {facts.get('architecture', '')}".strip(),
        date,
    ]
    return ", ".join(part for part in parts if part)
