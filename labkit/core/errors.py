"""The few kinds of error, each one sentence with its cause and the next command to type.

`cli.py` turns them into exit codes: BadInput and MissingPart 2, RunFailed 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LabkitError(Exception):
    """Base of all errors that labkit raises on purpose; `next` is the command that helps."""

    exit_code = 1

    def __init__(self, cause: str, next: str = "") -> None:
        self.cause = cause
        self.next = next
        super().__init__(f"{cause} — {next}" if next else cause)

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it, by IPython's protocol: the sentence, without the lines of code that led there."""
        return [f"{type(self).__name__}: {self}"]


class BadInput(LabkitError):
    """What was asked cannot be done as asked: an unknown name, a broken file, too little memory."""

    exit_code = 2


class MissingPart(LabkitError):
    """An engine, package or program is not installed; `next` installs it."""

    exit_code = 2


class RunFailed(LabkitError):
    """It ran, and failed."""

    exit_code = 1


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean …?' for the closest known name, else the known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    more = f" and {len(names) - 12} more" if len(names) > 20 else ""
    return "known: " + ", ".join(names[:12] if more else names) + more
