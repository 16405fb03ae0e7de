"""Ports, logs, stopping by pid."""

import socket
import subprocess
import sys
import time

import psutil
import pytest

from labkit import models, servers
from labkit.core.errors import BadInput, RunFailed
from labkit.servers import base


def test_a_port_in_use_is_refused_before_anything_starts():
    with socket.socket() as taken:
        taken.bind((base.HOST, 0))
        taken.listen()
        with pytest.raises(BadInput, match="in use"):
            servers.open("llama_server").start(models.resolve("smollm2-135m"), port=taken.getsockname()[1])
    with pytest.raises(BadInput, match="not a port"):
        base.check_port(70000)


def test_a_server_listens_on_loopback_only_and_stops_by_its_pid():
    with servers.open("llama_server").start(models.resolve("smollm2-135m"), context=256, parallel=1) as running:
        process = psutil.Process(running.pid)
        listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening
        assert set(listening) == {"127.0.0.1"}
    assert not psutil.pid_exists(running.pid)


def test_options_are_checked():
    with pytest.raises(BadInput, match="did you mean parallel"):
        servers.open("llama_server").start(models.resolve("smollm2-135m"), paralel=2)
    with pytest.raises(BadInput, match="did you mean llama_server"):
        servers.open("llama-servers")


def test_a_server_that_dies_says_its_last_words(tmp_path):
    class Dying(type(servers.open("llama_server"))):
        def command(self, model, port, options):
            return [sys.executable, "-c", "import sys; print('no room at the inn'); sys.exit(3)"]

    with pytest.raises(RunFailed, match="code 3: no room at the inn"):
        Dying().start(models.resolve("smollm2-135m"))


def test_a_server_does_not_outlive_a_killed_parent():
    code = (
        "import os, signal\nfrom labkit import models, servers\n"
        "r = servers.open('llama_server').start(models.resolve('smollm2-135m'), context=256, parallel=1)\n"
        "print(r.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    end = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "still there"
        time.sleep(0.2)
