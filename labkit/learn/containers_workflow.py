"""A CI workflow file (GitHub Actions' schema), its steps run here, in order, as the hosted runner would run them.

Each `run:` text goes into a file, and that file to bash with -e and pipefail, as the runner does it. `uses:` steps are the
runner's own (it checks the repository out, for example); here the repository is there already, so they are only named.

Limits: one job, no expressions (`${{ … }}`) in what is run, no matrix. A step that has them is refused, not guessed.

>>> for row in run(read(path), {"TOOL": "podman"}, root, watch):
...     print(row["step"], row["exit_code"])
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from labkit.core.errors import BadInput

Watch = Callable[[subprocess.Popen[str]], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Step:
    """One step. `run` is empty where an action does it (`uses`); `always`: also after a failure."""

    name: str
    run: str = ""
    uses: str = ""
    always: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A job's steps, what they all have in their environment, and the folder that they run in."""

    name: str
    steps: tuple[Step, ...]
    env: Mapping[str, str]
    folder: str


def read(path: Path) -> Job:
    """The one job of a workflow file. Raises BadInput for what this small runner does not do."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        ((name, job),) = tree["jobs"].items()
        given = job["steps"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise BadInput(f"{path.name} is no workflow with one job ({error})", "labkit lint FILE") from error
    defaults = (job.get("defaults") or {}).get("run") or {}
    steps = tuple(_step(path, number, one) for number, one in enumerate(given, 1))
    return Job(str(name), steps, _texts(tree.get("env")) | _texts(job.get("env")), str(defaults.get("working-directory", ".")))


def _step(path: Path, number: int, one: Mapping[str, Any]) -> Step:
    condition = str(one.get("if", ""))
    if condition not in ("", "always()") or "${{" in str(one.get("run", "")) or "${{" in str(one.get("env", "")):
        raise BadInput(f"step {number} of {path.name} has an expression that only the hosted runner can fill in", "leave it out here")
    name = str(one.get("name") or one.get("uses") or f"step {number}")
    return Step(name, str(one.get("run", "")), str(one.get("uses", "")), condition == "always()", _texts(one.get("env")))


def _texts(found: Mapping[str, Any] | None) -> dict[str, str]:
    return {str(name): str(value) for name, value in (found or {}).items()}


def run(job: Job, given: Mapping[str, str], folder: Path, watch: Watch, seconds: float = 300) -> Iterator[dict[str, Any]]:
    """Run the steps in order; after a failure only those that say `always()`. One row each, as soon as it has ended.

    given: what this machine sets otherwise than the file's `env` (podman for docker, names of this run).
    watch: a context around each step's process, for whoever ends it when this process is killed.
    A row: step, command, exit_code (None: not run), seconds, said (the last lines of both streams), result.
    """
    failed = False
    scratch = folder / ".runner"  # in the caller's folder: whoever removes that removes it too
    scratch.mkdir(exist_ok=True)
    for step in job.steps:
        if step.uses:
            yield _row(step, None, 0.0, "", "done by the hosted runner; the files are here already")
        elif failed and not step.always:
            yield _row(step, None, 0.0, "", "skipped: a step before it failed")
        else:
            surroundings = {**os.environ, "RUNNER_TEMP": str(scratch), **job.env, **step.env, **given}
            row = _one(step, surroundings, folder / job.folder, scratch, watch, seconds)
            failed = failed or row["exit_code"] != 0
            yield row


def _one(step: Step, surroundings: Mapping[str, str], folder: Path, scratch: Path, watch: Watch, seconds: float) -> dict[str, Any]:
    script = scratch / "step.sh"
    script.write_text(step.run, encoding="utf-8")
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
    begin = time.perf_counter()
    with subprocess.Popen(
        words, cwd=folder, env=surroundings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            with watch(process):
                said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return _row(step, 124, seconds, process.communicate()[0], f"stopped after {seconds:.0f} s")
        except BaseException:
            # Ctrl-C: the whole group of the step, not the shell alone; a tool that is killed outright leaves half an image
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    return _row(step, process.returncode, time.perf_counter() - begin, said, "passed" if process.returncode == 0 else "FAILED")


def _row(step: Step, exit_code: int | None, seconds: float, said: str, result: str) -> dict[str, Any]:
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    return {
        "step": step.name,
        "command": step.run.strip() or f"uses: {step.uses}",
        "exit_code": exit_code,
        "seconds": seconds,
        "said": [line[:160] for line in lines[-4:]],
        "result": result,
    }
