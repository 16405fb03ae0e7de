"""Lab 17's last part on a real container: hardened, as large as computed, told to stop in an answer; and an interruption leaves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from labkit import models
from labkit.core import paths
from labkit.learn import containers_view, service_plots
from labkit.learn import service_image as image
from labkit.learn.service_view import Desk
from labkit.servers import images

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with Desk(models.resolve(MODEL), context=512) as opened:
        yield opened


@pytest.fixture(scope="module")
def box(desk: Desk) -> Iterator[image.Box]:
    with image.Box(desk) as opened:
        yield opened


def test_the_layers_are_the_image(box):
    rows = image.layer_rows(box)
    assert sum(row["bytes"] for row in rows) == pytest.approx(box.image.bytes, rel=0.1)
    assert not [row for row in rows if "naive.py" in row["command"]]
    assert containers_view.draw_layers(rows, "caption").axes[0].patches


def test_every_promise_holds_inside(box):
    rows = image.hardening_rows(box)
    assert len(rows) == 10
    assert {row["what"]: row["inside"] for row in rows if not row["holds"]} == {}


def test_memory_is_what_was_computed(box):
    rows = image.memory_rows(box)
    ratios = [row["predicted_bytes"] / row["measured_bytes"] for row in rows]
    assert all(0.7 < ratio < 1.4 for ratio in ratios), ratios
    assert rows[0]["measured_bytes"] < rows[1]["measured_bytes"] < rows[2]["measured_bytes"] < rows[2]["limit_bytes"]
    assert len(service_plots.draw_memory(rows, 200, "caption").axes[0].patches) == 6


def test_too_small_a_limit_is_seen_by_health(box):
    small, enough = image.limit_rows(box, 96)
    assert (small["ready"], small["status"]) == (False, None)
    assert small["/health"] != "200"
    assert (enough["ready"], enough["status"], enough["/health"], enough["killed"]) == (True, 200, "200", 0)


def test_sigterm_in_an_answer_lets_it_end(box):
    (row,) = image.stop_rows(box)
    assert row["in_an_answer"] and row["whole"]
    assert row["exit_code"] == 0


# -- interrupted

_MOMENTS = {
    "both services run": "desk.site('naive'), desk.site('correct')\nready()\ntime.sleep(100)",
    "a service is asked": "desk.site('correct')\nready()\nservice_probes.run(desk.site('correct'))",
    "a service is loading": "running = desk.launch('correct')\nready()\nrunning.wait(100)\ntime.sleep(100)",
    "the container answers": "box = image.Box(desk)\nbox.container\nready()\nimage.memory_rows(box)\ntime.sleep(100)",
}
_CHILD = """\
import time
from labkit import models
from labkit.learn import service_image as image, service_probes
from labkit.learn.service_view import Desk
from labkit.servers.images import runs

desk = Desk(models.resolve("smollm2-135m"), context=512)
print(runs.current().id, flush=True)

def ready():
    print("ready", flush=True)

"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
@pytest.mark.parametrize("moment", _MOMENTS)
def test_an_interruption_leaves_nothing(moment, number, box):
    assert box.image, "built once, from the cache in the child"
    words = [sys.executable, "-c", _CHILD + _MOMENTS[moment]]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=paths.home())
    assert child.stdout
    run = child.stdout.readline().strip()
    assert child.stdout.readline().strip() == "ready"
    started = [(p.pid, p.create_time()) for p in psutil.Process(child.pid).children(recursive=True)]
    ports = {c.laddr.port for pid, _ in started for c in _listening(pid)}
    time.sleep(1)
    child.send_signal(number)
    child.stdout.close()
    child.wait(60)
    end = time.monotonic() + 60
    while (left := _left(run, started, ports)) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == []


def _listening(pid: int) -> list:
    try:
        return [c for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    except psutil.NoSuchProcess:
        return []


def _left(run: str, started: list[tuple[int, float]], ports: set[int]) -> list[str]:
    """What there still is of a child: its processes, what listens on its ports, its run's containers, images, volumes, folders."""
    rows = [f"process {pid}" for pid, born in started if psutil.pid_exists(pid) and _born(pid) == born]
    rows += [f"port {c.laddr.port}" for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port in ports]
    rows += [str(path) for path in Path(tempfile.gettempdir()).glob(f"labkit-{run}-*")]
    return [*rows, *images.leftovers(run)]


def _born(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
