"""Smaller files: what llama.cpp itself would write, kept with where they come from, whole or not there at all."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import psutil
import pytest
from gguf import GGUFReader

from labkit import models
from labkit.core.errors import BadInput, RunFailed
from labkit.core.records import ModelRef
from labkit.models import catalog, inspect, shape
from labkit.quant import gguf

LABKIT = str(Path(sys.executable).parent / "labkit")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("LABKIT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def source():
    return models.resolve("stdlib-10m")


@pytest.fixture(scope="module")
def four_bits(source, tmp_path_factory):
    """A quantized file of unknown origin, by path."""
    path = tmp_path_factory.mktemp("own") / "mine.gguf"
    shutil.copyfile(gguf.quantize(source, "Q4_1", progress=False).path, path)
    return models.resolve(path)


def bare(source, out, ftype):
    """The same with the library alone."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = ftype, True
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    try:
        assert llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) == 0
    finally:
        from labkit.engines import llamacpp

        llamacpp._keep.clear()  # the engine sets its own log again when it is next used
        llamacpp._library()
    return out.read_bytes()


def tensors(path):
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in GGUFReader(path).tensors}


def random(folder, **sizes):
    """Random weights, no vocabulary."""
    row = catalog.get("stdlib-10m")
    sizes = {"hidden": 256, "layers": 1, "ff": 256, "heads": 4, "kv_heads": 2, "vocab": 512} | sizes
    return shape.write(row.model_copy(update={"shape": row.shape.model_copy(update=sizes)}), "F16", folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A width that is a multiple of 256."""
    return random(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("kind", gguf.TYPES)
def test_every_type_makes_a_whole_file(small, kind):
    made = gguf.quantize(small, kind, progress=False)
    header = inspect.read(made.path)
    assert (made.type, made.bytes, made.bits_per_weight) == (kind, header.file_bytes, header.bits_per_weight)
    assert made.sha256 == models.sha256_of(made.path)
    assert made.source_sha256 == models.sha256_of(small.path)
    assert header.parameters == inspect.read(small.path).parameters
    assert made.ref().name == f"{small.name}-{kind}"
    first = {"F32": "F32", "F16": "F16", "BF16": "BF16"}.get(kind, kind.removesuffix("_M").removesuffix("_L"))
    stored = {t.type for t in header.tensors}
    assert first in stored or first.removesuffix("_S") in stored or "IQ3_S" in stored
    assert (made.bits_per_weight > 15.9) == (kind in ("F32", "F16", "BF16"))


@pytest.mark.parametrize("kind", ["Q4_K_M", "Q5_0", "TQ2_0"])
def test_the_bytes_are_those_of_the_bare_library(source, four_bits, kind, tmp_path):
    for ref in (source, four_bits):
        assert gguf.quantize(ref, kind, progress=False).path.read_bytes() == bare(ref.path, tmp_path / "bare.gguf", gguf.TYPES[kind])


def test_a_narrow_model_falls_back(tmp_path):
    made = gguf.quantize(random(tmp_path, hidden=320, heads=5, kv_heads=5), "Q4_K_M", progress=False)
    types = {t.name: t.type for t in inspect.read(made.path).tensors if len(t.shape) > 1}
    assert types.pop("token_embd.weight") == "Q8_0"  # its width of 320 is no multiple of 256
    assert types["blk.0.ffn_up.weight"] == "Q5_0"
    assert types["blk.0.ffn_down.weight"] in ("Q4_K", "Q6_K")  # its rows are 256 long


def test_no_dequantized_file_is_called_an_original(source, four_bits):
    assert gguf.to_f16(source) is source
    copy = gguf.to_f16(four_bits, progress=False)
    assert copy.name == "mine-F16-from-Q4_1"
    assert copy.path.name.startswith("mine-F16-from-Q4_1-")
    assert gguf.source_type(copy) == "Q4_1"
    assert gguf.to_f16(copy) == copy
    eight = gguf.quantize(copy, "Q8_0", progress=False).ref()
    assert eight.name == "mine-Q8_0-from-Q4_1"
    assert gguf.name_of(eight, "F16") == "mine-F16-from-Q8_0-from-Q4_1"
    assert gguf.name_of(models.resolve("smollm2-135m"), "F16") == "smollm2-135m-F16-from-Q4_1"


def test_a_quantized_source_is_read_itself(four_bits):
    before = tensors(four_bits.path)
    again = tensors(gguf.quantize(four_bits, "Q4_1", progress=False).path)
    assert again == before
    through = tensors(gguf.quantize(gguf.to_f16(four_bits, progress=False), "Q4_1", progress=False).path)
    assert through.keys() == before.keys()
    assert through != before  # the detour rounds once more


def test_the_cache_is_used_and_a_damaged_file_is_made_again(source, monkeypatch):
    made = gguf.quantize(source, "Q4_0", progress=False)
    good = made.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was made again"))
        assert gguf.quantize(source, "q4_0", progress=False) == made
    for broken in (good[:-1], good[:5_000_000] + bytes([good[5_000_000] ^ 1]) + good[5_000_001:]):
        made.path.write_bytes(broken)
        os.utime(made.path, ns=(time.time_ns(), time.time_ns()))
        assert gguf.quantize(source, "Q4_0", progress=False) == made
        assert made.path.read_bytes() == good
    made.path.with_name(made.path.name + ".json").write_text("{")
    assert gguf.quantize(source, "Q4_0", progress=False) == made


def test_the_note_says_where_a_file_comes_from(four_bits):
    note = gguf.provenance(gguf.quantize(four_bits, "Q8_0", progress=False).path)
    assert note["source_sha256"] == models.sha256_of(four_bits.path)
    assert (note["type"], note["source_type"], note["source_name"]) == ("Q8_0", "Q4_1", "mine")
    assert note["llama_cpp_python"] == gguf.library_version()
    assert note["date"].startswith("20")


@pytest.mark.parametrize("kept", [True, False])
def test_out_is_a_folder_with_a_checksum(source, tmp_path, monkeypatch, kept):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    if kept:
        gguf.quantize(source, "Q5_1", progress=False)
    out = tmp_path / "new" / "folder"
    made = gguf.quantize(source, "Q5_1", out, progress=False)
    assert made.path == out / "stdlib-10m-Q5_1.gguf"
    assert sorted(p.name for p in out.iterdir()) == [made.path.name, made.path.name + ".json", made.path.name + ".sha256"]
    assert (out / (made.path.name + ".sha256")).read_text() == f"{made.sha256}  {made.path.name}\n"
    before = made.path.stat().st_mtime_ns
    assert gguf.quantize(source, "Q5_1", out, progress=False).path.stat().st_mtime_ns == before


# -- what cannot be done


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Q4_9", "did you mean Q4_"),
        ("q44_0", "did you mean Q4_0"),
        ("", "known: "),
        ("zebra", "known: "),
        ("IQ1_S", "importance matrix"),
        ("iq2_xs", "importance matrix"),
        ("IQ3_XXS", "importance matrix"),
        ("Q2_K_S", "importance matrix"),
    ],
)
def test_types_that_cannot_be_had(source, name, says):
    with pytest.raises(BadInput, match=says):
        gguf.quantize(source, name)


def test_the_library_refuses_the_same_types(source, tmp_path):
    import llama_cpp

    for name in gguf.NEEDS_IMATRIX:
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.allow_requantize = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}"), True
        assert llama_cpp.llama_model_quantize(str(source.path).encode(), str(tmp_path / "x").encode(), ctypes.byref(params)) == 1
    for name, number in gguf.TYPES.items():
        assert getattr(llama_cpp, "LLAMA_FTYPE_ALL_F32" if name == "F32" else f"LLAMA_FTYPE_MOSTLY_{name}") == number


def test_sources_that_cannot_be_read(source, tmp_path):
    data = source.path.read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in (0, 100, 100_000, len(data) - 1):
        cut.write_bytes(data[:size])
        with pytest.raises(BadInput):
            gguf.quantize(ModelRef(name="cut", path=cut, format="gguf"), "Q8_0")
    name = b"blk.0.attn_q.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8
    cut.write_bytes(data[:at] + (9999).to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(BadInput, match="unknown type 9999"):
        gguf.quantize(ModelRef(name="strange", path=cut, format="gguf"), "Q8_0")
    with pytest.raises(BadInput, match="quantizes GGUF files"):
        gguf.quantize(ModelRef(name="other", path=tmp_path, format="hf"), "Q8_0")


def test_a_file_that_llama_cpp_refuses_gets_its_words(tmp_path):
    path = tmp_path / "odd.gguf"
    path.write_bytes(random(tmp_path).path.read_bytes().replace(b"llama", b"lyama"))
    with pytest.raises(RunFailed, match="unknown model architecture"):
        gguf.quantize(ModelRef(name="odd", path=path, format="gguf"), "Q8_0", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_out_is_never_a_file_of_somebody_else(source, tmp_path):
    (tmp_path / "stdlib-10m-Q8_0.gguf").write_bytes(b"mine")
    with pytest.raises(BadInput, match="not made by labkit"):
        gguf.quantize(source, "Q8_0", tmp_path)
    assert (tmp_path / "stdlib-10m-Q8_0.gguf").read_bytes() == b"mine"
    with pytest.raises(BadInput, match="not a folder"):
        gguf.quantize(source, "Q8_0", tmp_path / "stdlib-10m-Q8_0.gguf")


@pytest.mark.parametrize("kept", [True, False])
def test_too_little_space_is_seen_before(source, tmp_path, monkeypatch, kept):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    if kept:
        gguf.quantize(source, "Q8_0", progress=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 1_000_000))
    with pytest.raises(BadInput, match=r"needs 10 MB.*has 1 MB free"):
        gguf.quantize(source, "Q8_0", tmp_path / "out", progress=False)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("limit", [1000, 400_000, 3_000_000, 5_998_000])
def test_space_that_ends_in_the_middle_leaves_nothing(tmp_path, limit):
    out = tmp_path / "out"
    program = (
        "import resource, sys; from labkit import models; from labkit.cli import main;"
        "models.sha256_of(models.resolve('stdlib-10m').path);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); main(sys.argv[1:])"
    )
    words = [sys.executable, "-c", program, "quantize", "stdlib-10m", "Q4_0", "--out", str(out)]
    environment = {**os.environ, "LABKIT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    sentence = done.stderr.strip().splitlines()[-1]
    assert "space" in sentence
    assert "Traceback" not in done.stderr
    assert list(out.iterdir()) == []


# -- ended from outside: a model large enough to be caught at work


def started(out, cache):
    words = [LABKIT, "quantize", "smollm2-135m", "Q3_K_M", "--out", str(out)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "LABKIT_CACHE": str(cache)})
    deadline = time.monotonic() + 120
    while not any(p.stat().st_size for p in out.glob(".*.part")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process, psutil.Process(process.pid).children()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_ended_in_the_middle_leaves_nothing(tmp_path, number, code):
    out = tmp_path / "out"
    process, children = started(out, tmp_path)
    assert children
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    deadline = time.monotonic() + 30
    # a killed parent cannot tidy up after itself: its child does
    while list(out.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(out.iterdir()) == []


def test_a_child_that_dies_is_one_sentence(tmp_path):
    out, found = tmp_path / "out", []

    def run():
        try:
            gguf.quantize(models.resolve("smollm2-135m"), "Q3_K_M", out, progress=False)
        except RunFailed as error:
            found.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive() and not any(p.stat().st_size for p in out.glob(".*.part")):
        time.sleep(0.005)
    for child in psutil.Process().children():
        if "labkit.quant.gguf_child" in child.cmdline():
            child.kill()
    thread.join(60)
    assert "signal 9" in found[0]
    assert list(out.iterdir()) == []


def test_two_at_once_make_one_file(source, tmp_path):
    words = [LABKIT, "quantize", "stdlib-10m", "Q4_K_S", "--json"]
    environment = {**os.environ, "LABKIT_CACHE": str(tmp_path)}
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    first, second = (json.loads(process.communicate(timeout=120)[0]) for process in both)
    assert first == second
    assert len(list((tmp_path / "quantized").glob("*.gguf"))) == 1
