"""What the site takes from outside docs/: the built notebooks of labs/, as they are, at notebooks/.

Pages of instructors that `labkit build` wrote to docs/labs/ get their place in the navigation. mkdocs calls these by name.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "notebooks"


def notebooks() -> list[Path]:
    return sorted((ROOT / "labs").glob("[0-9][0-9]_*.ipynb"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the two sections of the navigation that depend on what is built; an empty one goes."""
    instructors = sorted((ROOT / "docs" / "labs").glob("[0-9][0-9]_*.md"))
    pages = {
        "Labs": [f"{FOLDER}/{path.name}" for path in notebooks()],
        "For instructors": [{f"Lab {path.name[:2]}": f"labs/{path.name}"} for path in instructors],
    }
    for entry in config.nav or []:
        for title in pages.keys() & entry.keys():
            entry[title] = pages[title]
    config.nav = [entry for entry in config.nav or [] if list(entry.values()) != [[]]]
    return config


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks. mkdocs-jupyter wants a file's folder to end as its address does, so they are copied first."""
    stage = ROOT / "build" / "docs"
    shutil.rmtree(stage, ignore_errors=True)
    (stage / FOLDER).mkdir(parents=True)
    for path in notebooks():
        shutil.copyfile(path, stage / FOLDER / path.name)
        files.append(File(f"{FOLDER}/{path.name}", str(stage), config.site_dir, config.use_directory_urls))
    return files
