"""Result files are never torn."""

import subprocess
import sys

import pytest

from labkit.core import results
from labkit.core.errors import BadInput


def test_append_and_read(tmp_path):
    path = tmp_path / "r.jsonl"
    results.append(path, [{"n": 1}, {"n": 2}])
    results.append(path, [{"n": 3}])
    assert [r["n"] for r in results.read(path)] == [1, 2, 3]


def test_a_torn_last_line_is_passed_over_and_cut(tmp_path):
    path = tmp_path / "r.jsonl"
    results.append(path, [{"n": 1}])
    with path.open("a") as file:
        file.write('{"n": 2, "text": "half')
    assert [r["n"] for r in results.read(path)] == [1]
    results.append(path, [{"n": 3}])
    assert [r["n"] for r in results.read(path)] == [1, 3]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"n": 1}\nnonsense\n{"n": 2}\n')
    with pytest.raises(BadInput, match="line 2"):
        list(results.read(path))


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    """A file size limit stands for the full disk: the write stops in the middle of the line."""
    path = tmp_path / "r.jsonl"
    results.append(path, [{"n": 1}])
    code = (
        "import resource, signal, sys\n"
        "from labkit.core import results\n"
        "from labkit.core.errors import BadInput\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        f"try:\n    results.append({str(path)!r}, [{{'text': 'x' * 500}}])\n"
        "except BadInput as error:\n    print(error); sys.exit(2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stdout
    assert path.read_text() == '{"n":1}\n' or [r["n"] for r in results.read(path)] == [1]
    assert path.read_text().endswith("}\n")


def test_writers_in_parallel_lose_nothing(tmp_path):
    path = tmp_path / "r.jsonl"
    code = f"from labkit.core import results\nfor n in range(50): results.append({str(path)!r}, [{{'n': n, 'pad': 'y' * 3000}}])"
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [w.wait() for w in writers] == [0, 0, 0]
    assert sorted(r["n"] for r in results.read(path)) == sorted(list(range(50)) * 3)
