"""Mechanical fixes: a word of a line is replaced by another. Done again it changes nothing; the file is written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from labkit.core import paths
from labkit.facts.lint import Checked, check_text, read
from labkit.facts.lint.model import Edit

ROUNDS = 5  # a line may need more than one


def apply(text: str, edits: Sequence[Edit]) -> str:
    """The text with every edit whose word stands on its line, once."""
    rows = text.split("\n")
    for edit in edits:
        if 1 <= edit.line <= len(rows) and edit.old:
            before = r"(?<![\w])" if re.match(r"\w", edit.old) else ""
            after = r"(?![\w])" if re.search(r"\w$", edit.old) else ""
            rows[edit.line - 1] = re.sub(before + re.escape(edit.old) + after, lambda _, new=edit.new: new, rows[edit.line - 1], count=1)  # type: ignore[misc]
    return "\n".join(rows)


def fixed(path: str, text: str) -> str:
    """The text after all mechanical fixes; the same text where there are none."""
    for _ in range(ROUNDS):
        found: Checked = check_text(path, text)
        changed = apply(text, found.edits)
        if changed == text or len(check_text(path, changed).findings) >= len(found.findings):
            break  # a fix that mends nothing is not made
        text = changed
    return text


def fix(path: Path) -> bool:
    """Mend a file in place; says whether it changed. Raises BadInput where it cannot be read."""
    before = read(path)
    after = fixed(str(path), before)
    if after == before:
        return False
    raw = path.read_bytes()
    mode = path.stat().st_mode & 0o777
    with paths.atomic(path.resolve(), "wb") as file:
        file.write((b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b"") + after.encode("utf-8"))
    path.resolve().chmod(mode)  # a script stays one that can be run
    return True
