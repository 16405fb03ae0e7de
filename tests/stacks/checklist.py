"""A stack's readiness checklist, typed as its README says it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from labkit.servers.images.tool import environment


def items(folder: Path) -> list[tuple[str, str, str]]:
    """(what, command, what it prints) of each item."""
    text = (folder / "README.md").read_text(encoding="utf-8").partition("## Readiness checklist")[2]
    item = re.compile(r"^\d+\. (.+?)\n +```sh\n(.+?)\n +```\n +```text\n(.+?)\n +```$", re.MULTILINE | re.DOTALL)
    rows = [(what, textwrap.dedent(command), textwrap.dedent(said)) for what, command, said in item.findall(text)]
    assert len(rows) == len(re.findall(r"^\d+\. ", text, re.MULTILINE)) >= 8, "an item has no command, or does not say what it prints"
    return rows


def not_as_said(folder: Path, readme: Callable[[str], str]) -> list[tuple[str, str, str, str]]:
    """Items whose command prints something else: what, what it printed, what it should, its errors. readme: with this run's names."""
    tools = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    seen = []
    for what, command, said in items(folder):
        done = subprocess.run(
            ["bash", "-c", readme(command)], cwd=folder, env=environment() | tools, capture_output=True, text=True, timeout=120,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        seen.append((what, done.stdout.strip(), readme(said).strip(), done.stderr[-300:]))
    return [row for row in seen if row[1] != row[2]]
