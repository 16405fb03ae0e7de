"""A JupyterLab server and a headless browser for one test, both stopped by their own process ids in all cases."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import nbformat
import pytest

# no sandbox: containers and root have none; the rest keeps the browser off the network and quiet
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# `windowingMode: none` keeps cells outside the window in the page; the first entry silences the question about news
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}


def until(true: Callable[[], object], seconds: float, what: str) -> object:
    """Ask four times a second; fail, saying what was waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = true()
        if answer:
            return answer
        time.sleep(0.25)
    return pytest.fail(f"waited {seconds:.0f} s in vain: {what}")


class Server:
    """The address and token of a running JupyterLab."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token

    def get(self, path: str) -> list | dict | None:
        """What the server's API answers; None while it does not listen yet."""
        try:
            answer = httpx.get(f"{self.url}{path}", headers={"Authorization": f"token {self.token}"}, timeout=5)
        except httpx.TransportError:
            return None
        return answer.raise_for_status().json()

    def idle(self) -> bool:
        try:
            kernels = self.get("/api/kernels")
        except httpx.HTTPStatusError as error:  # 500 while a kernel is being started: on a busy machine that takes seconds
            if error.response.status_code != 500:
                raise
            return False
        return bool(kernels) and all(kernel["execution_state"] == "idle" for kernel in kernels)


@contextmanager
def jupyterlab(root: Path, state: Path) -> Iterator[Server]:
    """JupyterLab on `root`, on a free loopback port; `state` takes its settings, its runtime files and its log."""
    for name, values in SETTINGS.items():
        file = state / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(state / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(state / "config"),
        "JUPYTER_DATA_DIR": str(state / "data"),
        "JUPYTER_RUNTIME_DIR": str(state / "runtime"),
        "JUPYTER_TOKEN": token,  # not in the arguments, where `ps` would show it
    }
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={root}"]
    log = state / "jupyterlab.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=root)
    try:
        server = Server(f"http://127.0.0.1:{port}", token)

        def up() -> object:
            assert process.poll() is None, f"JupyterLab ended:\n{log.read_text(encoding='utf-8')[-2000:]}"
            return server.get("/api/status")

        until(up, 60, "JupyterLab answers")
        yield server
    finally:
        process.terminate()  # it stops its kernels first
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def quick_copy(notebook: Path, folder: Path) -> Path:
    """A copy with `quick = True` in its parameters cell."""
    node = nbformat.read(notebook, as_version=4)
    cell = next(cell for cell in node.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source, changed = re.subn(r"^(quick\b[^=\n]*=\s*)False\b", r"\1True", cell.source, flags=re.MULTILINE)
    assert changed == 1, "the parameters cell sets quick once"
    copy = folder / notebook.name
    nbformat.write(node, copy)
    return copy
