"""How long does checking a file take? `labkit lint`'s own rules, and with the tools, against bare parsing of the same files by PyYAML."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from labkit import measure
from labkit.facts import lint

GOOD = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "lint" / "good"
REPEATS = 7
AT_MOST_S = 1.0


def check_files() -> str:
    """Seconds a file; target: under 1 s for the slowest, tools included. The first call, which loads schemas, is a warm-up."""
    files = [path for path in sorted(GOOD.rglob("*.y*ml")) if "templates" not in path.parts]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    sides = {
        "labkit": lambda: _seconds(lambda: [lint.check_text(str(path), text) for path, text in texts.items()], len(files)),
        "bare": lambda: _seconds(lambda: [list(yaml.safe_load_all(text)) for text in texts.values()], len(files)),
    }
    found = measure.ab(sides, repeats=REPEATS)
    # neighbours in time are compared, so that a drifting machine does not decide
    ratio = statistics.median(a / b for a, b in zip(found["labkit"], found["bare"], strict=True))
    ours, bare = (statistics.median(found[side]) for side in ("labkit", "bare"))
    for path in files:
        lint.check(path)
    slowest = max((_seconds(lambda path=path: lint.check(path), 1), path.name) for path in files)  # type: ignore[misc]
    assert slowest[0] < AT_MOST_S, slowest
    line = f"lint ratio={ratio:.1f} (labkit {ours * 1e3:.1f} / bare {bare * 1e3:.1f} ms a file, n={REPEATS})"
    return f"{line} [{len(files)} YAML files; with tools the slowest takes {slowest[0]:.2f} s: {slowest[1]}]"


def _seconds(work: Callable[[], object], files: int) -> float:
    started = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - started) / 1e9 / files
