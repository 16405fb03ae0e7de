"""What does a finished batch cost when nothing has changed? Its first run, of at least 60 s, against its reruns."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.batch_parallel import labkit, notebook

RUNS, REPEATS = 12, 7
AT_LEAST_S = 60.0


def batch_rerun() -> str:
    """How many times as fast; target at least 50."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # sleeping, not computing: a machine that is busy elsewhere must not make the first run look good
        notebook(folder / "wait.ipynb", f"import time\ntime.sleep({AT_LEAST_S / RUNS} + seed / 1000)")
        (folder / "grid.yaml").write_text(f"labs: [wait.ipynb]\ngrid: {{seed: {list(range(RUNS))}}}\n")
        words = ("batch", str(folder / "grid.yaml"), "--out", str(folder / "out"), "--json")
        first = labkit(*words)
        assert first >= AT_LEAST_S, first
        again = [labkit(*words) for _ in range(REPEATS)]
    rerun = statistics.median(again)
    return f"batch_rerun ratio={first / rerun:.0f} (labkit {rerun:.2f} / first run {first:.1f} s, n={REPEATS})"
