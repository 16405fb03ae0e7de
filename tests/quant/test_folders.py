"""A model folder is written whole or not at all."""

import json
import subprocess
import sys
import threading

import pytest

from labkit.core.errors import BadInput
from labkit.quant import folders

NOTE = {"kind": "test", "source_sha256": "12ab"}


def fill(target, text="{}", **options):
    with folders.made(target, 1000, NOTE, **options) as folder:
        if folder:
            (folder / "config.json").write_text(text)
    return folder is not None


def test_made_once_with_its_note(tmp_path):
    target = tmp_path / "deep" / "model"
    assert fill(target)
    assert not fill(target, text="other")
    assert sorted(p.name for p in target.iterdir()) == ["config.json", "labkit.json"]
    found = json.loads((target / "labkit.json").read_text())
    assert found["bytes"] == {"config.json": 2}
    assert found["source_sha256"] == "12ab"


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_a_run_that_breaks_off_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)), folders.made(tmp_path / "model", 1000, NOTE) as folder:
        (folder / "half.bin").write_bytes(b"x" * 100)
        raise error
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("I/O error: File too large (os error 27)")])
def test_a_full_disk_is_one_sentence(tmp_path, error):
    with pytest.raises(BadInput, match="the disk is full"), folders.made(tmp_path / "model", 1000, NOTE):
        raise error
    assert not (tmp_path / "model").exists()


def test_too_little_space_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(BadInput, match="MB free"), folders.made(tmp_path / "model", 1 << 60, NOTE):
        raise AssertionError("it must not come here")


def test_something_else_is_never_overwritten_by_hand_and_mended_in_the_cache(tmp_path):
    target = tmp_path / "model"
    fill(target)
    (target / "config.json").write_text("cut off")
    with pytest.raises(BadInput, match="holds something else"):
        fill(target)
    assert fill(target, replace=True)
    assert (target / "config.json").read_text() == "{}"


def test_two_at_once_make_it_once(tmp_path):
    made = []
    threads = [threading.Thread(target=lambda: made.append(fill(tmp_path / "model"))) for _ in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(made) == [False] * 5 + [True]


def test_a_digest_is_that_of_names_and_contents(tmp_path):
    for name, text in (("a", "{}"), ("b", "{}"), ("c", "{ }")):
        fill(tmp_path / name, text)
    digests = [folders.digest(tmp_path / name) for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_offline_ends_with_its_block():
    """In a process of its own: huggingface_hub keeps what the environment says when it is first imported."""
    code = (
        "from labkit.quant import folders\n"
        "with folders.offline():\n"
        "    import huggingface_hub as hub\n"
        "    inside = hub.is_offline_mode()\n"
        "print(inside, hub.is_offline_mode())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
