"""Plans and figures: arithmetic that needs no server."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from labkit.measure.load import Outcome, Plan, Slo, summarize, table
from labkit.measure.load_summary import quantiles

MS = 1_000_000


def outcome(number=0, status="ok", due=0, sent=0, chunks=(20, 30, 40), end=41, tokens=3, **more):
    """Marks in milliseconds."""
    return Outcome(
        number=number,
        status=status,
        scheduled_ns=due * MS,
        sent_ns=None if sent is None else sent * MS,
        chunk_ns=tuple(c * MS for c in chunks),
        ended_ns=end * MS,
        output_tokens=tokens,
        prompt_tokens=5,
        **more,
    )


def test_the_figures_of_one_request():
    one = outcome(due=10, sent=12)
    assert (one.lateness_s, one.ttft_s, one.tpot_s, one.e2e_s) == (0.002, 0.01, 0.01, 0.031)
    assert one.itl_s == (0.01, 0.01)
    assert (one.first_ns, one.last_ns) == (20 * MS, 40 * MS)
    # two tokens in a piece: the gap between pieces is not the time of a token
    assert outcome(chunks=(20, 40), tokens=5).tpot_s == 0.005
    assert outcome(tokens=None).tpot_s is None
    assert outcome(chunks=(), tokens=0).ttft_s is None


def test_a_summary_adds_up():
    plan = Plan(rate=10, seconds=1, slo=Slo(ttft_s=0.05))
    some = [
        outcome(0, end=41),
        outcome(1, due=1000, sent=1001, chunks=(1100, 1150, 1200), end=2000),
        outcome(2, "refused", due=100, sent=100, chunks=(), end=110, tokens=None),
        outcome(3, "cut", due=100, sent=100, chunks=(120,), end=300, tokens=None),
        outcome(4, "timeout", due=100, sent=100, chunks=(), end=900, tokens=None),
        outcome(5, "error", due=100, sent=None, chunks=(), end=100, tokens=None),
        outcome(6, "error", due=100, sent=100, chunks=(), end=120, tokens=None),
    ]
    found = summarize(some, plan)
    assert [getattr(found, name) for name in ("ok", "refused", "error", "cut", "timeout", "n", "not_sent")] == [2, 1, 2, 1, 1, 7, 1]
    assert found.duration_s == 2.0
    assert (found.requests_per_s, found.tokens_per_s, found.goodput_per_s) == (1.0, 3.0, 0.5)
    assert (found.output_tokens, found.prompt_tokens) == (6, 10)
    assert found.ttft_s.p50 == pytest.approx(0.06)
    assert (found.ttft_s.n, found.itl_s.n, found.lateness_s.n) == (2, 4, 6)
    assert found.latency_from == "scheduled"
    assert summarize(some, Plan(concurrency=1, seconds=1)).latency_from == "sent"


def test_nothing_known_is_null_and_not_zero():
    found = summarize([], Plan(rate=1, seconds=1))
    assert (found.n, found.ttft_s.p50, found.ttft_s.n, found.tokens_per_s, found.goodput_per_s) == (0, None, 0, None, None)


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        (Slo(), True),
        (Slo(ttft_s=0.02, tpot_s=0.01, e2e_s=0.041), True),
        (Slo(ttft_s=0.019), False),
        (Slo(tpot_s=0.009), False),
        (Slo(e2e_s=0.04), False),
    ],
)
def test_goodput_asks_for_every_target(slo, good):
    assert outcome().meets(slo) is good
    assert not outcome(status="cut").meets(slo)


def test_an_unknown_figure_meets_no_target_but_one_token_has_no_tpot_to_miss():
    assert not outcome(tokens=None).meets(Slo(tpot_s=9))
    assert outcome(chunks=(20,), tokens=1).meets(Slo(tpot_s=0.001))


def test_intervals_hold_the_true_quantile_as_often_as_they_say():
    """500 samples of a known distribution: 95 % of the intervals, give or take, enclose its median and its 95th percentile."""
    rng = np.random.default_rng(5)
    truth = {"p50": np.log(2), "p95": -np.log(0.05)}
    held = dict.fromkeys(truth, 0)
    for seed in range(500):
        found = quantiles(rng.exponential(1, 200), seed=seed)
        for name, value in truth.items():
            low, high = found.intervals[name]
            held[name] += (low or 0) <= value <= (np.inf if high is None else high)
    # three standard errors of a share of 0.95 over 500 are 0.03
    assert all(0.92 <= count / 500 <= 0.985 for count in held.values()), held


def test_a_p99_of_few_requests_has_no_upper_end():
    low, high = quantiles(range(50)).intervals["p99"]
    assert (low is not None, high) == (True, None)
    assert quantiles(range(5000)).intervals["p99"][1] is not None


def test_poisson_arrivals():
    plan = Plan(rate=100, seconds=100, seed=3)
    times = plan.schedule_s()
    gaps = np.diff(times)
    # the standard error of the mean of n exponential gaps is mean / sqrt(n)
    assert gaps.mean() == pytest.approx(0.01, abs=4 * 0.01 / np.sqrt(len(gaps)))
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert (times < 100).all()
    assert (times == Plan(rate=100, seconds=100, seed=3).schedule_s()).all()
    assert not np.array_equal(times[:9], Plan(rate=100, seconds=100, seed=4).schedule_s()[:9])


def test_constant_and_bounded_arrivals():
    assert Plan(rate=4, seconds=1, arrivals="constant").schedule_s().tolist() == [0, 0.25, 0.5, 0.75]
    assert len(Plan(rate=4, seconds=100, requests=7).schedule_s()) == 7
    assert Plan(times_s=(0, 1, 5), seconds=4).schedule_s().tolist() == [0, 1]
    with pytest.raises(ValueError, match="no schedule"):
        Plan(concurrency=1, seconds=1).schedule_s()


def some(plan, nonce, count=20):
    return list(itertools.islice(plan.texts(nonce), count))


def test_salted_prompts_never_come_twice():
    plan = Plan(rate=1, seconds=1, prompt_tokens=32)
    first, again, other = some(plan, "a"), some(plan, "a"), some(plan, "b")
    assert first == again
    assert len({text[:15] for text in first + other}) == 40
    assert {len(text.split()) for text in first} == {32}
    own = some(plan.model_copy(update={"prompts": ("Why?", "How?")}), "a", 4)
    assert [text.splitlines()[-1] for text in own] == ["Why?", "How?", "Why?", "How?"]
    assert len({text.splitlines()[0] for text in own}) == 4


def test_unsalted_prompts_are_the_same_each_time():
    plan = Plan(rate=1, seconds=1, salt=False)
    assert len(set(some(plan, ""))) == 1
    assert some(plan.model_copy(update={"prompts": ("Why?",)}), "", 2) == ["Why?", "Why?"]


def test_what_is_asked():
    chat = Plan(rate=1, seconds=1, system="Be brief.", ignore_eos=True, extra={"top_k": 1}).body("m", "hi")
    assert chat["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert (chat["ignore_eos"], chat["top_k"], chat["stream"], chat["stream_options"]) == (True, 1, True, {"include_usage": True})
    plain = Plan(rate=1, seconds=1, chat=False).body("m", "hi")
    assert plain["prompt"] == "hi"
    assert not {"messages", "ignore_eos"} & plain.keys()


@pytest.mark.parametrize(
    "given",
    [
        {"seconds": 1},
        {"rate": 1, "concurrency": 1, "seconds": 1},
        {"rate": 1},
        {"concurrency": 0, "seconds": 1},
        {"rate": 0, "seconds": 1},
        {"rate": 2000, "seconds": 3600},
        {"times_s": (1, 0.5)},
        {"times_s": ()},
        {"rate": 1, "seconds": 1, "prompt": "x"},
        {"rate": 1, "seconds": 1, "prompts": ()},
    ],
    ids=str,
)
def test_plans_that_make_no_sense(given):
    with pytest.raises(ValidationError):
        Plan(**given)


def test_rows_for_a_data_frame():
    rows = table([outcome(0, due=100), outcome(1, "refused", due=200, chunks=(), end=201, tokens=None)])
    assert [row["due_s"] for row in rows] == [0.0, 0.1]
    assert rows[1]["status"] == "refused"
    assert rows[1]["ttft_s"] is None
