"""Write what the docs take from the code: the page of commands, the page of claims and the tables of labs.

Use: .venv/bin/python scripts/reference.py            write what has changed
     .venv/bin/python scripts/reference.py --check    write nothing; exit 1 and name what is not up to date
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from labkit.facts import claims, live
from labkit.teach import readme

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ROOT / "docs" / "reference" / "commands.md"
CLAIMS = ROOT / "docs" / "reference" / "claims.md"
HEAD = """\
# Commands

This page is made from `labkit --help` by `scripts/reference.py`.

Data goes to stdout, progress and sentences to stderr; with `--json` a command prints one JSON object a line.
Exit codes: 0 done, 1 ran and failed, 2 bad input or a missing part (one sentence says which), 130 interrupted.
"""


CLAIMS_HEAD = """\
# What people say

This page is made from `data/claims.toml` by `scripts/reference.py`. Each statement was found in published material and is
told here in our words, with what is true and where that can be read.

`labkit claims` decides what arithmetic and installed files can; `labkit claims --live` also starts Ollama, Foundry Local and
llama-server on your machine and asks them. *confirmed* means that what was seen supports the verdict printed here.
"""


def commands(command: Any, name: str, context: Any = None) -> Iterator[str]:
    """The Markdown of a command and of those under it; hidden ones are left out."""
    here = command.context_class(command, info_name=name, parent=context, max_content_width=10_000)
    parts = [f"## `{here.command_path}`", paragraphs(command.help or "")]
    parts.append(f"```\n{here.command_path} {' '.join(command.collect_usage_pieces(here))}".rstrip() + "\n```")
    rows = [
        record for parameter in command.params if not getattr(parameter, "hidden", False) and (record := parameter.get_help_record(here))
    ]
    if rows:
        table = [f"| `{cell(left)}` | {cell(right)} |" for left, right in rows]
        parts.append("\n".join(["| | |", "|---|---|", *table]))
    if context is not None or not hasattr(command, "commands"):
        yield "\n\n".join(part for part in parts if part)
    for child, below in sorted(getattr(command, "commands", {}).items()):
        if not below.hidden:
            yield from commands(below, child, here)


def paragraphs(text: str) -> str:
    """A docstring as Markdown: one line a paragraph, without the form feed that ends the help."""
    blocks = text.split("\f")[0].strip().split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def commands_page() -> str:
    from labkit import cli

    # the modules next to it add their commands to `app` when they are imported
    for module in pkgutil.iter_modules(cli.__path__, "labkit.cli."):
        importlib.import_module(module.name)
    app = cli.app
    return "\n\n".join([HEAD.strip(), *commands(typer.main.get_command(app), "labkit")]) + "\n"


def claims_page() -> str:
    """The ledger as Markdown, in its own order."""
    return "\n\n".join([CLAIMS_HEAD.strip(), *map(claim_part, claims.load().values())]) + "\n"


def claim_part(claim: claims.Claim) -> str:
    see = f"`{claim.see}`" if claim.seen_by == "command" else claim.see
    ways = [see]
    if claim.id in live.CHECKS:
        ways.insert(0, f"`labkit claims{' --live' if live.server_of(claim.id) else ''} {claim.id}`")
    told = "Cannot be checked as it stands" if claim.verdict == "unverified" else claim.verdict.capitalize()
    how = " · ".join(dict.fromkeys(ways))
    return f"## {claim.says}\n\n**{told}.** {claim.truth}\n\nSource: {claim.source}. See it: {how}"


def main(arguments: list[str]) -> int:
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    stale = readme.write_tables(check=check, root=ROOT)
    for path, page in ((COMMANDS, commands_page()), (CLAIMS, claims_page())):
        if not path.is_file() or path.read_text(encoding="utf-8") != page:
            stale.append(path.relative_to(ROOT).as_posix())
            if not check:
                path.write_text(page, encoding="utf-8")
    for name in stale:
        sys.stderr.write(f"{name}: {'not up to date; run make docs' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
