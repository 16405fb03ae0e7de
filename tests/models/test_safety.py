"""What a file is: by its name, by its content; pickles are read and never loaded."""

import pickle
import pickletools
import sys
import zipfile

import pytest

from labkit.core.errors import BadInput
from labkit.models import safety

ONNX = b"\x08\x0a\x12\x04test\x3a\x02\x12\x00"  # ir_version 10, producer "test", a graph
SAFE = (2).to_bytes(8, "little") + b"{}"


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("model.safetensors", "weights"), ("a/b.GGUF", "weights"), ("model.onnx.data", "weights"), ("pytorch_model.bin", "pickle"),
        ("x.pt", "pickle"), ("consolidated.00.pth", "pickle"), ("x.ckpt", "pickle"), ("x.npy", "pickle"), ("modeling_x.py", "code"),
        ("lib.so", "code"), ("tokenizer.json", "text"), ("LICENSE", "text"), ("NOTICE.txt", "text"), ("tokenizer.model", "text"),
        ("weights.rar", "other"), (".gitattributes", "other"),
    ],
)  # fmt: skip
def test_names(name, verdict):
    assert safety.judge(name) == verdict


@pytest.mark.parametrize("name", ["../x.gguf", "/etc/x.gguf", "a/../../x", "a//b", "a\\b", "c:x.gguf", "", ".", "a/.", "a\0b"])
def test_names_that_leave_their_folder(name):
    with pytest.raises(BadInput, match="safe file name"):
        safety.check_name(name)


@pytest.mark.parametrize(
    ("name", "content"), [("m.gguf", b"GGUF\3"), ("m.safetensors", SAFE), ("m.onnx", ONNX), ("c.json", b"[1]"), ("L.txt", b"x")]
)
def test_files_that_are_what_they_say(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    safety.check_content(tmp_path / name)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf", "model.onnx", "model.onnx_data", "tokenizer.json", "tokenizer.model"])
def test_a_pickle_under_any_name_is_seen(tmp_path, name, protocol):
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"w": [1.0] * 9, "c": Call(print, "x")}, protocol))
    with pytest.raises(BadInput, match=f"{name} holds a pickle"):
        safety.check_content(path)


def test_a_zip_with_a_pickle_in_it_is_seen(tmp_path):
    """torch.save's form."""
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Call(print, "x"), 2))
    with pytest.raises(BadInput, match="holds a pickle"):
        safety.check_content(path)
    assert safety.pickle_imports(path) == ["__builtin__.print"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.gguf", b"GGML1234", "does not start with GGUF"),
        ("m.safetensors", SAFE + b"x", "its header says 10"),
        ("m.safetensors", b"\xff" * 20, "cut off in its header"),
        ("m.safetensors", (4).to_bytes(8, "little") + b"nope", "no JSON header"),
        ("m.safetensors", (11).to_bytes(8, "little") + b'{"a": {"b"}', "no JSON header"),
        ("m.safetensors", (10).to_bytes(8, "little") + b'{"a": 123}', "no table of tensors"),
        ("m.onnx", b"hello world", "no ONNX model"),
        ("m.onnx", ONNX[:8], "holds no graph|no ONNX model"),
        ("m.onnx", ONNX[:-1], "no ONNX model"),
        ("m.onnx", b"", "holds no graph"),
        ("c.json", b"{", "it is no JSON"),
        ("c.json", b"\xff\xfe", "it is no JSON"),
        ("m.bin", b"abc", "can hold a pickle"),
        ("m.py", b"abc", "a program"),
        ("m.xyz", b"abc", "unknown kind"),
    ],
)
def test_files_that_are_not_what_they_say(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=words):
        safety.check_content(tmp_path / name)


def test_numbers_that_start_like_a_pickle_are_no_pickle(tmp_path):
    path = tmp_path / "model.onnx_data"
    path.write_bytes(b"\x80\x04" + bytes(range(255, 0, -1)))
    safety.check_content(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_a_pickle_would_import_is_read_from_its_opcodes(protocol):
    data = pickle.dumps([{"n": 1}, Call(sys.exit, 3), Call(print, "sys"), Call(sys.exit, 4)], protocol)
    found = safety.pickle_imports(data)
    assert [name.rpartition(".")[2] for name in found] == ["exit", "print"]  # the second use comes from the memo
    assert safety.pickle_imports(pickle.dumps({"plain": [1, 2.0, "x"]}, protocol)) == []


def test_every_import_is_named_also_where_the_memo_brings_it():
    data = pickle.dumps([Call(print, "a"), Call(len, "builtins")], 4)
    names = [op.name for op, _, _ in pickletools.genops(data)]
    assert names.count("STACK_GLOBAL") == 2
    assert safety.pickle_imports(data) == ["builtins.print", "builtins.len"]


def test_no_pickle_is_said():
    with pytest.raises(BadInput, match="no pickle"):
        safety.pickle_imports(b"GGUF and so on")
