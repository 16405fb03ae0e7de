"""The learner's copies: made, refreshed while untouched, never written over once they are the learner's."""

import json

import pytest

from labkit.teach import notebooks
from labkit.teach.notebooks import work
from labkit.teach.notebooks.build import dumps


def publish(course, source):
    """Commit the learner's form without running anything."""
    source.write_text(source.read_text().replace('tags=["nbval-check-output"]', ""))
    (course / "labs" / "90_fixture.ipynb").write_text(dumps(notebooks.build(source)))


def edit(path, change):
    notebook = json.loads(path.read_text())
    change(notebook)
    path.write_text(json.dumps(notebook))


def reason(course, **options):
    (row,) = work.prepare(root=course, **options)
    return row["path"], row["reason"]


def add_text(notebook):
    notebook["cells"][0]["source"] += ["my note"]


def add_output(notebook):
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "ran"}]


@pytest.mark.parametrize("change", [add_text, add_output])
def test_copies(course, source, change):
    publish(course, source)
    mine = course / "work" / "90_fixture.ipynb"
    assert reason(course) == ("work/90_fixture.ipynb", "new")
    assert reason(course) == ("work/90_fixture.ipynb", "kept")
    assert reason(course, fresh=True) == ("work/90_fixture.ipynb", "kept")  # there is nothing to keep apart

    source.write_text(source.read_text().replace("A small lab", "A better lab"))
    publish(course, source)
    assert reason(course) == ("work/90_fixture.ipynb", "updated")
    assert "A better lab" in mine.read_text()

    edit(mine, change)
    edited = mine.read_bytes()
    assert reason(course) == ("work/90_fixture.ipynb", "kept")
    source.write_text(source.read_text().replace("A better lab", "The best lab"))
    publish(course, source)
    _, said = reason(course)
    assert "this lab has changed since you began" in said
    assert reason(course, fresh=True) == ("work/90_fixture.2.ipynb", "new")
    assert reason(course, fresh=True) == ("work/90_fixture.3.ipynb", "new")
    assert mine.read_bytes() == edited
    assert "The best lab" in (course / "work" / "90_fixture.2.ipynb").read_text()


def test_course_map(course, source):
    publish(course, source)
    work.prepare(root=course)
    text = (course / "work" / work.START).read_text()
    assert "| [90 Does it double?](90_fixture.ipynb) | 2 | 0.1 GB | 00 01 | run |" in text
