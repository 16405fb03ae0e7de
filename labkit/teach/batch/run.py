"""Run tasks in worker processes; each finished run is one line of DIR/runs.jsonl, at once.

A run that is there with status ok is not executed again: it comes back as `cached` with the figures of its first
run. Everything else (failed, timed out, refused, never reached) is executed again, so the same command resumes a
batch that was interrupted in any way.

>>> with contextlib.closing(run(tasks, Path("build/class"), workers=2)) as records:
...     for record in records: print(record.status)
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import itertools
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout
from pydantic import ValidationError

from labkit.core import results
from labkit.core.errors import BadInput, LabkitError, RunFailed
from labkit.core.records import RunRecord
from labkit.teach.batch.task import Task

if TYPE_CHECKING:
    from labkit.teach.batch.pool import Pool

RUNS = "runs.jsonl"
_POLL_S = 0.5
_LITTLE_BYTES = 64 << 10


def run(
    tasks: Iterable[Task], out: Path, workers: int = 1, executor: concurrent.futures.Executor | None = None, progress: bool = True
) -> Iterator[RunRecord]:
    """Execute the tasks that DIR does not have yet; yields one record a task: cached and refused ones first.

    Args:
        out: folder of the batch; runs.jsonl and runs/<run_id>/ are made in it.
        workers: runs at a time, with the default executor.
        executor: any concurrent.futures.Executor instead (its processes must see `out` under the same path).
        progress: a progress bar on stderr while notebooks run.

    Raises:
        BadInput: the folder cannot be written, is full, or belongs to a batch that is running now.
        RunFailed: the executor or the worker processes cannot be used.
        KeyboardInterrupt: after the workers were stopped; finished runs are kept.
    """
    if workers < 1:
        raise BadInput(f"workers must be at least 1, not {workers}", "labkit batch GRID.yaml --out DIR --workers 2")
    unique = list({task.run_id: task for task in tasks}.values())
    return _run(unique, Path(out).resolve(), workers, executor, progress)


def exit_code(records: Iterable[RunRecord]) -> int:
    """0 when every run is ok or cached, else 1."""
    return int(any(record.status not in ("ok", "cached") for record in records))


def finished(out: Path) -> dict[str, RunRecord]:
    """The newest record of each run of a batch, by run_id, in the order in which they were written."""
    path = out / RUNS
    found: dict[str, RunRecord] = {}
    try:
        for line in results.read(path):
            record = RunRecord.model_validate(line)
            found.pop(record.run_id, None)
            found[record.run_id] = record
    except ValidationError as error:
        raise BadInput(f"{path} holds a line that is no run record", "choose another folder, or move the file away") from error
    return found


def _run(tasks: list[Task], out: Path, workers: int, executor: concurrent.futures.Executor | None, progress: bool) -> Iterator[RunRecord]:
    with _locked(out):
        before = finished(out)
        todo: list[Task] = []
        for task in tasks:
            old = before.get(task.run_id)
            notebook = _folder(out, task) / f"{task.lab}.ipynb"
            if task.refused:
                record = RunRecord(run_id=task.run_id, lab=task.lab, parameters=task.parameters, status="refused", error=task.refused)
                if old != record:
                    results.append(out / RUNS, [record])
                yield record
            elif old is not None and old.status == "ok" and notebook.is_file():
                yield old.model_copy(update={"status": "cached", "notebook": str(notebook)})
            else:
                todo.append(task)
        if todo:
            yield from _execute_all(todo, out, min(workers, len(todo)), executor, progress)


def _execute_all(
    todo: list[Task], out: Path, workers: int, given: concurrent.futures.Executor | None, progress: bool
) -> Iterator[RunRecord]:
    from tqdm import tqdm

    token = uuid.uuid4().hex
    pool = _pool(token)
    executor = given or concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="labkit-batch")
    # with our own executor few runs are handed over ahead, so that a program that ends early does not have to run them all
    ahead = len(todo) if given else 2 * workers
    waiting = iter(todo)
    pending: set[concurrent.futures.Future[RunRecord]] = set()
    with tqdm(total=len(todo), desc="batch", unit="run", disable=None if progress else True, leave=False) as bar:
        try:
            while True:
                pending |= {executor.submit(execute, task, out, token) for task in itertools.islice(waiting, ahead - len(pending))}
                if not pending:
                    break
                # with a timeout, Ctrl-C gets through on every system
                done, pending = concurrent.futures.wait(pending, _POLL_S, concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    record = _result(future)
                    bar.update()
                    yield record
        finally:
            for future in pending:
                future.cancel()
            pool.close()
            if given is None:
                executor.shutdown(wait=True, cancel_futures=True)


def execute(task: Task, out: Path, token: str) -> RunRecord:
    """One run, in this thread, by a worker process of this batch; its record is in runs.jsonl when this returns."""
    pool = _pool(token)
    with pool.worker() as worker:
        folder = _folder(out, task)
        with _space(folder):
            if folder.exists():  # what an interrupted or failed attempt left
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
        outcome = worker.execute(task, folder, pool.stop)
    if outcome.status == "disk" or (outcome.status == "failed" and shutil.disk_usage(out).free < _LITTLE_BYTES):
        # not this notebook's fault, and the next one would fare no better
        raise _no_space(out, outcome.error if outcome.status == "disk" and outcome.error else os.strerror(errno.ENOSPC))
    notebook = folder / f"{task.lab}.ipynb"
    record = RunRecord.model_validate(
        {
            "run_id": task.run_id,
            "lab": task.lab,
            "parameters": task.parameters,
            "status": outcome.status,
            "source": _source(folder, task.parameters),
            "seconds": round(outcome.seconds, 3),
            "peak_memory_bytes": outcome.peak_memory_bytes,
            "notebook": str(notebook) if notebook.is_file() else None,
            "error": outcome.error,
        }
    )
    results.append(out / RUNS, [record])
    return record


def results_path(folder: Path, parameters: dict[str, Any]) -> Path:
    """The result file of a run, whose folder was its working directory."""
    given = parameters.get("results_path")
    return folder / (given if isinstance(given, str) and given else "results.jsonl")


def _source(folder: Path, parameters: dict[str, Any]) -> Literal["measured", "recorded"] | None:
    try:
        sources = [line.get("source") for line in results.read(results_path(folder, parameters)) if isinstance(line, dict)]
    except (BadInput, OSError, UnicodeDecodeError):
        return None  # an instructor's own file of another kind
    if not sources:
        return None
    return "recorded" if "recorded" in sources else "measured"


def _folder(out: Path, task: Task) -> Path:
    return out / "runs" / task.run_id


def _result(future: concurrent.futures.Future[RunRecord]) -> RunRecord:
    try:
        return future.result()
    except concurrent.futures.BrokenExecutor as error:
        raise RunFailed(f"the executor broke down ({error})", "start the batch again: finished runs are kept") from error


# batch -> its workers in this process; a batch that has ended keeps a closed pool, which starts nothing more
_POOLS: dict[str, Pool] = {}


def _pool(token: str) -> Pool:
    """The batch's workers in this process. In a process of someone's executor they are made when its first task comes."""
    from labkit.teach.batch.pool import Pool

    if token not in _POOLS and multiprocessing.parent_process() is not None:
        for earlier in list(_POOLS.values()):  # of an earlier batch on the same executor
            earlier.close()
    return _POOLS.setdefault(token, Pool())


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """One batch at a time in a folder; the lock goes with the process that holds it."""
    lock = FileLock(out / ".lock")
    with _space(out):
        out.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BadInput(f"another batch is running in {out}", "wait until it ends, or give another --out") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _space(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _no_space(path, os.strerror(error.errno)) from error
        raise BadInput(f"cannot write {path}: {error.strerror or error}", "choose another folder with --out") from error


def _no_space(path: Path, why: str) -> LabkitError:
    return BadInput(f"cannot write {path}: {why}", "free some space and start the batch again: finished runs are kept")
