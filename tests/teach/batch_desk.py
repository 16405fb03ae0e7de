"""For the tests of batches: tiny notebooks without a model that count their executions."""

import nbformat

from labkit.core import results
from labkit.core.records import RunRecord
from labkit.teach import batch

PARAMETERS = """seed: int = 1  # of every random choice
counter: str = ""  # a file that gets a line a run
results_path: str = "results.jsonl"
"""
COUNT = """import os, pathlib
with open(counter, "a") as file:
    file.write(f"{seed} {os.getppid()} {os.getpid()}\\n")
"""


class Desk:
    """A folder with notebooks, a counter of executions and a batch's output."""

    def __init__(self, folder):
        self.folder, self.out, self.counter = folder, folder / "out", folder / "counter"

    def notebook(self, *code, name="own"):
        cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
        cells += [nbformat.v4.new_code_cell(source) for source in (COUNT, *code)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), self.folder / f"{name}.ipynb")

    def tasks(self, *seeds, name="own", **limits):
        return [
            batch.make(self.folder / f"{name}.ipynb", {"seed": seed, "counter": str(self.counter)}, batch.Limits(**limits))
            for seed in seeds
        ]

    def run(self, *seeds, workers=1, executor=None, name="own", **limits):
        return list(batch.run(self.tasks(*seeds, name=name, **limits), self.out, workers=workers, executor=executor, progress=False))

    def executions(self):
        """[seed, worker's pid, kernel's pid] of each execution so far."""
        return [[int(word) for word in line.split()] for line in self.counter.read_text().splitlines()]

    def lines(self):
        return [RunRecord.model_validate(line) for line in results.read(self.out / "runs.jsonl")]
