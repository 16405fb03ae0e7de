"""GGUF -> MLX: what is in the folder, held against mlx.core and against arithmetic; whole or not at all."""

import json
import subprocess
import sys

import numpy as np
import pytest
from gguf import GGUFReader

from labkit import models
from labkit.core.errors import BadInput, MissingPart
from labkit.core.records import ModelRef
from labkit.quant import affine, folders, hf, mlx


@pytest.fixture(scope="module")
def source():
    return hf.to_hf(models.resolve("stdlib-10m"))


@pytest.fixture(scope="module")
def four_bit():
    return mlx.convert(models.resolve("stdlib-10m"), bits=4, group_size=64)


def test_the_folder_is_a_model_of_format_mlx(four_bit):
    assert (four_bit.format, models.resolve(four_bit.path).format) == ("mlx", "mlx")
    assert four_bit.sha256 == folders.digest(four_bit.path)
    note = folders.note_of(four_bit.path)
    assert note["source_sha256"] == models.sha256_of(models.resolve("stdlib-10m").path)
    assert (note["bits"], note["group_size"], note["dtype"], set(note["versions"])) == (4, 64, "float16", {"mlx", "mlx-lm"})


def test_every_byte_is_accounted_for(four_bit):
    found = mlx.inspect(four_bit.path)
    header = models.inspect.read(models.resolve("stdlib-10m").path)
    assert found.parameters == header.parameters
    assert sum(found.bytes_by_part.values()) == sum(found.bytes_by_kind.values()) == found.tensor_bytes
    file = four_bit.path / "model.safetensors"
    names = int.from_bytes(file.read_bytes()[:8], "little")
    assert file.stat().st_size == 8 + names + found.tensor_bytes
    matrices = [t for t in found.tensors if t.scales_bytes]
    assert {t.bits_per_weight for t in matrices} == {affine.bits_per_weight(4, 64)} == {4.5}
    assert {t.type for t in found.tensors} == {"affine 4 bit, groups of 64", "float16"}
    assert 4.5 < found.bits_per_weight < 4.51
    assert set(found.bytes_by_kind) == {"embedding", "attention", "feed-forward", "norm"}


@pytest.mark.parametrize(
    ("bits", "group_size", "dtype", "expected"),
    [(2, 32, "float16", 3.0), (8, 128, "bfloat16", 8.25), (4, 64, "float32", 5.0), (None, 64, "float16", 16.0)],
)
def test_bits_per_weight_follow_from_bits_group_and_scale(source, tmp_path, bits, group_size, dtype, expected):
    made = mlx.convert(source, bits, group_size, tmp_path / "out", dtype)
    found = mlx.inspect(made.path)
    assert {t.bits_per_weight for t in found.tensors if t.kind != "norm"} == {expected}
    assert found.quantization.get("bits") == bits


def test_the_weights_are_those_of_the_gguf_file_rounded(four_bit):
    """The embedding is not rearranged on the way, so it can be held against the file itself."""
    reader = GGUFReader(models.resolve("stdlib-10m").path)
    (embedding,) = [t for t in reader.tensors if t.name == "token_embd.weight"]
    words, scales, biases = (mlx.tensor(four_bit.path, f"model.embed_tokens.{part}") for part in ("weight", "scales", "biases"))
    codes = affine.unpack(words, 4)
    mine = affine.quantize(np.array(embedding.data), 4, 64)
    assert np.array_equal(codes, mine[0])
    assert np.array_equal(scales, mine[1])
    assert np.array_equal(biases, mine[2])


def test_numpy_reads_what_mlx_reads(source, tmp_path):
    import mlx.core as mx

    made = mlx.convert(source, 6, 64, tmp_path / "out", "bfloat16")
    theirs = mx.load(str(made.path / "model.safetensors"))
    assert len(theirs) > 30
    for name, array in theirs.items():
        mine = mlx.tensor(made.path, name)
        expected = np.array(array.astype(mx.float32)) if array.dtype == mx.bfloat16 else np.array(array)
        assert np.array_equal(mine, expected), name


def test_a_width_that_does_not_divide_stays_unquantized(tmp_path):
    from gguf_factory import write

    from labkit.models import shape as shapes

    ref = models.resolve(write(tmp_path / "tiny.gguf"))
    width = models.inspect.read(ref.path).value("embedding_length")
    assert shapes
    found = mlx.inspect(mlx.convert(ref, 4, 128, tmp_path / "out").path)
    for tensor in found.tensors:
        assert bool(tensor.scales_bytes) == (tensor.kind != "norm" and tensor.shape[-1] % 128 == 0), tensor
    assert width % 128 or found.bits_per_weight < 5


def test_nothing_is_printed_to_stdout(source, tmp_path, capfd):
    mlx.convert(source, 4, 64, tmp_path / "out")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [({"bits": 7}, "no format of 7 bits"), ({"group_size": 48}, "groups of 48"), ({"dtype": "int8"}, "float16, bfloat16 or float32")],
)
def test_what_mlx_has_not_is_refused(source, tmp_path, options, words):
    with pytest.raises(BadInput, match=words):
        mlx.convert(source, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_model_that_mlx_lm_does_not_know(source, tmp_path):
    strange = tmp_path / "strange"
    strange.mkdir()
    for path in source.path.iterdir():
        (strange / path.name).write_bytes(path.read_bytes().replace(b'"model_type": "llama"', b'"model_type": "mxyzp"'))
    with pytest.raises(BadInput, match="cannot convert strange: Model type mxyzp") as caught:
        mlx.convert(ModelRef(name="strange", path=strange, format="hf"), out=tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_disk_that_fills_in_the_middle_leaves_nothing(source, tmp_path, full_disk):
    setup = "from labkit.core.records import ModelRef\nfrom labkit.quant import mlx"
    setup += f"\nref = ModelRef(name='x', path=Path({str(source.path)!r}), format='hf', sha256='0')"
    assert full_disk(setup, f"mlx.convert(ref, out=Path({str(tmp_path / 'out')!r}))")


def test_missing_parts_name_the_command(monkeypatch, source):
    monkeypatch.setenv("LABKIT_WITHOUT", "mlx")
    with pytest.raises(MissingPart, match="uv sync --inexact --extra mlx"):
        mlx.convert(source)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(MissingPart, match="not made for Windows"):
        mlx.convert(source)


def test_mlx_lm_does_not_lower_the_number_of_open_files():
    code = """
import resource
before = resource.getrlimit(resource.RLIMIT_NOFILE)
from labkit.quant import mlx
with mlx.library():
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("cut", [0, 7, 8, 100, -1])
def test_a_broken_folder_is_one_sentence(four_bit, tmp_path, cut):
    data = (four_bit.path / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="holds no model"):
        mlx.inspect(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(data[:cut])
    with pytest.raises(BadInput, match=r"safetensors|cut off|JSON"):
        mlx.inspect(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F16", "shape": [2], "data_offsets": [0, 40]},
        {"dtype": "F16", "shape": [4], "data_offsets": [0, 4]},
        {"dtype": "F16", "shape": [1 << 62, 8], "data_offsets": [0, 0]},
        {"dtype": "F16", "shape": "no", "data_offsets": [0, 8]},
        {"shape": [4]},
    ],
)
def test_absurd_headers(tmp_path, entry):
    header = json.dumps({"model.norm.weight": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="broken"):
        mlx.inspect(tmp_path)


def test_an_unknown_tensor_is_named(four_bit):
    with pytest.raises(BadInput, match=r"no tensor 'model\.nothing'"):
        mlx.tensor(four_bit.path, "model.nothing")
