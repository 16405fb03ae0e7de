"""Commands that check what people say and copy: claims."""

from __future__ import annotations

from typing import Annotated

import typer

from labkit.cli import app
from labkit.cli.show import emit, say, table

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]


@app.command()
def claims(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Claims by id; none: all of the ledger.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Start Ollama, Foundry Local and llama-server in turn, and ask them.")
    ] = False,
    json: Json = False,
) -> int:
    """Is what people say true on this machine? Says, the ledger's verdict, and whether what was seen here supports it.

    Without --live only what arithmetic, installed files and libraries can decide. Exit code 1 where anything seen here
    contradicts the ledger.
    """
    from labkit.facts.live import start

    refuted, shown, cells = 0, {"confirmed": 0, "refuted": 0, "not-run": 0}, []
    for row in start.decide(ids or (), live, say):
        shown[row["shown"]] += 1
        refuted += row["shown"] == "refuted"
        if json:
            emit([row])
        else:
            cells.append((row["id"], row["says"], row["verdict"], row["shown"], row["why"]))
    if not json:
        table("What people say", ("id", "they say", "it is", "shown here", "why"), cells)
    say(", ".join(f"{count} {word}" for word, count in shown.items()))
    return 1 if refuted else 0
