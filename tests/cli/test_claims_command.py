"""labkit claims: rows for programs, a table for people, exit codes, and nothing left behind after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from labkit import cli
from labkit.facts import claims, live

LABKIT = [sys.executable, "-c", "from labkit.cli import main; main()"]


def rows(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_all_of_the_ledger_without_a_server(capsys):
    assert cli.run(["claims", "--json"]) == 0
    found = {row["id"]: row for row in rows(capsys)}
    assert set(found) == set(claims.load())
    assert all({"id", "verdict", "shown", "why", "says"} == row.keys() for row in found.values())
    assert found["quant-q8-lossless"]["shown"] == "confirmed"
    assert all(found[id]["shown"] == "not-run" for id in live.of("foundry", "llama"))
    assert "labkit claims --live" in found["foundry-metrics"]["why"]


def test_lines_for_people(capsys):
    assert cli.run(["claims", "phi4-mini-vram"]) == 0
    out = capsys.readouterr()
    assert "phi4-mini-vram: false (confirmed)" in out.out
    assert "7.67" in out.out
    assert "1 confirmed" in out.err


def test_exit_1_where_something_contradicts_the_ledger(capsys, tmp_path, monkeypatch):
    program = tmp_path / "apt-cache"
    program.write_text("#!/bin/sh\necho '  Candidate: 1.0'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert cli.run(["claims", "ollama-apt", "--json"]) == 1
    assert rows(capsys)[0]["shown"] == "refuted"


@pytest.mark.parametrize("more", [[], ["--live"]])
def test_exit_2_and_the_nearest_id(more, capsys):
    assert cli.run(["claims", "ollama-apt", "phi4-mini-ram", *more]) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert "did you mean phi4-mini-vram?" in out.err
    assert len(out.err.splitlines()) == 1


def test_ctrl_c_stops_the_server_and_leaves_nothing(tmp_path):
    command = [*LABKIT, "claims", "--live", "--json", *live.of("ollama")]
    own = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=own) as run:
        assert run.stdout is not None
        run.stdout.readline()  # the first is decided, so its Ollama runs
        below = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said.decode()
    assert b"Traceback" not in said
    assert below, "an Ollama ran"
    end = time.monotonic() + 20
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert list(tmp_path.iterdir()) == []
