"""Which notebook is meant? By number, by name, or by path.

>>> find(2).name  # doctest: +SKIP
'02_model_selection'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from labkit.core import paths
from labkit.core.errors import BadInput, nearest

_SOURCE = re.compile(r"\d\d_\w+\.py")


@dataclass(frozen=True)
class LabFile:
    """A notebook that can be run: one of the course's labs, or somebody's own (then `source` is None)."""

    name: str
    notebook: Path
    source: Path | None = None

    @property
    def number(self) -> str:
        """'02' of 02_model_selection; of an instructor's own notebook its name."""
        return self.name[:2] if self.source else self.name


def sources(root: Path | None = None) -> list[Path]:
    """The labs' sources in order of their numbers; `root` is a checkout, by default this one."""
    folder = (root or paths.home()) / "labs" / "sources"
    return sorted(path for path in folder.glob("*.py") if _SOURCE.fullmatch(path.name))


def notebook_of(source: Path) -> Path:
    """Where the learner's notebook of a source is committed."""
    return source.parent.parent / f"{source.stem}.ipynb"


def find(name: int | str | Path, base: Path | None = None, root: Path | None = None) -> LabFile:
    """A lab by number (2, "2", "02"), by name, or any notebook by its path, which may be relative to `base`.

    Raises:
        BadInput: there is none; the nearest name is suggested.
    """
    labs = {path.stem: LabFile(path.stem, notebook_of(path), path) for path in sources(root)}
    text = str(name)
    if text.isdecimal():
        text = f"{int(text):02d}"
    for stem, lab in labs.items():
        if text in (stem, stem[:2], stem[3:]):
            return lab
    if text.endswith((".ipynb", ".py")):
        return _by_path(Path(text), base, labs)
    raise BadInput(f"there is no lab {str(name)!r}", nearest(text, labs) if labs else "give the path of a notebook")


def _by_path(given: Path, base: Path | None, labs: dict[str, LabFile]) -> LabFile:
    path = ((base or Path.cwd()) / given.expanduser()).resolve()
    for lab in labs.values():
        if lab.source and path in (lab.notebook.resolve(), lab.source.resolve()):
            return lab
    if path.suffix != ".ipynb":
        raise BadInput(f"{given} is not a notebook", "give a file that ends in .ipynb, or the number of a lab")
    if not path.is_file():
        names = [near.name for near in path.parent.glob("*.ipynb")] if path.parent.is_dir() else []
        raise BadInput(f"there is no notebook {given}", nearest(path.name, names) if names else f"look into {path.parent}")
    return LabFile(path.stem, path)
