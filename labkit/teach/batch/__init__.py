"""Many notebook runs: a grid of tasks, worker processes, limits, a cache by content, and resuming.

>>> tasks = batch.read(Path("grid.yaml"))
>>> for record in batch.run(tasks, Path("build/class"), workers=2):
...     print(record.lab, record.status)

Nothing here imports papermill: only the worker processes do, so a batch that has nothing left to run is quick.
"""

from __future__ import annotations

from labkit.teach.batch.grid import read
from labkit.teach.batch.run import exit_code, run
from labkit.teach.batch.task import Limits, Task, light, make

__all__ = ["Limits", "Task", "exit_code", "light", "make", "read", "run"]
