"""Batches that really run: workers, limits, the cache, resuming, other executors. No model; a kernel a run."""

import concurrent.futures
import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from batch_desk import Desk
from filelock import FileLock

from labkit.core.errors import BadInput
from labkit.teach import batch


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


RESULT = """import json
with open(results_path, "a") as file:
    file.write(json.dumps({"schema": 1, "source": SOURCE, "rows": []}) + "\\n")
"""
FIGURE = "if seed == 1:\n    import matplotlib.pyplot as plt\n    plt.plot([1, 2])"


@pytest.fixture
def surprises(monkeypatch, tmp_path):
    """What a user's own settings would do to a run."""
    monkeypatch.setenv("MPLBACKEND", "agg")  # would keep figures out of the notebook
    profile = tmp_path / "ipython" / "profile_default" / "startup"
    profile.mkdir(parents=True)
    (profile / "00.py").write_text("surprise = 1\n")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(profile / "00.py"))


def test_a_batch_records_each_run_and_resumes(desk, surprises):
    desk.notebook(
        "assert 'surprise' not in dir() and '_c' not in dir(), dir()",
        "from ipykernel.connect import get_connection_info",
        "import sys\nassert sys.platform == 'win32' or get_connection_info(unpack=True)['transport'] == 'ipc'",  # no port to race for
        "SOURCE = 'measured' if seed == 1 else 'recorded'", RESULT, FIGURE,
        "if seed == 3:\n    raise ValueError('seed 3\\nis bad')",
        "print(os.getcwd(), os.environ['OMP_WAIT_POLICY'])",
    )  # fmt: skip
    one, two, three = sorted(desk.run(1, 2, 3, workers=2), key=lambda record: record.parameters["seed"])

    assert [r.status for r in (one, two, three)] == ["ok", "ok", "failed"]
    assert [r.source for r in (one, two, three)] == ["measured", "recorded", "recorded"]
    assert one.lab == "own"
    assert one.seconds > 0.3
    assert 30e6 < one.peak_memory_bytes < 2e9
    assert three.error == "ValueError: seed 3 is bad (cell In [10])"
    folder = desk.out / "runs" / one.run_id
    assert one.notebook == str(folder / "own.ipynb")
    assert sorted(p.name for p in folder.iterdir()) == ["own.ipynb", "results.jsonl"]  # and nothing of IPython's
    node = nbformat.read(one.notebook, 4)
    outputs = [output for cell in node.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert outputs[-1]["text"].strip() == f"{folder} passive"
    assert sorted(desk.lines(), key=lambda r: r.parameters["seed"]) == [one, two, three]
    assert len({worker for _, worker, _ in desk.executions()}) == 2  # persistent: three runs, two processes

    again = {r.parameters["seed"]: r for r in desk.run(1, 2, 3, 4)}
    assert [again[seed].status for seed in (1, 2, 3, 4)] == ["cached", "cached", "failed", "ok"]
    assert again[1] == one.model_copy(update={"status": "cached"})
    assert [seed for seed, _, _ in desk.executions()][3:] == [3, 4]
    assert len(desk.lines()) == 5

    shutil.rmtree(desk.out / "runs" / one.run_id)
    assert desk.run(1)[0].status == "ok"  # the record alone, without the executed copy, is no result
    assert batch.exit_code([one, two]) == 0
    assert batch.exit_code([one, three]) == 1


def test_limits_end_the_run_and_all_it_started(desk):
    desk.notebook(
        "import subprocess, sys, time",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], start_new_session=True)",
        "pathlib.Path(counter + '.child').write_text(str(child.pid))\nif seed == 1: time.sleep(60)",
        "hog = bytearray(600 << 20)\ntime.sleep(60 if seed == 2 else 2)",
    )
    (slow,) = desk.run(1, seconds=4)
    assert (slow.status, slow.error) == ("timeout", "stopped after 4 s, the limit of this grid (limits.seconds)")
    assert 4 < slow.seconds < 30
    (hog,) = desk.run(2, memory_gb=0.5, seconds=50)
    assert hog.status == "failed"
    assert "the limit of this grid is 0.5 GB" in hog.error
    assert hog.peak_memory_bytes > 0.5e9
    (fine,) = desk.run(3, seconds=50, memory_gb=3)  # ends well, yet leaves a process behind
    assert fine.status == "ok"
    assert fine.peak_memory_bytes > 600 << 20
    assert not psutil.pid_exists(int(Path(f"{desk.counter}.child").read_text()))
    for _, worker, kernel in desk.executions():
        assert not psutil.pid_exists(worker)
        assert not psutil.pid_exists(kernel)
    assert [r.status for r in desk.run(1, seconds=4)] == ["timeout"]  # tried again, not cached


def test_any_executor_will_do(desk):
    desk.notebook()
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        assert [r.status for r in desk.run(1, 2, executor=processes)] == ["ok", "ok"]
        workers = {worker for _, worker, _ in desk.executions()}
        assert len(workers) == 1  # the pool's process keeps its worker
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        assert [r.status for r in desk.run(1, 3, executor=threads)] == ["cached", "ok"]
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in workers)


def test_our_own_labs_run_solved_and_what_cannot_run_says_so(desk, course, monkeypatch):
    from labkit.core import paths

    (course / "data").mkdir(exist_ok=True)
    shutil.copy(paths.data("models.toml"), course / "data")
    monkeypatch.setenv("LABKIT_HOME", str(course))
    desk.notebook("import os; os._exit(3)", name="dies")
    desk.notebook(name="edited")
    tasks = [batch.make(90, {"quick": True}), *desk.tasks(1, name="dies"), *desk.tasks(1, name="edited")]
    desk.notebook("print('new')", name="edited")
    lab, dies, edited = sorted(batch.run(tasks, desk.out, progress=False), key=lambda r: r.lab)
    assert (lab.lab, lab.status, lab.error) == ("90_fixture", "ok", None)
    assert "return 2 * number" in Path(lab.notebook).read_text()  # the solved form
    assert dies.status == "failed"
    assert dies.error.startswith("the notebook's kernel died")
    assert edited.status == "failed"
    assert "was changed after the batch had started" in edited.error


def test_refused_rows_are_recorded_and_the_others_run_once(desk):
    desk.notebook()
    grid = desk.folder / "grid.yaml"
    grid.write_text(json.dumps({"labs": ["own.ipynb"], "grid": {"seed": [1, "x"], "counter": [str(desk.counter)]}}))
    done, refused = sorted(batch.run(batch.read(grid), desk.out, progress=False), key=lambda record: record.status)
    assert (done.status, refused.status) == ("ok", "refused")
    assert "seed must be an int" in refused.error
    assert batch.exit_code([done, refused]) == 1

    # a rerun executes nothing, and so has no need of the heavy parts
    code = f"""
import sys, pathlib
from labkit.teach import batch
tasks = batch.read(pathlib.Path({str(grid)!r}))
print(sorted(record.status for record in batch.run(tasks, pathlib.Path({str(desk.out)!r}))))
heavy = {{"papermill", "nbformat", "nbclient", "jupytext", "matplotlib", "pandas", "llama_cpp", "ipykernel", "IPython"}} & set(sys.modules)
print(sorted(heavy))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["['cached', 'refused']", "[]"]
    assert sorted(record.status for record in desk.lines()) == ["ok", "refused"]
    assert len(desk.executions()) == 1


def test_one_batch_at_a_time_in_a_folder(desk):
    desk.notebook()
    desk.out.mkdir()
    with FileLock(desk.out / ".lock"), pytest.raises(BadInput, match="another batch is running in"):
        desk.run(1)
    assert not desk.counter.exists()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda out: out.write_text("a file"), "cannot write"),
        (lambda out: (out.mkdir(), (out / "runs.jsonl").write_text('{"not": "a run"}\n')), "no run record"),
        (lambda out: (out.mkdir(), (out / "runs.jsonl").write_text("not JSON\n")), "line 1 is not JSON"),
    ],
)
def test_folders_that_cannot_be_used(desk, make, says):
    desk.notebook()
    make(desk.out)
    with pytest.raises(BadInput, match=says):
        desk.run(1)
    assert not desk.counter.exists()


def test_workers_must_be_at_least_one(desk):
    desk.notebook()
    with pytest.raises(BadInput, match="workers must be at least 1"):
        desk.run(1, workers=0)
