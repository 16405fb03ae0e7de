"""A cache of its own for a module's tests, and the course's small model."""

import pytest

from labkit import models


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def small(cache):
    return models.resolve("stdlib-10m")
