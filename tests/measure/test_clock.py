"""The clock: warm-up, turns, spread. A stand-in session here, real ones in tests/engines."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit import measure
from labkit.core.records import Chunk, Request, Usage
from labkit.measure import bandwidth

pytestmark = pytest.mark.alone


class Scripted:
    """Plays given chunks, for tests of the clock alone."""

    engine_name, engine_version, threads, load_s = "scripted", "0", 1, None

    def __init__(self, chunks, usage):
        self.settings = {}
        self.chunks, self._usage, self.calls = chunks, usage, 0
        self.model = SimpleNamespace(name="m", path=Path("nowhere"), sha256=None)

    def stream(self, request):
        self.calls += 1
        for chunk in self.chunks:
            time.sleep(0.002)
            yield chunk

    def usage(self):
        return self._usage

    def set_threads(self, n):
        self.threads = n


REQUEST = Request(prompt="x")


def test_tokens_are_marked_and_held_back_text_is_not():
    session = Scripted([Chunk("a", 1), Chunk("", 1), Chunk("b", 1), Chunk("rest", 0)], Usage(output_tokens=3))
    found = measure.one(session, REQUEST)
    assert found.text == "abrest"
    assert len(found.token_marks_ns) == 3
    assert found.marks_ns.last == found.token_marks_ns[-1]
    assert list(found.token_marks_ns) == sorted(found.token_marks_ns)


def test_unknown_token_counts_give_no_rate():
    found = measure.one(Scripted([Chunk("a"), Chunk("b")], Usage()), REQUEST)
    assert (found.output_tokens, found.decode_tokens_per_s, found.token_marks_ns) == (None, None, None)
    assert found.ttft_s > 0


def test_an_empty_stream_has_no_marks():
    found = measure.one(Scripted([], Usage(output_tokens=0)), REQUEST)
    assert (found.ttft_s, found.tpot_s, found.text) == (None, None, "")


def test_warm_up_does_not_count():
    session = Scripted([Chunk("a", 1)], Usage(output_tokens=1))
    assert len(measure.run(session, REQUEST, repeats=3, warmup=2)) == 3
    assert session.calls == 5


def test_cases_run_in_turn_and_the_order_is_reversed():
    order = []
    measure.ab({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=4, warmup=0)
    assert "".join(order) == "abbaabba"


def test_thread_counts_are_measured_and_put_back():
    session = Scripted([Chunk("a", 1), Chunk("b", 1)], Usage(output_tokens=2))
    found = measure.sweep_threads(session, REQUEST, [1, 2], repeats=2)
    assert sorted(m.threads for m in found) == [1, 1, 2, 2]
    assert session.threads == 1


@pytest.mark.parametrize(("values", "median", "n"), [([3, 1, 2], 2, 3), ([5], 5, 1), ([1, None, 3], 2, 2)])
def test_spread(values, median, n):
    found = measure.spread(values)
    assert (found.median, found.n) == (median, n)
    assert found.low <= found.median <= found.high


def test_nothing_known_has_no_spread():
    assert measure.spread([None, None]) is None


def test_memory_bandwidth_is_of_this_world():
    found = bandwidth.read_bandwidth(1, megabytes=64, repeats=3)
    assert 1e8 < found.median < 5e12
    assert bandwidth.decode_ceiling_tokens_per_s(10e9, 1e9) == 10
