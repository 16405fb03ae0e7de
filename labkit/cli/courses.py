"""Commands on labs: run, batch, report, build, lab."""

from __future__ import annotations

import contextlib
import datetime
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from labkit.cli import app
from labkit.cli.show import emit, say, table
from labkit.core import paths
from labkit.core.errors import BadInput
from labkit.core.records import RunRecord

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
OutOpt = Annotated[Path | None, typer.Option("--out", help="Folder of the runs; an earlier one is resumed.")]


@app.command()
def run(
    labs: Annotated[list[str] | None, typer.Argument(metavar="LAB…", help="Numbers, names or notebooks; none means all labs.")] = None,
    parameters: Annotated[list[str] | None, typer.Option("-p", metavar="NAME VALUE", help="A parameter, as in -p model PATH.")] = None,
    out: OutOpt = None,
    record: Annotated[bool, typer.Option("--record", help="Keep the run as the lab's recording.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Also write the report page here.")] = None,
    json: Json = False,
) -> int:
    """Execute labs from top to bottom, in their solved form."""
    from labkit.teach import batch, notebooks
    from labkit.teach.batch import task as jobs
    from labkit.teach.notebooks import parameters as kinds

    folder = out or paths.home() / "build" / "runs" / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    tasks = []
    for name in labs or [path.stem for path in notebooks.sources()]:
        given = kinds.from_text(jobs.light(jobs.find(name, Path.cwd())), _split(parameters))
        tasks.append(batch.make(name, given, base=Path.cwd()))
    records = _each(batch.run(tasks, folder), json)
    if record:
        _keep(records, folder)
    page = _page(folder, report) if report else None
    if not json:
        _summary(records)
    say(f"runs: {folder}" + (f"\nreport: {page}" if page else ""))
    return batch.exit_code(records)


@app.command()
def batch(
    grid: Path,
    out: Annotated[Path, typer.Option("--out", help="Folder of the batch; the same one resumes it.")],
    workers: Annotated[int, typer.Option(min=1)] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs, execute none.")] = False,
    json: Json = False,
) -> int:
    """Execute a grid of labs, models and settings; killed at any moment, the same command resumes."""
    from labkit.teach import batch as batches
    from labkit.teach import report as reports

    tasks = batches.read(grid)
    if dry_run:
        if json:
            emit([{"run_id": t.run_id, "lab": t.lab, "parameters": t.parameters, "refused": t.refused} for t in tasks])
        else:
            table(f"{len(tasks)} runs", ("lab", "parameters", "refused"), [(t.lab, reports.words(t.parameters), t.refused) for t in tasks])
        return 2 if any(t.refused for t in tasks) else 0
    records = _each(batches.run(tasks, out, workers=workers), json)
    if not json:
        _summary(records)
    return batches.exit_code(records)


@app.command()
def report(folder: Path, json: Json = False) -> int:
    """One HTML page over the runs of a folder."""
    page = _page(folder)
    if json:
        emit([{"path": str(page)}])
    else:
        print(page, flush=True)  # noqa: T201
    return 0


@app.command()
def build(
    solved: Annotated[bool, typer.Option("--solved", help="Also the solved notebooks, in build/solved.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 where a notebook has drifted.")] = False,
    json: Json = False,
) -> int:
    """Notebooks from their sources."""
    from labkit.teach import notebooks, pages, readme

    rows = notebooks.write_all(solved=solved, check=check)
    rows += pages.write_pages(check=check)
    rows += [{"path": name, "reason": "its table of labs"} for name in readme.write_tables(check=check)]
    if json:
        emit(rows)
    else:
        for row in rows:
            print(" ".join(str(v) for v in row.values()), flush=True)  # noqa: T201
    return 1 if check and rows else 0


@app.command()
def lab(
    fresh: Annotated[bool, typer.Option("--fresh", help="New copies beside the edited ones.")] = False,
    copy_only: Annotated[bool, typer.Option("--copy-only", help="Make the copies, do not start JupyterLab.")] = False,
) -> int:
    """JupyterLab at the course map, on your own copies of the labs in work/."""
    from labkit.teach.notebooks import work

    for row in work.prepare(fresh=fresh):
        say(" ".join(row.values()))
    if copy_only:
        return 0
    folder = paths.home() / "work"
    where = ["--ServerApp.root_dir", str(folder), "--LabApp.default_url", f"/lab/tree/{work.START}"]
    return subprocess.run([sys.executable, "-m", "jupyterlab", *where], check=False).returncode


def _page(folder: Path, to: Path | None = None) -> Path:
    from labkit.teach import report as reports

    return reports.write(folder, to)


def _each(found: Iterable[RunRecord], json: bool) -> list[RunRecord]:
    """All records, each printed when it is finished."""
    records = []
    with contextlib.closing(found) as stream:  # type: ignore[type-var]
        for row in stream:
            records.append(row)
            if json:
                emit([row])
            elif row.error:
                say(f"{row.lab}: {row.error}")
    return records


def _summary(records: list[RunRecord]) -> None:
    from rich.console import Console

    from labkit.teach import report as reports

    Console().print(reports.table(records))


def _keep(records: list[RunRecord], folder: Path) -> None:
    from labkit.teach import notebooks, recordings

    for row in records:
        if row.status not in ("ok", "cached"):
            raise BadInput(f"{row.lab} did not finish, so it is no recording", f"labkit run {row.lab}")
        source = notebooks.find(row.lab).source
        if source is None:
            raise BadInput(f"{row.lab} is no lab of the course", "only labs have recordings")
        say(f"recorded: {recordings.record(row, folder / 'runs' / row.run_id / 'results.jsonl', source)}")


def _split(pairs: list[str] | None) -> dict[str, str]:
    out = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadInput(f"-p {pair} has no value", "-p NAME VALUE")
        out[name] = value
    return out
