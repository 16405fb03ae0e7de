"""Commands that check what people say and copy: claims, lint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labkit.cli import app
from labkit.cli.show import emit, say

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]


@app.command()
def claims(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Claims by id; none: all of the ledger.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Start Ollama, Foundry Local and llama-server in turn, and ask them.")] = False,
    json: Json = False,
) -> int:
    """Is what people say true on this machine? Says, the ledger's verdict, and whether what was seen here supports it.

    Without --live only what arithmetic, installed files and libraries can decide. Exit code 1 where anything seen here
    contradicts the ledger.
    """
    from labkit.facts.live import start

    shown = {"confirmed": 0, "refuted": 0, "not-run": 0}
    for row in start.decide(ids or (), live, say):
        shown[row["shown"]] += 1
        if json:
            emit([row])
        else:
            print(f"{row['id']}: {row['verdict']} ({row['shown']})\n  said  {row['says']}\n  seen  {row['why']}\n", flush=True)  # noqa: T201
    say(", ".join(f"{count} {word}" for word, count in shown.items()))
    return 1 if shown["refuted"] else 0


@app.command()
def lint(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Modelfile, Dockerfile, YAML, script, .env, Markdown, JSON.")],
    fix: Annotated[bool, typer.Option("--fix", help="Mend in place what can be mended mechanically, then report the rest.")] = False,
    json: Json = False,
) -> int:
    """Find commands, settings and routes that do not exist. Exit code 1 where something was found."""
    from labkit.facts import lint as checker
    from labkit.facts.lint import fix as mend
    from labkit.facts.lint.kinds import IN_WORDS

    for path in files:
        checker.read(path)  # a file that cannot be read ends it before anything is changed or printed
    told: set[str] = set()

    def once(sentence: str) -> None:
        if sentence not in told:
            told.add(sentence)
            say(sentence)

    found = []
    for path in files:
        if fix and mend.fix(path):
            say(f"{path}: mended")
        checked = checker.check(path, once)
        if checked.kind is None:
            say(f"{path}: of no kind that lint knows ({IN_WORDS}); nothing was checked")
        if json:
            emit(checked.findings)
        found += checked.findings
    for one in () if json else found:
        mend_it = f"  instead: {one.fix}" if "/" not in one.rule else " "
        typer.echo(f"{one.file}:{one.line}: {one.message} [{one.rule}]\n{mend_it}  (source: {one.source})")
    say(f"{len(found)} finding{'' if len(found) == 1 else 's'} in {len(files)} file{'' if len(files) == 1 else 's'}")
    return 1 if found else 0
