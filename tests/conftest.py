"""What all tests share: parts that a machine may lack, and a network with nothing in it but loopback.

needs("chromium") gives a program's path. Where the part is missing it fails with CI=true, and otherwise skips; the end of
the run lists what was not tested. offline([...]) runs a command that can reach no network.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parts import find_program, network_namespace

pytest_plugins = ["side_by_side"]
HOW = "is missing: sh scripts/setup.sh system names the package"


def missing_part(part: str) -> None:
    """Fail with CI=true; otherwise skip, to be listed at the end of the run."""
    reason = f"{part} {HOW}"
    if os.environ.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(f"{reason} (CI=true: nothing may be left out)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def needs() -> Callable[[str], str]:
    """needs("chromium") -> the program's path."""

    def find(part: str) -> str:
        path = find_program(part)
        if path is None:
            missing_part(part)
        return str(path)

    return find


@pytest.fixture(scope="module")
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves room for sockets: 107 characters is all that the system allows one."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


@pytest.fixture
def offline() -> Callable[..., subprocess.CompletedProcess[str]]:
    """offline([program, …], **options of subprocess.run), with no network but loopback."""
    prefix = network_namespace()
    if prefix is None:
        missing_part("a network namespace (Linux, unshare and ip)")

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        settings: dict = {"capture_output": True, "text": True, "check": False, **options}
        return subprocess.run([*(prefix or []), *map(str, command)], **settings)

    return run


def pytest_configure(config: pytest.Config) -> None:
    # a shell starts what it puts into the background with Ctrl-C ignored, and children inherit that: tests that send it want it heard
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # from the reports, since the tests may have run in other processes than this one
    skipped = [(report.nodeid, str(report.longrepr[2])) for report in terminalreporter.stats.get("skipped", []) if report.longrepr]
    left_out = [(test, reason.removeprefix("Skipped: ")) for test, reason in skipped if HOW in reason]
    if left_out:
        terminalreporter.section("not tested")
        for test, reason in left_out:
            terminalreporter.line(f"{test}: {reason}")
