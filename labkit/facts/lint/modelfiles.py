"""A Modelfile as Ollama's own parser reads it: an instruction is a word of letters, its value ends with the line unless a quote is open."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    name: str  # as written
    value: str  # unquoted
    line: int
    value_line: int
    closed: bool = True
    raw: str = ""


def parse(text: str, first: int = 1) -> list[Instruction]:
    out: list[Instruction] = []
    rows = text.split("\n")
    at = 0
    while at < len(rows):
        row, line = rows[at].rstrip("\r"), at + first
        at += 1
        if not row.strip() or row.lstrip().startswith("#"):
            continue
        found = re.match(r"\s*(\S+)[ \t]*(.*)$", row)
        if not found:
            continue
        value, closed = found[2], True
        body = _quoted_part(found[1], value)
        for mark in ('"""', '"'):
            if body.startswith(mark):
                tail = body[len(mark) :]
                while not (tail.rstrip().endswith(mark) or (mark == '"' and body.count('"') > 1)):
                    if at >= len(rows):
                        closed = False
                        break
                    tail = tail + "\n" + rows[at]
                    at += 1
                raw_end = tail.rstrip()
                if mark == '"""' or tail is not body[1:]:
                    value = value[: len(value) - len(body)] + mark + tail
                inner = raw_end[: -len(mark)] if closed and raw_end.endswith(mark) else tail
                out.append(Instruction(found[1], value[: len(value) - len(mark + tail)] + inner, line, line, closed, value))
                break
        else:
            out.append(Instruction(found[1], value.strip(), line, line, True, value))
    return out


def _quoted_part(name: str, value: str) -> str:
    """What may open a quote: behind the parameter's name, or the message's role."""
    if name.upper() in {"PARAMETER", "MESSAGE"}:
        parts = value.split(None, 1)
        return parts[1] if len(parts) == 2 else ""
    return value
