"""The catalogue: every row is sourced, dated and agrees with its own shape."""

import datetime
import importlib.metadata

import pytest

from labkit import models
from labkit.core import paths
from labkit.core.errors import BadInput, MissingPart
from labkit.models import catalog, inspect, shape

ROWS = list(catalog.load().values())


@pytest.mark.parametrize("model", ROWS, ids=lambda m: m.name)
def test_a_row_has_readable_sources_and_a_date(model):
    for source in (model.source, model.licence_source):
        # the course's own model is described by files of this project
        assert source.startswith("https://") or (model.bundled and paths.home().joinpath(source).is_file())
    assert datetime.date(2026, 1, 1) <= model.checked <= datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    assert all(q.source.startswith("https://") for q in model.quality)


@pytest.mark.parametrize("model", [m for m in ROWS if m.architecture in shape.ARCHITECTURES], ids=lambda m: m.name)
def test_parameters_are_those_of_the_shape(model):
    assert shape.parameters(model) == model.parameters
    if model.active_parameters:
        assert shape.active_parameters(model) == model.active_parameters
    assert bool(model.active_parameters) == bool(model.shape.experts)


def test_the_families_of_the_syllabus_are_there():
    families = " ".join(m.name for m in ROWS)
    for name in (
        "smollm2",
        "qwen2.5",
        "qwen3",
        "gemma2",
        "gemma3",
        "phi-3.5",
        "phi-4-mini",
        "llama3",
        "mistral",
        "distill",
        "bitnet",
        "embed",
    ):
        assert name in families, name


def test_the_pinned_package_is_the_installed_one():
    package = catalog.get("smollm2-135m").package
    assert importlib.metadata.version(package.distribution) == package.version
    ref = models.resolve("smollm2-135m")
    assert ref.path.stat().st_size == package.bytes
    assert models.sha256_of(ref.path) == package.sha256


def test_unknown_and_absent_models():
    with pytest.raises(BadInput, match="did you mean smollm2-135m"):
        models.resolve("smollm2-135mm")
    with pytest.raises(MissingPart, match="not on this machine"):
        models.resolve("phi-4-mini")
    with pytest.raises(BadInput, match="no file"):
        models.resolve("nowhere/model.gguf")


def test_size_classes():
    assert {m.size_class for m in ROWS if m.kind == "chat"} == {"micro", "small", "medium"}


@pytest.mark.parametrize("model", [m for m in ROWS if m.bundled], ids=lambda m: m.name)
def test_bundled_weights_are_the_ones_of_the_catalogue(model):
    file = paths.data(model.bundled.file)
    assert (file.stat().st_size, models.sha256_of(file)) == (model.bundled.bytes, model.bundled.sha256)
    assert inspect.read(file).parameters == model.parameters
    assert file.stat().st_size <= 24_000_000
