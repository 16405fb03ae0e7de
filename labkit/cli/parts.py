"""Commands on parts that do not come with the Python packages: runtimes, runtimes install, runtimes remove."""

from __future__ import annotations

from typing import Annotated

import typer

from labkit.cli import app
from labkit.cli.show import emit, say, table

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A runtime: labkit runtimes lists them.")]

group = typer.Typer(help="Programs that labkit installs for itself, into your cache folder.", invoke_without_command=True)
app.add_typer(group, name="runtimes")


@group.callback()
def list_runtimes(context: typer.Context, json: Json = False) -> None:
    """Which are ready, and what to type for the rest."""
    if context.invoked_subcommand:
        return
    from labkit.servers import runtimes

    rows = runtimes.rows()
    if json:
        emit(rows)
    else:
        cells = [(r["name"], "yes" if r["ready"] else "no", r["version"], r["install"]) for r in rows]
        table("Runtimes", ("name", "ready", "version", "what to do"), cells)


@group.command()
def install(name: Name, json: Json = False) -> int:
    """Install one, in the version that the labs were tested with. Says what it does on stderr; nothing to do takes a moment."""
    from labkit.servers import runtimes

    found = runtimes.open(name).install(say)
    if json:
        emit([row for row in runtimes.rows() if row["name"] == name])
    else:
        print(found.path, flush=True)  # noqa: T201
    return 0


@group.command()
def remove(name: Name, json: Json = False) -> int:
    """Delete what labkit installed. A program that you installed yourself stays."""
    from labkit.servers import runtimes

    folder = runtimes.open(name).remove()
    say(f"deleted {folder}" if folder else f"labkit has installed no {name}")
    if json:
        emit([row for row in runtimes.rows() if row["name"] == name])
    return 0
