"""Are two workers worth it? 16 short notebook runs: `labkit batch --workers 2` against papermill, one after another.

Both sides are timed as whole processes, in turn: start, imports, kernels and all.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS, WORKERS, REPEATS = 16, 2, 5
CPU_S = 1.5
BURN = f"""import time
while time.process_time() - start < {CPU_S}:
    total = sum(n * n for n in range(1000, 1000 + seed))
"""
PAPERMILL = """import sys, papermill
for seed in range(1, int(sys.argv[3]) + 1):
    papermill.execute_notebook(sys.argv[1], f"{sys.argv[2]}/{seed}.ipynb", parameters={"seed": seed}, progress_bar=False)
"""


def notebook(path: Path, *code: str) -> None:
    """A notebook with a parameter `seed`."""
    import nbformat

    cells = [nbformat.v4.new_code_cell("seed: int = 1  # differs from run to run", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in code]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def labkit(*words: str) -> float:
    """Seconds of one labkit command."""
    start = time.perf_counter()
    done = subprocess.run([Path(sys.executable).with_name("labkit"), *words], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        bad = [line for line in done.stdout.splitlines() if '"status":"ok"' not in line]
        raise RuntimeError("\n".join([*bad, done.stderr]))
    return seconds


def batch_parallel() -> str:
    """How many times as fast; target at least 1.7 on two idle cores."""
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        notebook(folder / "burn.ipynb", "import time\nstart = time.process_time()", BURN)
        grid = folder / "grid.yaml"
        grid.write_text(f"labs: [burn.ipynb]\ngrid: {{seed: {list(range(1, RUNS + 1))}}}\n")
        for turn in range(REPEATS):
            ours.append(labkit("batch", str(grid), "--out", str(folder / f"ours{turn}"), "--workers", str(WORKERS), "--json"))
            (folder / f"bare{turn}").mkdir()
            start = time.perf_counter()
            words = [folder / "burn.ipynb", folder / f"bare{turn}", str(RUNS)]
            subprocess.run([sys.executable, "-c", PAPERMILL, *words], capture_output=True, check=True)
            bare.append(time.perf_counter() - start)
    ratio = statistics.median(b / a for a, b in zip(ours, bare, strict=True))
    return f"batch_parallel ratio={ratio:.2f} (labkit {statistics.median(ours):.1f} / bare {statistics.median(bare):.1f} s, n={REPEATS})"
