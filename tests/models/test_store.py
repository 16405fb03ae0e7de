"""Verifying, removing, the cache."""

import pytest

from labkit import models
from labkit.core.errors import BadInput
from labkit.models import catalog, shape, store


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    return tmp_path


def test_verify_the_default_model():
    found = store.verify("smollm2-135m")
    assert found["ok"]
    assert found["sha256"] == catalog.get("smollm2-135m").package.sha256


def test_one_changed_byte_is_found(tmp_path):
    original = models.resolve("smollm2-135m").path
    data = bytearray(original.read_bytes())
    data[-1000] ^= 1
    changed = tmp_path / original.name
    changed.write_bytes(data)
    found = store.verify(str(changed))
    assert not found["ok"]
    assert "does not match" in found["why"]


def test_a_checksum_file_beside_it_counts(tmp_path):
    from gguf_factory import write

    path = write(tmp_path / "own.gguf")
    assert store.verify(str(path))["ok"]
    path.with_name("own.gguf.sha256").write_text("0" * 64)
    assert not store.verify(str(path))["ok"]


def test_shapes_are_kept_counted_and_removed(cache):
    ref = shape.write(catalog.get("gemma3-270m"), "Q4_0")
    assert shape.write(catalog.get("gemma3-270m"), "Q4_0").path == ref.path
    assert {row["kind"]: row["files"] for row in store.cache()}["shapes"] == 1
    assert [row["path"] for row in store.remove("gemma3-270m")] == [str(ref.path)]
    with pytest.raises(BadInput, match="no file"):
        store.remove("gemma3-270m")


def test_no_space_leaves_no_half_file(cache, monkeypatch):
    monkeypatch.setattr(shape.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(BadInput, match="free"):
        shape.write(catalog.get("gemma3-270m"), "Q4_0")
    assert list((cache / "shapes").iterdir()) == []
