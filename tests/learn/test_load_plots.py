"""What the plots of load runs show."""

import numpy as np
import pytest

from labkit.learn import load_plots, plots
from labkit.measure.load import STATUSES, Outcome, Plan, summarize


def outcome(number, status="ok", wait_s=0.1):
    due, chunks = number * 10**8, ()
    if status == "ok":
        chunks = (due + int(wait_s * 1e9), due + int(wait_s * 2e9))
    end = chunks[-1] if chunks else due + 10**7
    return Outcome(number=number, status=status, scheduled_ns=due, sent_ns=due, chunk_ns=chunks, ended_ns=end, output_tokens=2)


@pytest.fixture
def ax():
    _, axes = plots.figure("a caption")
    return axes


def test_waits_are_a_share_with_the_percentiles_that_n_bears(ax):
    many, few = [outcome(n, wait_s=(n + 1) / 100) for n in range(100)], [outcome(n) for n in range(19)]
    load_plots.waits(ax, {"many": many, "few": few, "none": [outcome(0, "cut")]}, target_s=0.5)
    steps = [line for line in ax.lines if len(line.get_xdata()) > 2]
    assert [line.get_label() for line in steps] == ["many (n=100)", "few (n=19)"]
    assert steps[0].get_ydata()[-1] == 1
    marked = [line for line in ax.lines if line.get_marker() == "o"]
    assert [float(line.get_ydata()[0]) for line in marked] == [0.5, 0.95, 0.99, 0.5]
    assert marked[0].get_xdata()[0] == pytest.approx(np.quantile([(n + 1) / 100 for n in range(100)], 0.5))
    assert ax.get_xlabel().endswith(", s")


def test_fates_shows_every_request_once_with_a_shape_of_its_own(ax):
    some = [outcome(n, status) for n, status in enumerate(STATUSES)] + [outcome(9, "ok")]
    load_plots.fates(ax, some)
    assert sum(len(line.get_xdata()) for line in ax.lines) == len(some)
    assert len({line.get_marker() for line in ax.lines}) == len({line.get_color() for line in ax.lines}) == len(STATUSES)
    assert ax.lines[0].get_label() == "ok (2)"


def test_growth_draws_closed_loops_in_order(ax):
    runs = [summarize([outcome(k) for k in range(4 * n)], Plan(concurrency=n, seconds=1)) for n in (4, 1, 2)]
    load_plots.growth(ax, [*runs, summarize([], Plan(rate=1, seconds=1))])
    assert list(ax.lines[0].get_xdata()) == [1, 2, 4]
    assert list(ax.lines[1].get_ydata()) == pytest.approx([n * ax.lines[0].get_ydata()[0] for n in (1, 2, 4)])


def test_nothing_is_drawn_from_nothing(ax):
    load_plots.waits(ax, {})
    load_plots.fates(ax, [])
    load_plots.growth(ax, [])
    assert not [line for line in ax.lines if len(line.get_xdata())]
