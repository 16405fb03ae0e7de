"""What a benchmark sends to an engine that does not take every form of a prompt."""

import pytest

from labkit.core.errors import RunFailed
from labkit.core.records import Chunk, ModelRef, Usage
from labkit.measure import bench


class Picky:
    """A session that takes some forms of a prompt only: "tokens", "prompt", "messages". It notes what it answered."""

    model = ModelRef(name="fake", path="fake", format="endpoint")
    engine_name, engine_version, threads, load_s, settings = "fake", None, None, None, {}

    def __init__(self, *takes, refuses=()):
        self.takes, self.refuses, self.answered = takes, frozenset(refuses), []

    def load(self, model, **options):
        return self

    def stream(self, request):
        form = next(name for name in ("tokens", "prompt", "messages") if getattr(request, name) is not None)
        assert form not in self.refuses, "it was asked for what it says it refuses"
        if form not in self.takes:
            raise RunFailed(f"answered 400: no {form}")
        self.answered.append(form)
        yield Chunk("a", 1)

    def usage(self):
        return Usage(prompt_tokens=4, output_tokens=1, finish_reason="length")

    def close(self):
        pass


@pytest.mark.parametrize(
    ("takes", "refuses", "form"),
    [
        (("tokens", "prompt", "messages"), (), "tokens"),
        (("prompt", "messages"), (), "prompt"),
        (("messages",), (), "messages"),
        (("prompt", "messages"), ("tokens",), "prompt"),
        (("messages",), ("tokens", "prompt"), "messages"),
    ],
)
def test_an_engine_is_asked_in_a_form_that_it_takes(takes, refuses, form):
    session = Picky(*takes, refuses=refuses)
    found = bench.bench(session, session.model, prompt_tokens=4, output_tokens=2, repeats=3)
    assert len(found) == 3
    assert session.answered == [form] * 4, "one warm-up, then the repeats"


def test_an_engine_that_takes_nothing_says_why():
    session = Picky()
    with pytest.raises(RunFailed, match="answered 400"):
        bench.bench(session, session.model, repeats=1)
