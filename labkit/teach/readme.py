"""The table of labs in README.md and on the site's course map: made from the labs' headers, between two markers.

Everything between `<!-- labs:begin -->` and `<!-- labs:end -->` belongs to this module; the rest of a page is its
author's.

>>> fill(Path("README.md"), labs_table())  # doctest: +SKIP
False
"""

from __future__ import annotations

from pathlib import Path

from labkit.core import paths
from labkit.core.errors import BadInput
from labkit.teach.notebooks.front import Front, front
from labkit.teach.notebooks.locate import sources

BEGIN, END = "<!-- labs:begin -->", "<!-- labs:end -->"
# the pages that carry the table, and where each finds a lab's notebook
PAGES = {"README.md": "labs/{stem}.ipynb", "docs/index.md": "notebooks/{stem}.ipynb"}


def labs_table(link: str = PAGES["README.md"], root: Path | None = None) -> str:
    """One row a lab, in Markdown; `link` says where a page finds a lab's notebook, as a format of `stem`."""
    lines = ["| lab | track | minutes | memory | builds on | platforms |", "|---|---|---|---|---|---|"]
    for source in sources(root):
        lines.append(_row(source.stem, front(source), link))
    return "\n".join(lines)


def _row(stem: str, about: Front, link: str) -> str:
    minutes = f"{about.minutes:g}" if about.minutes else "?"
    memory = f"{about.memory_gb:g} GB" if about.memory_gb else "?"
    name = f"[{stem[:2]} {about.title}]({link.format(stem=stem)})"
    track = ", ".join(word.capitalize() for word in about.track)
    return f"| {name} | {track} | {minutes} | {memory} | {', '.join(about.builds_on) or 'nothing'} | {', '.join(about.platforms)} |"


def filled(text: str, table: str) -> str:
    """The page with this table between its markers.

    Raises:
        BadInput: a marker is missing, there twice, or the two are in the wrong order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BadInput("the page has no place for the table of labs", f"put {BEGIN} and {END} in it, once each, in this order")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def fill(page: Path, table: str, check: bool = False) -> bool:
    """Put the table in; True when the page was not up to date. With `check` nothing is written."""
    old = page.read_text(encoding="utf-8")
    new = filled(old, table)
    if new != old and not check:
        with paths.atomic(page) as file:
            file.write(new.encode())
    return new != old


def write_tables(check: bool = False, root: Path | None = None) -> list[str]:
    """Bring every page of PAGES up to date; the names of those that were not."""
    home = root or paths.home()
    return [name for name, link in PAGES.items() if fill(home / name, labs_table(link, root), check)]
