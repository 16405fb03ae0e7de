"""Headers: right ones are read, broken ones get one sentence."""

import struct

import pytest
from gguf_factory import write

from labkit import models
from labkit.core.errors import BadInput
from labkit.models import inspect


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_the_default_model():
    found = inspect.read(models.resolve("smollm2-135m").path)
    assert (found.architecture, found.parameters, len(found.tensors)) == ("llama", 134_515_008, 272)
    assert found.value("block_count") == 30
    assert found.has_vocabulary
    assert found.chat_template
    assert 5.7 < found.bits_per_weight < 5.8
    assert found.metadata["tokenizer.ggml.tokens"] == {"array": 49152}


def test_the_gguf_package_reads_the_same_tensors(tiny):
    from gguf import GGUFReader

    theirs = {t.name: (t.tensor_type.name, tuple(t.shape), t.n_bytes, t.data_offset) for t in GGUFReader(tiny).tensors}
    ours = {t.name: (t.type, t.shape, t.bytes, t.offset) for t in inspect.read(tiny).tensors}
    assert ours == theirs


def test_truncated_at_any_byte(tiny, tmp_path):
    data = tiny.read_bytes()
    header = inspect.read(tiny).tensors[0].offset
    cut = tmp_path / "cut.gguf"
    for size in [*range(0, 200), *range(200, header, header // 150), header, header + 1, len(data) // 2, len(data) - 1]:
        cut.write_bytes(data[:size])
        with pytest.raises(BadInput) as caught:
            inspect.read(cut)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("text", b"hello, I am a text file", "not a GGUF file"),
        ("empty", b"", "not a GGUF file"),
        ("version", b"GGUF" + struct.pack("<IQQ", 77, 0, 0), "version 77"),
        ("big_endian", b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "version"),
        ("tensors", b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "claims"),
        ("pairs", b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "claims"),
        ("key", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62) + b"x" * 40, "ends inside"),
        ("kind", b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 99) + b"x" * 40, "unknown kind"),
        ("array", b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 4, 1 << 61) + b"x" * 40, "ends inside"),
        ("nested", b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9, "unknown kind"),
        ("dims", b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<I", 4_000_000) + b"x" * 90, "dimensions"),
        ("type", b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 32, 250, 0) + b"x" * 90, "unknown type"),
        ("huge", b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 40, 0, 0) + b"x" * 90, "need"),
        ("offset", b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 4, 0, 1 << 63) + b"x" * 90, "need"),
    ],
)
def test_absurd_headers(tmp_path, name, data, words):
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=words):
        inspect.read(path)
