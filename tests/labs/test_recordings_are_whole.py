"""Every measured step of a lab is in its recording, so that a machine without the engine sees the whole lab."""

import re

from labkit.core import paths, recordings


def test_every_step_is_recorded(source):
    if source.parents[2] != paths.home():
        return  # the fixture lab measures nothing
    steps = set(re.findall(r"""lab\.step\(\s*["'](\w+)["']""", source.read_text(encoding="utf-8")))
    assert steps
    header, recorded = recordings.load(source.stem)
    assert steps <= recorded.keys(), f"labkit run {source.stem[:2]} --record"
    assert all(recorded[step] for step in steps)
    assert {"date", "machine", "versions", "run", "notebook_sha256"} <= header.keys()
