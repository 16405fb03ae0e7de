"""Tests in two processes at once, each file in one of them, and tests of time alone.

pytest -n auto uses two processes where the machine has the cores and the memory, and none otherwise. A file is a group and stays
in one process, since its tests share servers; each lab is a group; all that uses containers is one group, since podman's store is one.
A test marked `alone` runs while the other process waits: it measures time, and a neighbour on the next core would be measured too.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest
from filelock import FileLock, ReadWriteLock
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from labkit.core import machine

CONTAINERS = re.compile(r"servers/test_images|facts/test_live_real|test_proofs\.py.*\[1[67]_")
# what takes longest begins first, so that both processes end at about the same time
LONGEST = (CONTAINERS, re.compile(r"test_proofs\.py.*\[(18|12|11|10|06|04|07)_"), re.compile(r"test_proofs\.py.*\[\d\d_|engines/|browser/"))
MEMORY_EACH = 6 << 30  # bytes: lab 18 with its server, and room for the rest


def pytest_xdist_auto_num_workers() -> int:
    return 2 if psutil.virtual_memory().total >= 2 * MEMORY_EACH and machine.cores() >= 2 else 0


def group(test: str) -> str:
    """What stays together, by the test's id."""
    if CONTAINERS.search(test):
        return "containers"
    lab = re.search(r"test_proofs\.py.*\[(\d\d)_", test)
    return f"lab {lab[1]}" if lab else test.partition("::")[0]


class Groups(LoadScopeScheduling):
    """xdist's own way of keeping tests together (a mark, and --dist loadgroup) does nothing under pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    return Groups(config, log)


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("alone"):
        return len(LONGEST) + 1
    return next((rank for rank, pattern in enumerate(LONGEST) if pattern.search(item.nodeid)), len(LONGEST))


def _run(config: pytest.Config) -> str | None:
    """The name of the run that this process is a worker of. Its environment is no answer: what a test starts inherits that."""
    return getattr(config, "workerinput", {}).get("testrunuid")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _run(config):
        items.sort(key=_rank)  # a stable sort: within a file the order stays


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests side by side are readers of a lock, a test alone is its writer. Who waits as a writer lets no new reader in."""
    run = _run(item.config)
    if run is None:
        return (yield)
    room = Path(tempfile.gettempdir()) / f"labkit-tests-{run}"
    door, lock = FileLock(f"{room}.door"), ReadWriteLock(f"{room}.room")
    with door:
        held = lock.write_lock() if item.get_closest_marker("alone") else lock.read_lock()
        held.__enter__()
    try:
        return (yield)
    finally:
        held.__exit__(None, None, None)
