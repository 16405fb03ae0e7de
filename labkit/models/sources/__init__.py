"""Where models come from: one file a source, and one table of their names.

A source looks a model up (`Found`: files, sizes, checksums, licence) and fetches its files into a folder.
`labkit.models.acquire` does what all have in common: licence, refusal of pickle, verification, the place in the cache.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

from labkit.core.errors import BadInput, nearest
from labkit.core.records import Record

# the one table of sources: name -> module that holds look_up and fetch
_MODULES = {
    "hub": "labkit.models.sources.hub",
    "foundry": "labkit.models.sources.foundry",
    "azure": "labkit.models.sources.azure",
    "package": "labkit.models.sources.package",
}


class RemoteFile(Record):
    """One file of a model. `digest` is "kind:hex" as the source states it (sha256, md5 or git-sha1), or None."""

    path: str
    bytes: int | None = None
    digest: str | None = None
    url: str = ""


class Found(Record):
    """What a source knows of a model before anything is fetched."""

    name: str  # as the source calls it
    revision: str
    licence: str | None
    licence_url: str
    files: tuple[RemoteFile, ...]
    local: str | None = None  # a file that is here already: nothing to fetch


class Source(Protocol):
    def look_up(self, name: str, file: str | None = None, endpoint: str | None = None) -> Found: ...

    def fetch(self, found: Found, folder: Path, endpoint: str | None = None) -> dict[str, str]:
        """Get every file into the folder, going on where an earlier try stopped; what each was verified by."""
        ...


def names() -> list[str]:
    return list(_MODULES)


def open(name: str) -> Source:
    """The source of that name. Raises BadInput with the nearest name."""
    if name not in _MODULES:
        raise BadInput(f"no source named {name!r} ({nearest(name, _MODULES)})", "labkit models pull --help")
    return importlib.import_module(_MODULES[name])
