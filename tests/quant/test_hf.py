"""GGUF -> Hugging Face folder: the same tokens and scores as llama.cpp, nothing fetched, whole or not at all."""

import json
import socket

import numpy as np
import pytest
from gguf_factory import write

from labkit import engines, models
from labkit.core import paths
from labkit.core.errors import BadInput, MissingPart
from labkit.core.records import ModelRef
from labkit.quant import folders, hf

NAMES = ["smollm2-135m", "stdlib-10m"]
PLAIN = "The light of the Sun consists of rays differently refrangible."
CODE = "def area(self, width):\n    return self.height * width\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return models.resolve(write(tmp_path_factory.mktemp("gguf") / "tiny.gguf"))


@pytest.fixture(scope="module")
def converted(tiny, tmp_path_factory):
    """name -> (GGUF, folder); the real models through the user's cache, the tiny one into a folder of its own."""
    out = tmp_path_factory.mktemp("hf") / "tiny"
    made = {name: (models.resolve(name), hf.to_hf(models.resolve(name))) for name in NAMES}
    return made | {"tiny": (tiny, hf.to_hf(tiny, out))}


def samples():
    texts = [paths.data("evaluation", name).read_text(encoding="utf-8") for name in ("opticks.txt", "python_stdlib.txt")]
    pieces = [text[at : at + 700] for text in texts for at in range(0, len(text) - 700, len(text) // 6)]
    return [*pieces, "naïve café — 東京 🙂", "  two  spaces\t\ttabs\r\n\n\nx", "<|im_start|>user\nHi<|im_end|>"]


@pytest.mark.parametrize("name", NAMES)
def test_the_tokens_are_llama_cpps(converted, name):
    from transformers import AutoTokenizer

    gguf, folder = converted[name]
    tokenizer = AutoTokenizer.from_pretrained(folder.path)
    with engines.open("llamacpp").load(gguf, context=256, threads=1) as session:
        for text in samples():
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert ids == session.tokenize(text, special=True)
            assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("name", "text", "tolerance"), [("smollm2-135m", PLAIN, 0.02), ("stdlib-10m", CODE, 0.001), ("tiny", PLAIN, 0.001)]
)
def test_the_scores_are_llama_cpps(converted, name, text, tolerance):
    """KL divergence in nats, mean over positions. llama.cpp rounds what flows between layers, more coarsely for a 4-bit file."""
    import torch
    from transformers import AutoModelForCausalLM

    gguf, folder = converted[name]
    with engines.open("llamacpp").load(gguf, context=256, threads=1) as session:
        ids = session.tokenize(text)
        theirs = torch.tensor(np.array(list(session.logits(ids)))).log_softmax(-1)
    model = AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float32)
    with torch.no_grad():
        mine = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    divergence = (theirs.exp() * (theirs - mine)).sum(-1)
    assert len(ids) > 8
    assert float(divergence.mean()) < tolerance
    shifted = (theirs[1:].exp() * (theirs[1:] - mine[:-1])).sum(-1)
    assert float(shifted.mean()) > 10 * float(divergence.mean()), "the measure would see a wrong model"


def test_what_is_written(converted):
    gguf, folder = converted["tiny"]
    names = {path.name for path in folder.path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "labkit.json"} <= names
    note = folders.note_of(folder.path)
    assert note["source_sha256"] == models.sha256_of(gguf.path)
    assert set(note["versions"]) == {"transformers", "torch", "gguf"}
    assert (folder.format, models.resolve(folder.path).format) == ("hf", "hf")
    assert str(gguf.path.parent) not in (folder.path / "config.json").read_text()
    assert json.loads((folder.path / "config.json").read_text())["dtype"] == "float32"


def test_a_second_time_it_is_there_and_needs_no_network(converted, tiny, monkeypatch, tmp_path):
    gguf, folder = converted["tiny"]
    before = (folder.path / "model.safetensors").stat().st_mtime_ns
    assert hf.to_hf(gguf, folder.path) == folder
    assert (folder.path / "model.safetensors").stat().st_mtime_ns == before
    tried = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: tried.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: tried.append(address))
    again = hf.to_hf(tiny, tmp_path / "again")
    assert tried == []
    assert again.sha256 == folder.sha256, "the same file gives the same folder"


def test_a_disk_that_fills_in_the_middle_leaves_nothing(tiny, tmp_path, full_disk):
    setup = "from labkit import models\nfrom labkit.quant import hf"
    assert full_disk(setup, f"hf.to_hf(models.resolve({str(tiny.path)!r}), Path({str(tmp_path / 'out')!r}))")


def test_an_unknown_architecture_is_one_sentence(tiny, tmp_path):
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(tiny.path.read_bytes().replace(b"llama", b"mxyzp"))
    with pytest.raises(BadInput, match=r"cannot read strange \(architecture mxyzp\)") as caught:
        hf.to_hf(models.resolve(strange), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_vocabulary_is_refused(tmp_path):
    from labkit.models import catalog, shape

    with pytest.raises(BadInput, match="no vocabulary"):
        hf.to_hf(shape.write(catalog.get("gemma3-270m"), "Q4_0", tmp_path), tmp_path / "out")


def test_other_formats_are_refused_and_a_folder_passes(tmp_path):
    folder = ModelRef(name="x", path=tmp_path, format="hf")
    assert hf.to_hf(folder) is folder
    with pytest.raises(BadInput, match="only a GGUF file"):
        hf.to_hf(folder.model_copy(update={"format": "mlx"}))


def test_without_transformers_the_command_is_named(monkeypatch, tiny, tmp_path):
    monkeypatch.setenv("LABKIT_WITHOUT", "hf")
    with pytest.raises(MissingPart, match="uv sync --inexact --extra hf"):
        hf.to_hf(tiny, tmp_path / "out")


@pytest.mark.parametrize("name", NAMES)
def test_the_evaluation_texts_get_llama_cpps_tokens(name):
    """Numbers and long rows of blanks too: SmolLM2 keeps each digit apart, which transformers does not read out of the file."""
    from transformers import AutoTokenizer

    ref = models.resolve(name)
    tokenizer = AutoTokenizer.from_pretrained(hf.to_hf(ref).path)
    with engines.open("llamacpp").load(ref, context=64, threads=1) as session:
        for path in sorted(paths.data("evaluation").glob("*.txt")):
            text = path.read_text(encoding="utf-8")
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == session.tokenize(text, special=True)
