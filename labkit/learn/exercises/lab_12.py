"""The exercises of lab 12: an order that is fair, a ratio from pairs, throughput of parallel requests, and a break-even."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong, close, likely_mistake, same_order

# -- the order of the runs


def _turns(names: list[str], rounds: int) -> list[str]:
    return [name for turn in range(rounds) for name in (names if turn % 2 == 0 else names[::-1])]


def _order(answer: Any, rng: Any) -> str | None:
    names = [f"engine {letter}" for letter in "abcdef"[: int(rng.integers(3, 6))]]
    rounds = int(rng.integers(3, 6))
    given, right = list(answer(list(names), rounds)), _turns(names, rounds)
    if same_order(given, right):
        return None
    if len(given) != len(right):
        return f"Every engine runs once in each round: {len(names)} times {rounds} makes {len(right)} runs; yours has {len(given)}."
    if given == [name for name in names for _ in range(rounds)]:
        return "Each engine runs all its repeats in a block. If the machine slows down meanwhile, the last one pays for it."
    if given == names * rounds:
        return "Every round has the same direction, so the first engine always follows the last one. Reverse every second round."
    if given == _turns(names[::-1], rounds):
        return "The first round goes in the given order; the second one is the first that is reversed."
    if sorted(given) == sorted(right):
        return "All runs are there, in another order: forwards in the first round, backwards in the second, and so on."
    return "Go through the rounds; in each, every engine once: forwards in even rounds (from 0), backwards in odd ones."


fair_order = Exercise(
    "fair_order",
    "An order that is fair",
    (Part(2, "order of the runs", _order),),
    (
        Wrong("return [name for name in names for _ in range(rounds)]", "in a block", "one engine after the other"),
        Wrong("return names * rounds", "same direction", "the same direction every round"),
        Wrong(
            "return [n for turn in range(rounds) for n in (names[::-1] if turn % 2 == 0 else names)]",
            "first round",
            "begins backwards",
        ),
        Wrong("return names + names[::-1]", "Every engine runs once in each round", "two rounds only"),
    ),
)


# -- a ratio from pairs


def _paired(answer: Any, rng: Any) -> str | None:
    count = 2 * int(rng.integers(3, 6)) + 1
    drift = rng.uniform(1, 4, count)
    a = (drift * rng.uniform(0.9, 1.1, count)).round(4)
    b = (drift * float(rng.choice([0.6, 1.7, 2.5])) * rng.uniform(0.8, 1.2, count)).round(4)
    given, right = answer([float(x) for x in a], [float(x) for x in b]), float(np.median(b / a))
    likely = (
        (float(np.median(a / b)), "Upside down: the question is how many times as long B takes, so divide B's time by A's."),
        (1 / right, "Upside down: the question is how many times as long B takes, so divide B's time by A's."),
        (float(np.median(b) / np.median(a)), "You divide two medians that may come from different rounds. Divide within each round first."),
        (float(np.mean(b) / np.mean(a)), "You divide two means, so the slow rounds count most. Divide within each round first."),
        (float(np.mean(b / a)), "The pairs are right. Take the median of the ratios: one disturbed round should not move the result."),
        (float(np.median(b - a)), "That is a difference in seconds. The question is how many times as long."),
    )
    return likely_mistake(given, right, "Divide B's time by A's in each round, and take the median of these ratios.", values=likely)


paired_ratio = Exercise(
    "paired_ratio",
    "How many times as long?",
    (Part(2, "times of the same rounds", _paired),),
    (
        Wrong("return float(np.median(np.array(a) / np.array(b)))", "Upside down", "divides the wrong way round"),
        Wrong("return float(np.median(b) / np.median(a))", "different rounds", "a ratio of medians"),
        Wrong("return float(np.mean(b) / np.mean(a))", "slow rounds", "a ratio of means"),
        Wrong("return float(np.mean(np.array(b) / np.array(a)))", "median of the ratios", "a mean of ratios"),
        Wrong("return float(np.median(np.array(b) - np.array(a)))", "difference in seconds", "a difference"),
    ),
)


# -- throughput of requests that overlap


def _throughput(answer: Any, rng: Any) -> str | None:
    count = int(rng.integers(3, 7))
    start = rng.uniform(0.1, 0.4, count).cumsum().round(3)
    end = (start + rng.uniform(0.5, 1, count)).round(3)
    end[rng.integers(1, count - 1)] = (end.max() + rng.uniform(0.2, 0.6)).round(3)  # neither the first to start nor the last
    tokens = rng.integers(20, 90, count)
    requests = [{"start_s": float(s), "end_s": float(e), "tokens": int(t)} for s, e, t in zip(start, end, tokens, strict=True)]
    given, right = answer(requests), float(tokens.sum() / (end.max() - start.min()))
    each = tokens / (end - start)
    likely = (
        (
            float(each.sum()),
            "You add up the rates of requests that do not run all the time: count all tokens, over the whole time.",
        ),
        (float(each.mean()), "That is the mean rate of one request, which says what a user sees, and not what the engine gives in all."),
        (
            float(tokens.sum() / (end - start).sum()),
            "You add up durations, but the requests overlap. The clock runs once, from first start to last end.",
        ),
        (float(tokens.sum() / end.max()), "The time begins with the first request, which did not start at 0."),
        (float(tokens.sum() / (end[-1] - start[0])), "The last to start need not be the last to end: take the largest end_s."),
        (float(tokens.sum() / (end - start).max()), "The longest request is not the whole time: others began earlier or ended later."),
        (count / float(end.max() - start.min()), "Those are requests per second. The question is tokens."),
    )
    return likely_mistake(given, right, "All tokens, divided by the time from the first start to the last end.", values=likely)


throughput = Exercise(
    "throughput",
    "Throughput of requests that overlap",
    (Part(2, "overlapping requests", _throughput),),
    (
        Wrong("return sum(r['tokens'] / (r['end_s'] - r['start_s']) for r in requests)", "add up the rates", "sums the rates"),
        Wrong(
            "return sum(r['tokens'] for r in requests) / sum(r['end_s'] - r['start_s'] for r in requests)",
            "overlap",
            "sums the durations",
        ),
        Wrong(
            "return sum(r['tokens'] for r in requests) / max(r['end_s'] for r in requests)", "did not start at 0", "forgets the first start"
        ),
        Wrong(
            "return len(requests) / (max(r['end_s'] for r in requests) - min(r['start_s'] for r in requests))",
            "requests per second",
            "counts requests",
        ),
        Wrong(
            "return sum(r['tokens'] for r in requests) / (requests[-1]['end_s'] - requests[0]['start_s'])",
            "largest end_s",
            "takes the last request's end",
        ),
    ),
)


# -- when has it paid?


def _break_even(never: bool) -> Any:
    def test(answer: Any, rng: Any) -> str | None:
        watts, price = float(rng.integers(20, 300)), float(rng.uniform(0.1, 0.5))
        rate, hardware = float(rng.uniform(5, 60)), float(rng.integers(500, 3000))
        electricity = watts / rate / 3.6e6 * price  # of one token
        fee = float(1e6 * electricity * (rng.uniform(0.3, 0.8) if never else rng.uniform(1.5, 6)))  # of a million tokens
        given, right = answer(hardware, fee, watts, price, rate), hardware / (fee / 1e6 - electricity)
        if never:
            return _never(given)
        if given == math.inf:
            return "Here it does pay. Electricity too dear? Look at the units: watts are not kilowatts, and seconds are not hours."
        likely = (
            (hardware / (fee / 1e6), "You forget the electricity: each token of your own costs some, and lowers what you save."),
            (hardware / (fee - electricity), "The fee is for a million tokens; the electricity is for one."),
            (hardware / (fee / 1e6 - 1000 * electricity), "Watts for kilowatts: 1 kWh is 1000 watts for an hour, 3.6 million joules."),
            (hardware / (fee / 1e6 - 3600 * electricity), "Seconds for hours: the rate is per second, the price is per kilowatt-hour."),
            (hardware / (fee / 1e6 + electricity), "The electricity is a cost of yours: it is taken off the saving, not added to it."),
            ((hardware / (fee / 1e6 - electricity)) / 1e6, "That is in millions of tokens. The answer is wanted in tokens."),
        )
        return likely_mistake(
            given,
            right,
            "Hardware, divided by what a token saves: its fee, less its electricity (watts / rate: joules a token).",
            values=likely,
        )

    return test


def _never(given: Any) -> str | None:
    if isinstance(given, (int, float, np.floating)) and np.isposinf(given):
        return None
    if close(given, given):
        return "Here a token's electricity costs more than its fee, so it never pays: return math.inf."
    return "Return a number: math.inf where it never pays."


break_even = Exercise(
    "break_even",
    "When has it paid?",
    (Part(2, "it pays one day", _break_even(False)), Part(1, "it never pays", _break_even(True))),
    (
        Wrong("return hardware / (fee_per_million / 1e6)", "forget the electricity", "leaves the electricity out"),
        Wrong(
            "own = watts / tokens_per_s / 3600 * price_per_kwh\n"
            "saved = fee_per_million / 1e6 - own\nreturn hardware / saved if saved > 0 else math.inf",
            "kilowatts",
            "takes watts for kilowatts",
        ),
        Wrong(
            "return hardware / (fee_per_million / 1e6 - watts / tokens_per_s / 3.6e6 * price_per_kwh)",
            "never pays",
            "negative",
        ),
        Wrong(
            "saved = fee_per_million / 1e6 + watts / tokens_per_s / 3.6e6 * price_per_kwh\nreturn hardware / saved",
            "not added to it",
            "adds the electricity",
        ),
    ),
)
