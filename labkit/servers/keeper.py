"""Ends a server whose starter is gone, and removes its folder. A program of its own: python keeper.py PARENT PID [FOLDER].

For servers that do not notice when the process that started them is killed. It ends with the server.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

GRACE_S = 5.0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_group(pid: int, number: int) -> None:
    """Signal a server and all that it started: it leads a process group of its own, so no other process is in it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def clear_group(pid: int, seconds: float = GRACE_S) -> None:
    """End what a server has left: SIGTERM, so that who tidies up after others can do so (Python's own such helper), then SIGKILL."""
    end_group(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while _group_alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    end_group(pid, signal.SIGKILL)


def _group_alive(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main(parent: int, pid: int, folder: str | None = None) -> None:
    while alive(pid):
        if os.getppid() != parent:
            clear_group(pid)
            break
        time.sleep(0.5)
    if folder and os.getppid() != parent:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4])
