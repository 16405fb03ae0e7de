"""What does `import labkit` cost? CPU seconds of a Python that does nothing else, against one that does nothing at all."""

from __future__ import annotations

import statistics
import subprocess
import sys

REPEATS = 7
_TELL = "import time; print(time.process_time())"


def _cpu_s(statement: str) -> float:
    # process_time counts from the start of the process, the interpreter's own start included
    return float(subprocess.run([sys.executable, "-c", f"{statement}; {_TELL}"], capture_output=True, text=True, check=True).stdout)


def import_cost() -> str:
    """Added CPU seconds; target below 0.2."""
    ours, bare = [], []
    for _ in range(REPEATS):
        ours.append(_cpu_s("import labkit"))
        bare.append(_cpu_s("pass"))
    a, b = statistics.median(ours), statistics.median(bare)
    return f"import_cost ratio={a / b:.2f} (labkit {a:.3f} / bare {b:.3f} CPU-s, n={REPEATS})"
