"""Long commands: a line every quarter of a minute, the error that ended them, and nothing left when they are cut short."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from labkit.core.errors import RunFailed
from labkit.servers.images import runs, sweep
from labkit.servers.images.tool import environment, last_line
from labkit.servers.runtimes.base import Say

TICK_S = 15.0


def run(
    words: Sequence[str],
    what: str,
    say: Say,
    remedy: str,
    *,
    added: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> list[str]:
    """Its lines of output. Raises RunFailed with the error line; Ctrl-C ends it and what it started."""
    ours = runs.current()
    ours.kept()
    start = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        list(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment() | dict(added or {}),
        cwd=folder,
        start_new_session=os.name == "posix",
    ) as process:
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reader.start()
        try:
            with ours.watched(process):
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(TICK_S)
                        break
                    say(f"  {what}: {time.monotonic() - start:.0f} s {_step(lines)}".rstrip())
        except BaseException:
            _cut(process)
            ours.unfinished()
            raise
        reader.join(10)
    if process.returncode:
        ours.unfinished()
        raise RunFailed(f"{what} failed: {error_line(lines)}", remedy)
    return lines


def error_line(lines: Sequence[str]) -> str:
    """What went wrong: the tool's last line, and before it the last line of the step that failed."""
    kept = [line.strip() for line in lines if line.strip()]
    last = last_line(kept[-1]) if kept else "it said nothing"
    noise = ("STEP", "-->", "#", "time=", "Error: ", "Successfully")
    before = next((line for line in reversed(kept[:-1]) if not line.startswith(noise)), "")
    return f"{before[:200]} ({last})" if before else last


def _step(lines: Sequence[str]) -> str:
    return next((line.strip()[:100] for line in reversed(lines) if line.startswith(("STEP", "#"))), "")


def _cut(process: subprocess.Popen[str]) -> None:
    if os.name == "posix":
        sweep.end_group(process.pid)
    process.kill()
    process.wait()
