"""The table of labs, made from the headers of the sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.core.errors import BadInput
from labkit.teach import readme

HEADER = """\
# ---
# labkit:
#   title: {title}
#   minutes: 30
#   memory_gb: 0.6
#   track: [run, shrink]
#   builds_on: [0]
# ---

# %% [markdown]
# # A lab
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    sources = tmp_path / "labs" / "sources"
    sources.mkdir(parents=True)
    (sources / "07_a_lab.py").write_text(HEADER.format(title="How fast?"), encoding="utf-8")
    (sources / "08_no_header.py").write_text("# %% [markdown]\n# # Another\n", encoding="utf-8")
    return tmp_path


def test_a_row_a_lab(course: Path) -> None:
    rows = readme.labs_table(root=course).splitlines()
    assert rows[2] == "| [07 How fast?](labs/07_a_lab.ipynb) | Run, Shrink | 30 | 0.6 GB | 00 | Linux, macOS, Windows |"
    assert rows[3].startswith("| [08 No header](labs/08_no_header.ipynb) |  | ? | ? | nothing |")
    assert len(rows) == 4


def test_filling_touches_only_what_is_between_the_markers() -> None:
    page = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    new = readme.filled(page, "| new |")
    assert new == f"before\n{readme.BEGIN}\n| new |\n{readme.END}\nafter\n"
    assert readme.filled(new, "| new |") == new


@pytest.mark.parametrize("page", ["no markers", f"{readme.END}{readme.BEGIN}", f"{readme.BEGIN}{readme.BEGIN}{readme.END}"])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(BadInput, match="labs:begin"):
        readme.filled(page, "| new |")


def test_check_writes_nothing_and_write_then_has_nothing_to_do(course: Path) -> None:
    for name in readme.PAGES:
        page = course / name
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"{readme.BEGIN}\n{readme.END}\n", encoding="utf-8")
    assert readme.write_tables(check=True, root=course) == list(readme.PAGES)
    assert "07" not in (course / "README.md").read_text(encoding="utf-8")
    assert readme.write_tables(root=course) == list(readme.PAGES)
    assert readme.write_tables(check=True, root=course) == []
    assert "(notebooks/07_a_lab.ipynb)" in (course / "docs" / "index.md").read_text(encoding="utf-8")
