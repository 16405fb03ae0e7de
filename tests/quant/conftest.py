"""A disk that fills in the middle of a write."""

import subprocess
import sys

import pytest


@pytest.fixture
def full_disk(tmp_path):
    """full_disk(setup, call): run the call in a process whose files cannot grow beyond 200 kB; what it says of that is returned.

    A limit on the size of a file stops the writing where a full disk would. Nothing but locks may be left in tmp_path.
    """

    def run(setup: str, call: str) -> str:
        code = (
            f"import resource\nfrom pathlib import Path\nfrom labkit.core.errors import BadInput\n{setup}\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
            f"try:\n    {call}\nexcept BadInput as error:\n    print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "the disk is full" in done.stdout, done.stdout + done.stderr
        assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []
        return done.stdout

    return run
