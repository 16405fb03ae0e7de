"""Printing: JSON lines for programs, tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from labkit.core import results


def emit(rows: Iterable[BaseModel | dict[str, Any]]) -> None:
    """One JSON object a line, flushed at once."""
    for row in rows:
        print(results.dumps(row), flush=True)  # noqa: T201


def say(sentence: str) -> None:
    """A sentence for the reader, on stderr."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Table

    out = Table(title=title, title_justify="left")
    for n, column in enumerate(columns):
        out.add_column(column, justify="left" if n == 0 else "right", overflow="fold")
    for row in rows:
        out.add_row(*("" if cell is None else str(cell) for cell in row))
    Console().print(out)


def number(value: float | None, unit: str = "", digits: int = 3) -> str:
    """A few significant digits, or 'unknown'."""
    return "unknown" if value is None else f"{value:.{digits}g}{unit}"


def size(count: float | None) -> str:
    """Bytes in decimal units, as files are sold."""
    if count is None:
        return "unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    return ""
