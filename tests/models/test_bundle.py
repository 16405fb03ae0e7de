"""Bundles for the air gap: whole or refused, and never outside their folder."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import namedtuple
from pathlib import Path

import pytest

from labkit import models
from labkit.core.errors import BadInput, MissingPart
from labkit.models import bundle, pulled, sha256_of, store
from labkit.models.pulled import Manifest, PulledFile

pytestmark = pytest.mark.usefixtures("own_cache", "only_loopback")

LABKIT = str(Path(sys.executable).parent / "labkit")


@pytest.fixture
def parts(tmp_path):
    """A model of the catalogue as if pulled, a model by path, wheels and an image."""
    folder = pulled.folder_of("qwen3-0.6b", "hub")
    (folder / "sub").mkdir(parents=True)
    files = {"qwen.gguf": b"GGUF" + b"q" * 5000, "sub/config.json": b'{"a": 1}', "LICENSE": b"Apache"}
    described = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        described.append(PulledFile(path=name, bytes=len(content), sha256=sha256_of(folder / name), verified_by="sha256"))
    pulled.write(
        folder,
        Manifest(name="qwen3-0.6b", source="hub", origin="Qwen/x", revision="1", licence="apache-2.0", licence_url="u", files=described),
    )
    wheels, image = tmp_path / "wheels", tmp_path / "server.tar"
    wheels.mkdir()
    (wheels / "thing-1.0-py3-none-any.whl").write_bytes(b"PK wheel" * 40)
    (wheels / "notes.txt").write_text("not a wheel")
    image.write_bytes(b"layers" * 100)
    return {"names": ["qwen3-0.6b"], "wheels": wheels, "images": [image]}


@pytest.fixture
def packed(parts, tmp_path):
    out = tmp_path / "course.tar"
    bundle.pack(out=out, **parts)
    store.remove("qwen3-0.6b")
    return out


def test_there_and_back(parts, tmp_path):
    out = tmp_path / "deep" / "course.tar"
    row = bundle.pack(out=out, **parts)
    assert (row["sha256"], row["bytes"], row["licence"]) == (sha256_of(out), out.stat().st_size, "apache-2.0")
    before = models.resolve("qwen3-0.6b")
    content = before.path.read_bytes()
    store.remove("qwen3-0.6b")
    with pytest.raises(MissingPart):
        models.resolve("qwen3-0.6b")
    rows = bundle.unpack(out)
    assert all(sorted(row) == ["bytes", "licence", "path", "sha256"] for row in rows)
    after = models.resolve("qwen3-0.6b")
    assert (after.sha256, after.licence, after.format, after.path.read_bytes()) == (before.sha256, "apache-2.0", "gguf", content)
    assert rows[0]["path"] == str(after.path)
    assert (after.path.parent / "sub" / "config.json").is_file()
    assert sorted(Path(row["path"]).name for row in rows[1:]) == ["server.tar", "thing-1.0-py3-none-any.whl"]
    bundle.unpack(out)  # again over itself
    assert models.resolve("qwen3-0.6b").path.read_bytes() == content


def test_into_a_folder_of_ones_own(packed, tmp_path):
    rows = bundle.unpack(packed, tmp_path / "here")
    inside = sorted(str(path.relative_to(tmp_path / "here")) for path in (tmp_path / "here").rglob("*") if path.is_file())
    assert inside == [
        "images/server.tar", "models/qwen3-0.6b/LICENSE", "models/qwen3-0.6b/labkit.json", "models/qwen3-0.6b/qwen.gguf",
        "models/qwen3-0.6b/sub/config.json", "wheels/thing-1.0-py3-none-any.whl",
    ]  # fmt: skip
    assert models.resolve(rows[0]["path"].replace("qwen.gguf", "sub")).format == "hf"


def test_a_model_by_its_path(tmp_path):
    source = models.resolve("stdlib-10m").path
    copy = tmp_path / "My-Model.gguf"
    shutil.copyfile(source, copy)
    bundle.pack([str(copy)], tmp_path / "b.tar")
    bundle.unpack(tmp_path / "b.tar")
    assert models.resolve("My-Model").sha256 == sha256_of(source)


def test_the_same_contents_give_the_same_members(parts, tmp_path):
    for name in ("a.tar", "b.tar"):
        bundle.pack(out=tmp_path / name, **parts)
    first, second = (bundle.read(tmp_path / name).members for name in ("a.tar", "b.tar"))
    assert first == second


def places(packed):
    """A byte of every region: contents, headers, padding, the end of the tar, the seal."""
    with tarfile.open(packed) as archive:
        members = [(info.name, info.offset_data, info.size) for info in archive]
    for name, start, size in members:
        yield from ((name, at) for at in {start, start + size // 2, start + size - 1})
        yield from (("", at) for at in {start - 512, start - 300, start - 1, start + -(-size // 512) * 512 - 1})
    whole = packed.stat().st_size
    yield from (("", at) for at in (whole - 1, whole - 64, whole - 78, whole - 79, whole - 2000))


def test_one_changed_byte_anywhere_is_refused(packed, tmp_path):
    """Nothing is put in place and nothing is left; where a member's content was changed, it is named."""
    whole, damaged, target = packed.read_bytes(), tmp_path / "damaged.tar", tmp_path / "into"
    tried = list(places(packed))
    assert len({at for _, at in tried}) > 30
    for name, at in tried:
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BadInput) as caught:
            bundle.unpack(damaged, target)
        assert name == bundle.MANIFEST or name in str(caught.value), (at, caught.value)
        assert not target.exists() or not any(target.iterdir())


def test_tar_itself_can_still_read_a_bundle(packed, tmp_path, needs):
    done = subprocess.run([needs("tar"), "-tf", packed], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == bundle.MANIFEST
    assert done.stderr == ""


def test_a_bundle_that_is_cut_off_anywhere_is_refused(packed, tmp_path):
    whole, cut = packed.read_bytes(), tmp_path / "cut.tar"
    with tarfile.open(packed) as archive:
        content_end = max(info.offset_data + info.size for info in archive)
    for length in (0, 10, 511, 600, len(whole) // 3, content_end - 1, content_end - 200, len(whole) - 1, len(whole) - 78):
        cut.write_bytes(whole[:length])
        with pytest.raises(BadInput):
            bundle.unpack(cut, tmp_path / "into")
    assert not any((tmp_path / "into").iterdir())


def rewritten(packed, out, change=None, extra=()):
    """The bundle again, its manifest changed, with further members."""
    with tarfile.open(packed) as old, tarfile.open(out, "w") as new:
        for info in old:
            content = old.extractfile(info).read()
            if info.name == bundle.MANIFEST and change:
                value = json.loads(content)
                change(value)
                content = json.dumps(value).encode()
                info.size = len(content)
            new.addfile(info, io.BytesIO(content))
        for info, content in extra:
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    out.write_bytes(out.read_bytes() + b"labkit sha256:" + hashlib.sha256(out.read_bytes()).hexdigest().encode())
    return out


def test_the_bundles_that_lie_are_sealed_as_real_ones_are(packed, tmp_path):
    """So that the tests below meet the check they are about, and not the seal."""
    assert len(bundle.unpack(rewritten(packed, tmp_path / "same.tar"), tmp_path / "into")) == 3


def _rename(path):
    def change(value):
        value["members"][0]["path"] = path

    return change


@pytest.mark.parametrize(
    "change",
    [
        _rename("../../outside"), _rename("/etc/outside"), _rename("models/../../outside"), _rename("elsewhere/x"), _rename("models\\x"),
        lambda value: value["models"].update({"../../outside": value["models"].pop("qwen3-0.6b")}),
        lambda value: value["models"]["qwen3-0.6b"].update(name="../../outside"),
        lambda value: value["models"].update({"x": value["models"]["qwen3-0.6b"] | {"name": "x"}}),
        lambda value: value["models"]["qwen3-0.6b"]["files"][0].update(path="../../outside"),
        lambda value: value["members"].append(value["members"][0]),
        lambda value: value["members"].append({**value["members"][0], "path": "models/qwen3-0.6b/not-there"}),
        lambda value: value["members"].pop(),
        lambda value: value.update(bundle=2),
        lambda value: value["members"][0].update(bytes=-1),
    ],
)  # fmt: skip
def test_a_manifest_that_lies_is_refused(packed, tmp_path, change):
    before = sorted(tmp_path.parent.rglob("*outside*"))
    bad = rewritten(packed, tmp_path / "bad.tar", change)
    with pytest.raises(BadInput) as caught:
        bundle.unpack(bad, tmp_path / "into")
    assert "between its members" not in str(caught.value)
    assert not (tmp_path / "into").exists() or not any((tmp_path / "into").iterdir())
    assert sorted(tmp_path.parent.rglob("*outside*")) == before


def _info(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "info",
    [_info("../outside"), _info("models/extra"), _info("link", tarfile.SYMTYPE, "/etc/passwd"), _info("dev", tarfile.CHRTYPE)],
    ids=lambda info: info.name,
)
def test_a_member_that_the_manifest_does_not_name_is_refused(packed, tmp_path, info):
    bad = rewritten(packed, tmp_path / "bad.tar", extra=[(info, b"")])
    with pytest.raises(BadInput, match="which its manifest does not name"):
        bundle.unpack(bad, tmp_path / "into")
    assert not any((tmp_path / "into").iterdir())


def test_a_pickle_in_a_bundle_is_refused(tmp_path):
    import pickle

    folder = pulled.folder_of("bad", "hub")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(pickle.dumps([1]))
    one = PulledFile(
        path="model.safetensors",
        bytes=(folder / "model.safetensors").stat().st_size,
        sha256=sha256_of(folder / "model.safetensors"),
        verified_by="size",
    )
    pulled.write(folder, Manifest(name="bad", source="hub", origin="o", revision="", licence=None, licence_url="", files=(one,)))
    bundle.pack(["bad"], tmp_path / "b.tar")
    with pytest.raises(BadInput, match=r"models/bad/model.safetensors: .* holds a pickle"):
        bundle.unpack(tmp_path / "b.tar", tmp_path / "into")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": []}, "nothing to bundle"),
        ({"names": ["qwen3-0.6x"]}, "did you mean qwen3-0.6b"),
        ({"names": [], "wheels": "empty"}, "holds no wheels"),
        ({"names": [], "images": ["no-such.tar"]}, "no image archive"),
    ],
)
def test_what_cannot_be_bundled(tmp_path, options, words):
    (tmp_path / "empty").mkdir()
    options = options | {"wheels": tmp_path / options["wheels"] if "wheels" in options else None}
    options["images"] = [tmp_path / name for name in options.get("images", [])]
    with pytest.raises(BadInput, match=words):
        bundle.pack(out=tmp_path / "b.tar", **options)
    assert not (tmp_path / "b.tar").exists()


def test_a_file_that_is_there_is_not_overwritten(parts, tmp_path):
    (tmp_path / "b.tar").write_text("mine")
    with pytest.raises(BadInput, match="there already"):
        bundle.pack(out=tmp_path / "b.tar", **parts)
    assert (tmp_path / "b.tar").read_text() == "mine"


def test_a_full_disk_is_said_first(parts, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(10, 9, 1))
    with pytest.raises(BadInput, match="are needed"):
        bundle.unpack(packed, tmp_path / "into")
    with pytest.raises(BadInput, match="are needed"):
        bundle.pack(["stdlib-10m"], tmp_path / "b.tar")


def test_the_commands(packed, tmp_path):
    env = {**os.environ, "LABKIT_CACHE": str(tmp_path / "other")}

    def labkit(*words):
        return subprocess.run([LABKIT, "models", *map(str, words)], env=env, capture_output=True, text=True, check=False, timeout=120)

    done = labkit("unbundle", packed, "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3
    assert all(sorted(row) == ["bytes", "licence", "path", "sha256"] for row in rows)
    assert "--no-index --find-links" in done.stderr
    made = labkit("bundle", "qwen3-0.6b", "--out", tmp_path / "again.tar", "--json")
    assert json.loads(made.stdout)["path"] == str(tmp_path / "again.tar")
    data = bytearray(packed.read_bytes())
    data[data.index(b"qqqq")] ^= 1
    (tmp_path / "bad.tar").write_bytes(data)
    bad = labkit("unbundle", tmp_path / "bad.tar")
    assert (bad.returncode, bad.stdout, len(bad.stderr.strip().splitlines())) == (2, "", 1)
    assert "models/qwen3-0.6b/qwen.gguf in bad.tar is damaged" in bad.stderr
    gone = labkit("rm", "qwen3-0.6b", "--json")
    assert gone.returncode == 0
    assert any(json.loads(line)["path"].endswith("qwen.gguf") for line in gone.stdout.splitlines())
