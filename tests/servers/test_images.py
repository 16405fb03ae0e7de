"""Containers for real: built, hardened, watched, stopped, and gone when the process that made them is, however it ends."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from labkit.core.errors import BadInput, RunFailed
from labkit.servers import images
from labkit.servers.images import long, runs

WEB = Path(__file__).resolve().parents[1] / "fixtures" / "images" / "web"
IDLE = ["sh", "-c", "trap 'exit 0' TERM; sleep 900 & wait"]  # does nothing, and ends at once when it is told to
BASE = "docker.io/library/debian:bookworm-slim"


@pytest.fixture(autouse=True)
def podman(needs: Callable[[str], str]) -> str:
    return needs("podman")


@pytest.fixture(scope="module")
def web() -> Iterator[images.Image]:
    image = images.build(WEB, "web:test", args={"WORD": "hello"})
    yield image
    image.remove()


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """folder("RUN …") -> a folder with a Containerfile of these lines on the base."""

    def make(*lines: str) -> Path:
        (tmp_path / "Containerfile").write_text("\n".join([f"FROM {BASE}", *lines]) + "\n", encoding="utf-8")
        return tmp_path

    return make


def test_an_image_says_its_size_and_what_made_each_layer(web: images.Image) -> None:
    assert web.ref.startswith("localhost/labkit-web:test-") and web.ref.endswith(runs.current().id)
    assert sum(size for size, _ in web.layers) <= web.bytes * 1.01
    made = [(size, text) for size, text in web.layers if "/word" in text]
    assert len(made) == 1 and made[0][0] > 0
    assert web.layers[-1][0] > 50e6, "the base is the oldest layer, and the largest"
    assert web.inspect()["Config"]["Labels"]["labkit.run"] == runs.current().id


def test_a_build_that_fails_names_what_the_step_said(folder: Callable) -> None:
    with pytest.raises(RunFailed, match="no-such-file-here"):
        images.build(folder("RUN cat /no-such-file-here"), "broken")
    assert not [row for row in images.leftovers() if "broken" in row]


def test_a_folder_without_a_containerfile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no Containerfile"):
        images.build(tmp_path, "nothing")


def test_a_long_build_says_where_it_is(folder: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long, "TICK_S", 0.5)
    said: list[str] = []
    images.build(folder(f"RUN sleep 2 # {secrets.token_hex(4)}"), "slow", say=said.append).remove()
    assert any("building slow" in line and "STEP 2/3" in line for line in said), said


def test_the_machines_pip_settings_are_there_while_it_builds_and_not_in_the_image(
    folder: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.example.invalid/simple")
    seen = "grep -c ^index-url /etc/xdg/pip/pip.conf > /seen"
    built = images.build(folder(f"RUN {seen} # {secrets.token_hex(4)}"), "settings")
    with images.run(built, command=IDLE) as running:
        assert running.exec(["cat", "/seen"]).stdout == "1\n"
        assert running.exec(["find", "/etc/xdg/pip", "/root/.cache", "-type", "f", "-size", "+0"]).stdout == ""
    assert "example.invalid" not in json.dumps(built.inspect())
    built.remove()


def test_hardening_is_read_from_inside(web: images.Image) -> None:
    with images.run(web, port=8080, memory_mb=96, cpus=0.5, pids=40) as running:
        assert images.hardening(running) == {
            "uid": 10001,
            "gid": 10001,
            "cap_eff": 0,
            "cap_bnd": 0,
            "no_new_privs": True,
            "seccomp": 2,
            "read_only_root": True,
            "memory_limit_bytes": 96 * 1024 * 1024,
            "cpus": 0.5,
            "pids_limit": 40,
        }
        assert running.exec(["touch", "/tmp/may-write"]).returncode == 0


def test_what_is_not_hardened_is_seen_as_such(web: images.Image) -> None:
    with images.run(web, port=8080, user="0", hardened=False) as running:
        found = images.hardening(running)
    assert found["uid"] == 0 and not found["read_only_root"] and not found["no_new_privs"]
    assert found["cap_eff"] and found["memory_limit_bytes"] is None and found["cpus"] is None


def test_an_image_that_names_no_user_does_not_run_as_root() -> None:
    images.ensure(BASE)
    with images.run(BASE, command=IDLE) as running:
        assert images.hardening(running)["uid"] == 65532


def test_it_is_reached_on_loopback_alone(web: images.Image) -> None:
    with images.run(web, port=8080) as running:
        running.wait("/")
        assert httpx.get(running.url).text.strip() == "hello"
        assert running.base_url == f"{running.url}/v1"
        port = running.ports[8080]
        bound = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port}
        assert bound <= {"127.0.0.1"}
        others = [a.address for rows in psutil.net_if_addrs().values() for a in rows if a.family == socket.AF_INET]
        for address in set(others) - {"127.0.0.1"}:
            with pytest.raises(OSError):
                socket.create_connection((address, port), timeout=1)


def test_health_is_the_images_own_check(web: images.Image) -> None:
    with images.run(web, port=8080) as running:
        running.wait()
        assert running.healthy()
        running.exec(["touch", "/tmp/ill"], check=True)
        assert not running.health()
        running.exec(["rm", "/tmp/ill"], check=True)
        running.kill()
        assert not running.health(), "a container that has ended is not healthy"


def test_an_image_without_a_health_check_is_told_so() -> None:
    with images.run(BASE, command=IDLE) as running, pytest.raises(BadInput, match="no HEALTHCHECK"):
        running.health()


def test_the_kernel_kills_what_passes_its_memory_limit() -> None:
    with images.run(BASE, memory_mb=64, command=["perl", "-e", '$n = 3e8; $x = "a" x $n; sleep 900']) as running:
        wait_until(lambda: not running.alive())
        assert running.oom_killed
        assert running.exit_code == 137


def test_its_peak_memory_is_what_it_used() -> None:
    uses = '$SIG{TERM} = sub { exit }; $n = 1e8; $x = "a" x $n; undef $x; print STDERR "done"; sleep 900'
    with images.run(BASE, memory_mb=256, command=["perl", "-e", uses]) as running:
        wait_until(lambda: "done" in running.logs())
        found = running.stats()
        assert 100e6 < found["peak_memory_bytes"] <= 256 * 1024 * 1024
        assert found["memory_bytes"] <= found["peak_memory_bytes"]
        assert found["pids"] == 1 and found["cpu_s"] > 0
        running.kill()
        assert running.peak_memory_bytes >= found["peak_memory_bytes"], "what was seen last stays known"


def test_stop_lets_it_end_by_itself(web: images.Image) -> None:
    with images.run(web, port=8080) as running:
        running.wait("/")
        running.stop(30)
        assert running.exit_code == 0, "it had SIGTERM, not SIGKILL"
        assert not running.alive()
        assert f"container {running.id}" not in images.leftovers()


def test_a_container_that_ends_at_once_says_why(web: images.Image) -> None:
    with pytest.raises(RunFailed, match="Can't open perl script"):
        images.run(web, port=8080, command=["perl", "/not-there.pl"]).wait(seconds=20)


def test_a_volume_outlives_its_containers_and_goes_with_its_block(web: images.Image) -> None:
    with images.volume("store") as store:
        for expected in ("", "1\n"):
            with images.run(BASE, user="0", command=IDLE, volumes=[(store, "/store", "rw")]) as running:
                assert running.exec(["cat", "/store/n"]).stdout == expected
                running.exec(["sh", "-c", "echo 1 > /store/n"], check=True)
        assert f"volume {store.name}" in images.leftovers()
    assert f"volume {store.name}" not in images.leftovers()


def test_a_folder_is_mounted_read_only_and_a_missing_one_refused(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("7", encoding="utf-8")
    with images.run(BASE, user="0", command=IDLE, volumes=[(tmp_path, "/given", "ro")]) as running:
        assert running.exec(["cat", "/given/n"]).stdout == "7"
        assert running.exec(["touch", "/given/m"]).returncode != 0
    with pytest.raises(BadInput, match="to mount"):
        images.run(BASE, volumes=[(tmp_path / "nowhere", "/given", "ro")])


FETCH = 'use IO::Socket::INET; $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], Timeout => 3) or exit 3; print $s "GET /\\n\\n"; print <$s>'


def test_an_internal_network_joins_containers_and_reaches_nothing_else(web: images.Image) -> None:
    with images.network("in", internal=True) as net, images.run(web, network=net) as server, images.run(web, network=net) as client:
        wait_until(lambda: "ready" in server.logs())
        # its name is known to the network a moment after its start
        wait_until(lambda: "hello" in client.exec(["perl", "-e", FETCH, f"{server.name}:8080"]).stdout)
        assert client.exec(["perl", "-e", FETCH, "192.0.2.1:80"]).returncode == 3


# --- whatever ends the process that made them

SCRIPT = (
    f"IDLE = {IDLE}"
    + """
import sys
from pathlib import Path
from labkit.servers import images
from labkit.servers.images import runs
say = lambda line: print(line, flush=True)
say(runs.current().id)
folder, what = Path(sys.argv[1]), sys.argv[2]
volume, network = images.volume("v"), images.network("n")
built = images.build(folder, "left", file="Containerfile")
with_one = images.run(built, command=IDLE)
if what == "build":
    say("in the middle")
    images.build(folder, "never", file="Slow")
elif what == "container":
    say("in the middle")
    for _ in range(100):
        images.run(built, command=IDLE)
say("at the end")
"""
)


@pytest.fixture
def child(folder: Callable) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], str, str]]]:
    """child("build") -> (a process in the middle of that, its run's id, the argument of the sleep in its build)."""
    number = str(10_000 + secrets.randbelow(80_000))
    where = folder("RUN true")
    (where / "Slow").write_text(f"FROM {BASE}\nRUN echo {number}; sleep {number}\n", encoding="utf-8")
    images.ensure(BASE)
    started = []

    def start(what: str) -> tuple[subprocess.Popen[str], str, str]:
        words = [sys.executable, "-c", SCRIPT, str(where), what]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
        started.append(process)
        run = process.stdout.readline().strip()
        assert process.stdout.readline().strip() in {"in the middle", "at the end"}
        return process, run, number

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def left(run: str, number: str) -> list[str]:
    """All that there still is of a run: what carries its label, its build's working containers and processes, its keeper."""
    rows = images.leftovers(run)
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if words[-2:] == ["sleep", number] or any(f"sleep {number}" in word or f"labkit.run={run}" in word for word in words):
            rows.append(f"process {process.pid} {words}")
    store = runs.current().store
    mark = f"labkit-run-{run}"
    rows += [str(path) for path in Path(store).glob("*-containers/*/userdata/buildah.json") if mark in path.read_text(encoding="utf-8")]
    return rows


def test_the_end_of_the_process_leaves_nothing(child: Callable) -> None:
    process, run, number = child("nothing")
    assert process.wait(120) == 0
    assert left(run, number) == []


@pytest.mark.parametrize("what", ["build", "container"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_process_leaves_nothing(what: str, how: signal.Signals, child: Callable) -> None:
    process, run, number = child(what)
    if what == "build":
        wait_until(lambda: any("process" in row for row in left(run, number)) and any("buildah.json" in row for row in left(run, number)))
    else:
        wait_until(lambda: len([row for row in left(run, number) if row.startswith("container")]) > 2)
    assert left(run, number), "there is something to remove"
    process.send_signal(how)
    process.wait(120)
    if how is signal.SIGINT:
        assert left(run, number) == [], "it removed all of it before it ended"
    else:
        wait_until(lambda: left(run, number) == [])


def test_ctrl_c_in_a_run_leaves_no_half_made_container(web: images.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit.servers.images import container

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    before = images.leftovers()
    monkeypatch.setattr(container, "_published", interrupted)
    with pytest.raises(KeyboardInterrupt):
        images.run(web, port=8080)
    assert images.leftovers() == before


def wait_until(true: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
