"""Batches that are killed, interrupted or run out of disk: what was finished stays, and only the rest runs again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from batch_desk import Desk

from labkit.core.records import RunRecord
from labkit.teach import batch

# the first execution with this seed hangs, every later one does not
HANG_ONCE = "import time\nif seed == 2 and counter and pathlib.Path(counter).read_text().count('2 ') < 2: time.sleep(120)"
PARENT = """
import sys
from pathlib import Path
from labkit.teach import batch
own, counter, out = map(Path, sys.argv[1:4])
tasks = [batch.make(own, {"seed": int(seed), "counter": str(counter)}) for seed in sys.argv[4:]]
for record in batch.run(tasks, out, workers=1, progress=False):
    print(record.status, flush=True)
"""


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    desk.counter.touch()
    return desk


def until(true, seconds=90.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def running(desk, seed):
    """Pids of the worker and the kernel of a run, once it is in the middle."""
    until(lambda: any(row[0] == seed for row in desk.executions()))
    return next(row[1:] for row in desk.executions() if row[0] == seed)


def seeds(desk):
    return [row[0] for row in desk.executions()]


def test_a_killed_worker_fails_its_run_and_the_batch_goes_on(desk):
    desk.notebook(HANG_ONCE)
    pids = []

    def kill():
        pids.extend(running(desk, 2))
        os.kill(pids[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    two, three = desk.run(2, 3)
    thread.join()
    assert [two.status, three.status] == ["failed", "ok"]
    assert two.error.startswith("the worker process was killed by signal 9 in the middle of this run")
    assert not any(map(psutil.pid_exists, pids))
    assert [r.status for r in desk.run(2, 3)] == ["cached", "ok"]
    assert seeds(desk) == [2, 3, 2]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_batch_that_is_ended_from_outside_leaves_nothing_running_and_resumes(desk, how, short_folder, monkeypatch):
    temporary = short_folder
    monkeypatch.setenv("TMPDIR", str(temporary))
    # a server that a notebook starts, in a session of its own, is not to outlive the batch either
    server = (
        "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], start_new_session=True)"
    )
    desk.notebook(server, "pathlib.Path(counter + f'.child{seed}').write_text(str(child.pid))", HANG_ONCE)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, desk.folder / "own.ipynb", desk.counter, desk.out, "1", "2", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pids = running(desk, 2)
    note = Path(f"{desk.counter}.child2")
    until(lambda: note.is_file() and note.read_text())
    pids.append(int(note.read_text()))
    parent.send_signal(how)
    stdout, stderr = parent.communicate(timeout=30)
    assert stdout.split() == ["ok"]
    until(lambda: not any(map(psutil.pid_exists, pids)), 20)
    until(lambda: not list(temporary.iterdir()), 20)

    assert [(r.parameters["seed"], r.status) for r in desk.lines()] == [(1, "ok")]
    if how == signal.SIGINT:
        assert stderr.rstrip().endswith("KeyboardInterrupt")
        return
    with (desk.out / "runs.jsonl").open("a") as file:
        file.write('{"run_id": "torn by a power c')
    assert [r.status for r in desk.run(1, 2, 3)] == ["cached", "ok", "ok"]
    assert seeds(desk) == [1, 2, 2, 3]
    assert [r.parameters["seed"] for r in desk.lines()] == [1, 2, 3]


FULL_DISK = """
import json, subprocess, sys
from pathlib import Path
from labkit.core.errors import BadInput
from labkit.teach import batch
own, counter, out = map(Path, sys.argv[1:4])
out.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", out], check=True)
tasks = [batch.make(own, {"seed": seed, "counter": str(counter)}) for seed in (1, 2)]
said = []
for size in ("400k", "8m"):
    subprocess.run(["mount", "-o", f"remount,size={size}", out], check=True)
    try:
        for record in batch.run(tasks, out, progress=False):
            said.append([record.parameters["seed"], record.status])
    except BadInput as error:
        said.append(str(error))
    said.append((out / "runs.jsonl").read_text())
print(json.dumps(said))
"""


@pytest.fixture
def mounts(needs):
    """The words in front of a command that may mount: as root, or as the root of a namespace of one's own."""
    command = [needs("unshare"), "--mount"]
    return command if os.geteuid() == 0 else [*command, "--map-root-user"]


def test_a_full_disk_is_said_and_loses_nothing(desk, mounts):
    desk.notebook("if seed == 2:\n    with open('big', 'wb') as big:\n        [(big.write(b'x' * 1024), big.flush()) for _ in range(2000)]")
    command = [*mounts, sys.executable, "-c", FULL_DISK, desk.folder / "own.ipynb", desk.counter, desk.out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, error, before, *second, after = json.loads(done.stdout)
    assert first == [1, "ok"]
    assert "No space left on device" in error
    assert "\n" not in error
    records = [RunRecord.model_validate_json(line) for line in before.splitlines()]
    assert [r.status for r in records] == ["ok"]
    assert second == [[1, "cached"], [2, "ok"]]
    assert after.startswith(before)


def test_a_batch_needs_no_thread_of_its_own_to_be_closed(desk):
    """Whoever leaves the loop early stops the workers."""
    desk.notebook(HANG_ONCE)
    records = batch.run(desk.tasks(1, 2), desk.out, progress=False)
    assert next(records).status == "ok"
    pids = running(desk, 2)
    records.close()
    assert not any(map(psutil.pid_exists, pids))
    assert [r.status for r in desk.lines()] == ["ok"]
    assert Path(desk.lines()[0].notebook).is_file()
