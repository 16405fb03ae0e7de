"""The exercises of lab 19: the rate of a counter, the states of an alert, an error budget, the slow lines of a log."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable
from typing import Any

from labkit.learn import watch_sums as sums
from labkit.learn.check import Exercise, Part, Wrong, close, likely_mistake, same_order

Test = Callable[[Any, Any], str | None]

# -- rate(samples)


def _rate(restarted: bool) -> Test:
    def test(answer: Any, rng: Any) -> str | None:
        count = int(rng.integers(5, 9))
        times = [round(float(t), 1) for t in (100 + rng.uniform(1.2, 3, count).cumsum())]
        steps = [int(n) for n in rng.integers(7, 60, count)]
        value, samples = int(rng.integers(500, 900)), list[sums.Sample]()
        broken = int(rng.integers(2, count - 1)) if restarted else -1
        for at, (now, step) in enumerate(zip(times, steps, strict=True)):
            value = step if at == broken else value + step
            samples.append((now, value))
        right, seconds = sums.rate(samples), samples[-1][0] - samples[0][0]
        first, last = samples[0][1], samples[-1][1]
        zero = sum(max(0, b[1] - a[1]) for a, b in itertools.pairwise(samples))
        absolute = sum(abs(b[1] - a[1]) for a, b in itertools.pairwise(samples))
        likely = [
            ((last - first) / seconds, "A counter never falls by itself: where it does, the server was restarted and began at 0 again."),
            (zero / seconds, "After a restart the counter began at 0: its first value after it has grown since then, too."),
            (absolute / seconds, "A fall is no growth: the server was restarted, and what counts is what the counter has reached since."),
            (last - first, "That is the growth. A rate is growth per second."),
            (zero, "That is the growth. A rate is growth per second."),
            (right * seconds, "That is the growth. A rate is growth per second."),
            (last / seconds, "The counter did not begin at 0 with the first sample: only its growth since then counts."),
            (right * seconds / count, "Divide by the seconds from the first sample to the last, not by the number of samples."),
            ((last - first) / count, "Divide by the seconds from the first sample to the last, not by the number of samples."),
            (last / samples[-1][0], "The counter did not begin at 0 with the first sample: only its growth since then counts."),
        ]
        given = answer(list(samples))
        otherwise = "Go from sample to sample: how much has the counter grown? Then divide by all the seconds."
        return likely_mistake(given, right, otherwise, values=[pair for pair in likely if not close(pair[0], right)])

    return test


rate = Exercise(
    "rate",
    "The rate of a counter",
    (Part(1, "a counter that grows", _rate(False)), Part(2, "a server that was restarted", _rate(True))),
    (
        Wrong("(t0, v0), (t1, v1) = samples[0], samples[-1]\nreturn (v1 - v0) / (t1 - t0)", "restarted and began at 0", "knows no restart"),
        Wrong("return samples[-1][1] - samples[0][1]", "per second", "gives the growth"),
        Wrong("return samples[-1][1] / (samples[-1][0] - samples[0][0])", "growth since then", "divides the counter itself"),
        Wrong("return (samples[-1][1] - samples[0][1]) / len(samples)", "number of samples", "divides by the samples"),
        Wrong(
            "grown = sum(max(0, b[1] - a[1]) for a, b in zip(samples, samples[1:]))\nreturn grown / (samples[-1][0] - samples[0][0])",
            "since then, too",
            "loses what came after the restart",
        ),
    ),
)


# -- states(values, limit, hold_s)


def _states(kind: str) -> Test:
    def test(answer: Any, rng: Any) -> str | None:
        limit, hold = int(rng.integers(3, 9)), int(rng.integers(3, 6))
        high, low = (lambda: limit + int(rng.integers(1, 5))), (lambda: limit - int(rng.integers(1, 3)))
        if kind == "short":
            shape = [low()] * 2 + [high() for _ in range(hold)] + [low(), limit, low()]
        elif kind == "long":
            shape = [low()] + [high() for _ in range(hold + 3)] + [low()] * 2
        else:
            shape = [low()] + [high() for _ in range(hold - 1)] + [limit] + [high() for _ in range(hold + 2)] + [low()]
        values = [(float(at), float(value)) for at, value in enumerate(shape)]
        given, right = answer(list(values), limit, hold), sums.states(values, limit, hold)
        given = list(given) if isinstance(given, (list, tuple)) else given
        if given == right:
            return None
        if not isinstance(given, list) or len(given) != len(right):
            return f"One state for each look: {len(right)} of them, as a list."
        if not set(given) <= {"inactive", "pending", "firing"}:
            return "The states are the words inactive, pending and firing."
        if given == ["firing" if value > limit else "inactive" for _, value in values]:
            return "One look above the limit wakes nobody: it must stay above it for hold_s seconds. Until then it is pending."
        if given == sums.states(values, limit - 0.5, hold):
            return "At the limit is not above it."
        ever, since = list[str](), None
        for now, value in values:  # the clock is not set back by a look that is not above the limit
            since = now if since is None and value > limit else since
            ever.append(
                "inactive" if value <= limit or since is None else "firing" if now - since >= hold else "pending"
            )  # fmt: skip
        if given == ever:
            return "It was not above the limit in between: the time begins anew with the next look that is."
        if given == sums.states(values, limit, hold + 0.5):
            return "After hold_s seconds it fires at once, not one look later."
        if "inactive" not in given[-2:] and right[-1] == "inactive":
            return "An alert ends by itself: when the value is not above the limit any more, it is inactive."
        return "Keep the time of the first look above the limit, and forget it at a look that is not above."

    return test


states = Exercise(
    "states",
    "When an alert fires",
    (
        Part(1, "a moment", _states("short"), "A list of states is wanted, one for each look."),
        Part(1, "long enough", _states("long"), "A list of states is wanted, one for each look."),
        Part(1, "a break in between", _states("broken"), "A list of states is wanted, one for each look."),
    ),
    (
        Wrong("return ['firing' if value > limit else 'inactive' for _, value in values]", "wakes nobody", "knows no waiting"),
        Wrong(
            "since, found = None, []\n"
            "for now, value in values:\n"
            "    if value > limit and since is None:\n"
            "        since = now\n"
            "    if value <= limit:\n"
            "        found.append('inactive')\n"
            "    else:\n"
            "        found.append('firing' if now - since >= hold_s else 'pending')\n"
            "return found",
            "begins anew",
            "does not set the clock back",
        ),
        Wrong(
            "since, found = None, []\n"
            "for now, value in values:\n"
            "    since = None if value <= limit else (now if since is None else since)\n"
            "    found.append('inactive' if since is None else 'firing' if now - since > hold_s else 'pending')\n"
            "return found",
            "not one look later",
            "fires a look too late",
        ),
        Wrong(
            "since, found = None, []\n"
            "for now, value in values:\n"
            "    since = None if value < limit else (now if since is None else since)\n"
            "    found.append('inactive' if since is None else 'firing' if now - since >= hold_s else 'pending')\n"
            "return found",
            "At the limit",
            "takes the limit for too much",
        ),
    ),
)


# -- budget_used(good, total, objective)


def _budget(answer: Any, rng: Any) -> str | None:
    objective = float(rng.choice([0.9, 0.95, 0.99, 0.995]))
    total = int(rng.integers(20, 90)) * 1000
    bad = int(total * (1 - objective) * float(rng.uniform(0.2, 1.8)))
    good = total - bad
    right = sums.budget_used(good, total, objective)
    likely = [
        (bad / total, "That is the share of requests that failed. The budget is the share that may fail: 1 - objective."),
        (1 - right, "That is what is left of the budget. The question is what is used."),
        ((good / total) / objective, "The budget is about the requests that fail: how many did, and how many may?"),
        (bad / total / objective, "The objective is the share that must be good. The budget is the rest."),
        (bad, "That is how many failed. How many may fail, out of all?"),
        (100 * right, "As a share, not in per cent: 1.0 is the whole budget."),
    ]
    given = answer(good, total, objective)
    return likely_mistake(
        given, right, "How many may fail, and how many did?", values=[pair for pair in likely if not close(pair[0], right)]
    )


budget_used = Exercise(
    "budget_used",
    "An error budget",
    (Part(2, "share that is used", _budget),),
    (
        Wrong("return (total - good) / total", "may fail", "gives the error rate"),
        Wrong("return 1 - (total - good) / total / (1 - objective)", "left of the budget", "gives what is left"),
        Wrong("return (total - good) / total / objective", "the rest", "divides by the objective"),
        Wrong("return 100 * (total - good) / total / (1 - objective)", "per cent", "gives per cent"),
    ),
)


# -- slow(lines, limit_ms)


def _slow(answer: Any, rng: Any) -> str | None:
    limit = int(rng.integers(4, 12)) * 100
    count = int(rng.integers(9, 14))
    # as text, 900 stands behind 1200: who sorts words finds out here
    times = [int(limit * f) for f in rng.uniform(0.1, 0.9, count - 5)] + [limit]
    times += [limit + 1 + int(n) for n in rng.permutation([37, 9 * limit, 2 * limit, 11 * limit])]
    order = rng.permutation(len(times))
    rows = [
        {"request_id": str(uuid.UUID(bytes=rng.bytes(16))), "server": f"r{int(rng.integers(0, 2))}", "status": 200, "total_ms": times[at]}
        for at in order
    ]
    lines = [json.dumps(row) for row in rows]
    given, right = answer(list(lines), limit), sums.slow(lines, limit)
    if same_order(given, right):
        return None
    found = [] if not isinstance(given, (list, tuple)) else list(given)
    if found and isinstance(found[0], dict):
        return "The ids are wanted, not the whole rows: row['request_id']."
    if same_order(found, right[::-1]):
        return "The slowest comes first."
    if sorted(map(str, found)) == sorted(right):
        return "These are the right requests. Sort them by their time, the slowest first."
    at_limit = {row["request_id"] for row in rows if row["total_ms"] == limit}
    if at_limit & set(map(str, found)) and set(map(str, found)) - at_limit == set(right):
        return "A request of exactly the limit is not slower than it."
    if len(found) == len(rows):
        return "These are all requests. Only those above the limit are wanted."
    return "Each line is JSON: json.loads makes a dict of it, with total_ms and request_id."


slow = Exercise(
    "slow",
    "The slow lines of a log",
    (Part(2, "ids, the slowest first", _slow, "A list of ids is wanted."),),
    (
        Wrong(
            "import json\nrows = [json.loads(line) for line in lines]\n"
            "return [r['request_id'] for r in sorted(rows, key=lambda r: r['total_ms']) if r['total_ms'] > limit_ms]",
            "slowest comes first",
            "the quickest first",
        ),
        Wrong(
            "import json\nrows = [json.loads(line) for line in lines]\nreturn [r['request_id'] for r in rows if r['total_ms'] > limit_ms]",
            "Sort them",
            "in the order of the log",
        ),
        Wrong(
            "import json\nrows = sorted(map(json.loads, lines), key=lambda r: -r['total_ms'])\n"
            "return [r['request_id'] for r in rows if r['total_ms'] >= limit_ms]",
            "exactly the limit",
            "takes the limit in",
        ),
        Wrong(
            "import json\nrows = sorted(map(json.loads, lines), key=lambda r: -r['total_ms'])\n"
            "return [r for r in rows if r['total_ms'] > limit_ms]",
            "ids are wanted",
            "gives rows",
        ),
    ),
)
