"""GGUF -> ONNX: what is in the folders, held against arithmetic and the real tools' records; every trap meets its sentence."""

import json
import subprocess
import sys

import numpy as np
import pytest

from labkit import models
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import ModelRef
from labkit.quant import folders, hf, onnx, onnx_graph

REF = "stdlib-10m"


@pytest.fixture(scope="module")
def made():
    """Folders by recipe, from the cache where they are there."""
    return {name: onnx.convert(models.resolve(REF), name, progress=False) for name in ("int4", "int4-shared", "olive-rtn", "olive-int8")}


@pytest.fixture(scope="module")
def graphs(made):
    return {name: onnx_graph.inspect(ref.path) for name, ref in made.items()}


def test_a_folder_is_a_model_of_format_onnx(made):
    for name, ref in made.items():
        assert (ref.format, models.resolve(ref.path).format) == ("onnx-genai", "onnx-genai")
        assert ref.name == f"{REF}-onnx-{name}"
        note = folders.note_of(ref.path)
        assert note["recipe"] == name
        assert note["source_sha256"] == models.sha256_of(models.resolve(REF).path)
        assert note["parameters"] == models.inspect.read(models.resolve(REF).path).parameters
        assert {"onnxruntime-genai", "olive-ai", "onnx"} <= set(note["versions"])


def test_a_second_call_runs_nothing(made, monkeypatch):
    monkeypatch.setattr(onnx.subprocess, "Popen", None)
    assert onnx.convert(models.resolve(REF), "olive-rtn") == made["olive-rtn"]


def test_no_folder_of_this_machine_is_named_in_the_records(made):
    for ref in made.values():
        for path in ref.path.iterdir():
            if path.suffix in (".json", ".txt") and path.name != "tokenizer.json":
                text = path.read_text(encoding="utf-8")
                assert str(ref.path.parent) not in text
                assert str(hf.to_hf(models.resolve(REF)).path) not in text


def test_bits_per_weight_by_arithmetic(graphs):
    """Codes of 4 bits in blocks of 32 with a 32-bit scale are 5 bits; in blocks of 128, 4.25; each matrix as often as it is stored."""
    header = models.inspect.read(models.resolve(REF).path)
    tables = {t.name: t.elements for t in header.tensors}
    matrices = sum(size for name, size in tables.items() if not name.endswith("norm.weight"))
    embedding, norms = tables["token_embd.weight"], header.parameters - matrices
    told = {name: g.bytes_by_role for name, g in graphs.items()}
    assert told["int4-shared"]["codes"] == matrices // 2
    assert told["int4-shared"]["scales"] == matrices // 32 * 4
    assert told["int4-shared"]["unquantized"] == norms * 4
    assert told["int4"] == told["int4-shared"] | {"unquantized": (norms + embedding) * 4}
    assert told["olive-rtn"]["codes"] == (matrices + embedding) // 2
    assert told["olive-rtn"]["scales"] == (matrices + embedding) // 128 * 4
    assert told["olive-int8"]["codes"] == matrices + embedding
    for name, graph in graphs.items():
        assert graph.parameters == header.parameters
        assert sum(graph.bytes_by_role.values()) == graph.tensor_bytes
        assert graph.bits_per_weight == pytest.approx(8 * graph.tensor_bytes / header.parameters)
        assert 0 < graph.file_bytes - graph.tensor_bytes < 200_000, name
    assert graphs["int4"].stored_weights == header.parameters + embedding
    assert graphs["int4-shared"].stored_weights == header.parameters
    assert 5 < graphs["int4-shared"].bits_per_weight < 5.3
    assert graphs["int4"].bits_per_weight > 12
    assert {name: set(g.code_bits) for name, g in graphs.items()} == {"int4": {4}, "int4-shared": {4}, "olive-rtn": {4}, "olive-int8": {8}}


def test_an_int4_folders_size_by_the_catalogue(graphs):
    """The tied table is stored twice; a model with an output matrix of its own stores nothing twice."""
    tied = models.catalog.get(REF)
    assert onnx_graph.int4_bytes(tied) == pytest.approx(graphs["int4"].tensor_bytes, rel=0.03)
    table, block = tied.shape.vocab * tied.shape.hidden, 5 / 8
    own = tied.model_copy(update={"parameters": tied.parameters + table, "shape": tied.shape.model_copy(update={"tied_embeddings": False})})
    assert onnx_graph.int4_bytes(own) == onnx_graph.int4_bytes(tied) == pytest.approx(tied.parameters * block + 4 * table)


@pytest.mark.parametrize(("name", "peak"), [(REF, 1.6e9), ("smollm2-135m", 3.3e9)])
def test_the_memory_of_a_conversion_is_that_of_the_measured_peaks(name, peak):
    assert onnx.conversion_bytes(models.catalog.get(name).parameters) == pytest.approx(peak, rel=0.02)


def test_the_nodes_are_those_of_the_operation(graphs):
    assert graphs["int4"].nodes["MatMulNBits"] == graphs["olive-int8"].nodes["MatMulInteger"] == 4 * 5 + 1
    assert graphs["olive-int8"].nodes["DynamicQuantizeLinear"] > 0
    assert graphs["olive-rtn"].nodes["GatherBlockQuantized"] == 1
    assert "MatMul" not in graphs["int4"].nodes


def test_every_initializer_of_the_graph_is_counted(made, graphs):
    import onnx as library
    from onnx import numpy_helper

    for name, ref in made.items():
        whole = library.load(str(ref.path / "model.onnx"))
        sizes = {one.name: numpy_helper.to_array(one).nbytes for one in whole.graph.initializer}
        assert {one.name: one.bytes for one in graphs[name].initializers} == sizes


def test_the_codes_stand_for_the_weights_of_the_file(made):
    """The first block of the embedding, decoded by hand: a symmetric code of 4 bits is a number from -8 to 7 times its scale."""
    import onnx as library
    from gguf import GGUFReader
    from onnx import numpy_helper

    graph = library.load(str(made["int4-shared"].path / "model.onnx")).graph
    arrays = {one.name: numpy_helper.to_array(one) for one in graph.initializer if one.name.startswith("lm_head")}
    (codes,), (scales,) = ([a for n, a in arrays.items() if word in n] for word in ("weight_Q4", "scale"))
    first = codes[0, 0]
    numbers = np.stack([first & 15, first >> 4], axis=-1).reshape(-1).astype(np.float32) - 8
    (original,) = [t for t in GGUFReader(models.resolve(REF).path).tensors if t.name == "token_embd.weight"]
    wanted, step = np.array(original.data)[0, :32].astype(np.float32), abs(float(scales.reshape(-1)[0]))
    assert np.abs(numbers * scales.reshape(-1)[0] - wanted).max() < 1.01 * step


def test_the_renamed_output_is_named_in_the_config(made, graphs):
    for name, ref in made.items():
        config = json.loads((ref.path / "genai_config.json").read_text(encoding="utf-8"))
        assert config["model"]["decoder"]["outputs"]["logits"] in graphs[name].outputs
    assert "logits" not in graphs["olive-rtn"].outputs, "Olive renames no longer: the patch may go"


def test_the_footprint_as_rows(made):
    rows = onnx.history(made["olive-rtn"].path)
    assert [r["from_pass"] for r in rows] == [None, "modelbuilder", "onnxblockwisertnquantization"]
    assert rows[2]["settings"]["block_size"] == 128
    assert rows[2]["metrics"]["size-bytes"] == (made["olive-rtn"].path / "model.onnx").stat().st_size
    assert all(r["seconds"] > 0 for r in rows[1:])
    text = (made["olive-rtn"].path / "run_history.txt").read_text(encoding="utf-8")
    assert all(r["from_pass"] in text for r in rows[1:])
    with pytest.raises(BadInput, match="no footprint"):
        onnx.history(made["int4"].path)


def test_exit_code_zero_without_a_model_is_a_failure(tmp_path, monkeypatch):
    """Olive's ModelBuilder has no int8: the real run ends with code 0, and with no model."""
    how = onnx.Recipe(passes=({"type": "ModelBuilder", "precision": "int8"},))
    work, folder = tmp_path / "work", tmp_path / "model"
    work.mkdir()
    ran = onnx.run(hf.to_hf(models.resolve(REF)), how, folder, work)
    assert (ran.code, ran.made) == (0, False)
    assert "int8" in onnx.error_line(ran.log)
    monkeypatch.setitem(onnx.RECIPES, "olive-builder-int8", how)
    monkeypatch.setattr(onnx, "run", lambda *_: ran)
    with pytest.raises(RunFailed, match=r"made no model of stdlib-10m \(exit code 0\): .*int8") as caught:
        onnx.convert(models.resolve(REF), "olive-builder-int8", out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir() if one.name != "model") == [".out.lock", "work"]


def test_what_the_model_builder_has_not_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no recipe 'int8'.*olive-int8"):
        onnx.convert(models.resolve(REF), "int8")
    with pytest.raises(BadInput, match="did you mean int4"):
        onnx.recipe("int44")
    told = subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", "--help"], capture_output=True, text=True, check=True)
    choices = told.stdout.split("--precision")[1].split("}")[0]
    assert "int4" in choices
    assert "int8" not in choices, "the model builder has int8 now: say so in the lab"


def test_a_killed_builder_is_one_sentence(tmp_path, monkeypatch):
    code = "import os; os.kill(os.getpid(), 9)"
    monkeypatch.setattr(onnx, "_child", lambda *_: (subprocess.run([sys.executable, "-c", code]).returncode, "half a log\n"))
    with pytest.raises(RunFailed, match=r"model builder made no model of stdlib-10m \(ended by signal 9.*half a log"):
        onnx.convert(models.resolve(REF), "int4", out=tmp_path / "out")


def test_an_interrupt_ends_the_child_and_leaves_nothing(tmp_path, monkeypatch):
    children = []
    real = subprocess.Popen

    class Interrupted(real):
        def __init__(self, *args, **options):
            super().__init__([sys.executable, "-c", "import time; time.sleep(600)"], **options)
            children.append(self)

        def wait(self, timeout=None):
            if timeout and self.poll() is None:
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(onnx.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        onnx.convert(models.resolve(REF), "int4", out=tmp_path / "out", progress=False)
    assert children[0].poll() is not None
    assert [one.name for one in tmp_path.iterdir()] == [".out.lock"]


def test_the_childs_environment_is_offline_and_says_ci(tmp_path):
    found = onnx.environment(tmp_path)
    assert (found["CI"], found["HF_HUB_OFFLINE"], found["OMP_NUM_THREADS"]) == ("true", "1", "1")
    assert found["HF_HUB_CACHE"].startswith(str(tmp_path))
    code = "import inspect, olive.telemetry.telemetry as t; print(inspect.getsource(t))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert '"CI"' in told.stdout, "Olive no longer looks at CI: find out what stops its telemetry now"


def test_nothing_is_printed_to_stdout(made, tmp_path, capfd):
    onnx.convert(models.resolve(REF), "int4", out=tmp_path / "out")
    assert capfd.readouterr().out == ""
    assert onnx_graph.inspect(tmp_path / "out").tensor_bytes == onnx_graph.inspect(made["int4"].path).tensor_bytes


def test_missing_parts_name_the_command(monkeypatch):
    monkeypatch.setenv("LABKIT_WITHOUT", "onnx")
    with pytest.raises(MissingPart, match="uv sync --inexact --extra onnx"):
        onnx.convert(models.resolve(REF))
    with pytest.raises(MissingPart, match="uv sync --inexact --extra onnx"):
        onnx_graph.inspect(models.resolve(REF).path.parent)


def test_a_broken_graph_is_one_sentence(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        onnx_graph.inspect(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"\xff\xff no graph")
    with pytest.raises(BadInput, match="cannot be read"):
        onnx_graph.inspect(tmp_path)


def test_the_tables_of_the_real_packages():
    rows = onnx_graph.providers()
    assert {"CPUExecutionProvider": True, "QNNExecutionProvider": False}.items() <= {r["provider"]: r["here"] for r in rows}.items()
    passes = {p["name"]: p for p in onnx_graph.olive_passes()}
    assert "int8" in passes["OnnxDynamicQuantization"]["precisions"]
    assert {p["type"] for how in onnx.RECIPES.values() for p in how.passes} <= set(passes)


def test_what_is_no_gguf_and_no_folder(tmp_path):
    with pytest.raises(BadInput, match="only a GGUF file"):
        onnx.convert(ModelRef(name="x", path=tmp_path, format="mlx"))
