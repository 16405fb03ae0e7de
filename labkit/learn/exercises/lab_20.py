"""The exercises of lab 20: the wait in a queue, the choice of a balancer, the autoscaler's formula, the cost of a million tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from labkit.learn.check import Exercise, Part, Wrong, close, likely_mistake

Test = Callable[[Any, Any], str | None]

# -- wait_s(rate, service_s)


def _wait(full: bool) -> Test:
    def test(answer: Any, rng: Any) -> str | None:
        service = round(float(rng.uniform(0.2, 3)), 2)
        busy = float(rng.uniform(1.0, 1.6)) if full else float(rng.choice([0.3, 0.6, 0.8, 0.9]))
        rate = busy / service
        given = answer(rate, service)
        if full:
            infinite = isinstance(given, (int, float)) and math.isinf(given) and given > 0
            return None if infinite else "More comes than can be served: the queue grows without end, so the wait is math.inf."
        right = busy / (1 - busy) * service
        likely = (
            (busy / (1 - busy), "That is how many services it waits. How many seconds is one of them?"),
            (service / (1 - busy), "That is the wait and the service together. The wait alone is wanted."),
            (busy * service, "That would be so if a queue were as long as the server is busy. It grows faster: divide by 1 - utilisation."),
            (busy, "That is the utilisation: the share of the time in which the server is busy."),
            (busy**2 / (1 - busy), "That is how many wait on average. The seconds that one of them waits are wanted."),
        )
        return likely_mistake(given, right, "First the utilisation: rate times service time. What is the formula above it?", values=likely)

    return test


wait_s = Exercise(
    "wait_s",
    "The wait in a queue",
    (Part(2, "a server that keeps up", _wait(False)), Part(1, "a server that does not", _wait(True))),
    (
        Wrong("busy = rate * service_s\nreturn busy / (1 - busy)", "How many seconds", "gives services"),
        Wrong("busy = rate * service_s\nreturn service_s / (1 - busy)", "wait alone", "counts the service too"),
        Wrong("return rate * service_s * service_s", "1 - utilisation", "takes a queue for a share"),
        Wrong("busy = rate * service_s\nreturn busy / (1 - busy) * service_s", "without end", "knows no end"),
    ),
)


# -- choose(in_flight, up)


def _choose(dead: bool) -> Test:
    def test(answer: Any, rng: Any) -> str | None:
        count = int(rng.integers(4, 7))
        in_flight = [int(n) for n in rng.permutation(range(12, 12 + count))]  # no load is some place's number, too
        up = [True] * count
        if dead:
            in_flight[int(rng.integers(0, count))] = 0
            up = [load > 0 for load in in_flight]
        else:
            first, second = sorted(int(n) for n in rng.choice(count, 2, replace=False))
            in_flight[first] = in_flight[second] = 9
        right = min((n for n in range(count) if up[n]), key=lambda n: in_flight[n])
        given = answer(list(in_flight), list(up))
        if close(given, right) and not isinstance(given, bool):
            return None
        if dead and close(given, in_flight.index(0)):
            return "That one is down: it has nothing to do because nobody gets an answer from it."
        if close(given, max(range(count), key=lambda n: in_flight[n])):
            return "That one has the most to do."
        if close(given, min(load for load, well in zip(in_flight, up, strict=True) if well)):
            return "That is how many requests it has. Return its number, counted from 0."
        if not dead and close(given, count - 1 - in_flight[::-1].index(9)):
            return "Two have equally few: take the first of them."
        return "Of those that are up, the one with the fewest requests in flight; its number, counted from 0."

    return test


choose = Exercise(
    "choose",
    "What a balancer does",
    (Part(1, "the one with the fewest requests", _choose(False)), Part(1, "one of them is down", _choose(True))),
    (
        Wrong("return in_flight.index(min(in_flight))", "is down", "sends requests to the dead"),
        Wrong("return in_flight.index(max(n for n, well in zip(in_flight, up) if well))", "the most to do", "takes the busiest"),
        Wrong("return min(n for n, well in zip(in_flight, up) if well)", "Return its number", "gives the load"),
        Wrong("return max((n for n in range(len(up)) if up[n]), key=lambda n: (-in_flight[n], n))", "the first of them", "takes the last"),
    ),
)


# -- wanted(current, in_flight, target, most)


def _wanted(kind: str) -> Test:
    def test(answer: Any, rng: Any) -> str | None:
        target, current = int(rng.integers(3, 8)), int(rng.integers(3, 7))
        most = 12
        if kind == "tolerance":
            current, target = int(rng.integers(4, 7)), int(rng.choice([10, 20]))
            ratio = 1.05  # where rounding up would add one
        elif kind == "most":
            ratio = float(rng.uniform(4.5, 6))
        else:
            ratio = float(rng.choice([0.45, 1.35, 1.6]))
        in_flight = max(1, round(ratio * target * current))
        ratio = in_flight / (target * current)
        right = current if 0.9 <= ratio <= 1.1 else min(most, max(1, math.ceil(in_flight / target)))
        enough, times = math.ceil(in_flight / target), math.ceil(current * in_flight / target)
        nearly = "Within a tenth of the target nothing is changed: a service that is nearly right is left alone."
        likely = (
            (enough, nearly if kind == "tolerance" else f"At most {most} are allowed."),
            (min(most, times), "in_flight is of all replicas together: it is shared out among them already."),
            (times, "in_flight is of all replicas together: it is shared out among them already."),
            (in_flight / target, "Replicas are whole: round up, or the last requests have no place."),
            (in_flight // target, "Round up, not down, or the last requests have no place."),
            (most, "Only as many as are needed, most of all when it costs money."),
        )
        return likely_mistake(
            answer(current, in_flight, target, most), right, "How far is one replica's load from its target? Then, how many are enough?",
            values=[pair for pair in likely if not close(pair[0], right)],
        )  # fmt: skip

    return test


wanted = Exercise(
    "wanted",
    "The autoscaler's formula",
    (
        Part(1, "more or fewer", _wanted("plain")),
        Part(1, "nearly right", _wanted("tolerance")),
        Part(1, "too many", _wanted("most")),
    ),
    (
        Wrong("import math\nreturn min(most, math.ceil(in_flight / target))", "left alone", "knows no tolerance"),
        Wrong(
            "import math\nif 0.9 <= in_flight / (target * current) <= 1.1:\n    return current\nreturn math.ceil(in_flight / target)",
            "are allowed",
            "knows no bound",
        ),
        Wrong(
            "if 0.9 <= in_flight / (target * current) <= 1.1:\n    return current\nreturn min(most, in_flight / target)",
            "Replicas are whole",
            "gives fractions",
        ),
        Wrong("import math\nreturn min(most, math.ceil(current * in_flight / target))", "shared out", "multiplies by the replicas"),
    ),
)


# -- cost_per_million(price_per_hour, tokens_per_s, busy)


def _cost(answer: Any, rng: Any) -> str | None:
    price, speed = round(float(rng.uniform(0.1, 3)), 2), int(rng.integers(20, 900))
    busy = round(float(rng.uniform(0.1, 0.9)), 2)
    right = price / (speed * busy * 3600) * 1e6
    likely = (
        (right * busy, "A replica costs the same when it has nothing to do: it makes tokens only for a share of the time."),
        (right * busy * busy, "A replica that is half idle makes half the tokens, so each of them costs more, not less."),
        (right / 1e6, "That is one token. A million are wanted."),
        (right * 3600, "The price is for an hour, the speed for a second."),
        (right / 1000, "That is a thousand tokens. A million are wanted."),
    )
    return likely_mistake(
        answer(price, speed, busy), right, "How many tokens does it really make in an hour? They share the hour's price.", values=likely
    )


cost_per_million = Exercise(
    "cost_per_million",
    "What a million tokens cost",
    (Part(2, "price of a million", _cost),),
    (
        Wrong("return price_per_hour / (tokens_per_s * 3600) * 1e6", "nothing to do", "forgets the idle time"),
        Wrong("return price_per_hour / (tokens_per_s * 3600) * 1e6 * busy", "costs more, not less", "takes idle time for a discount"),
        Wrong("return price_per_hour / (tokens_per_s * busy) * 1e6", "for an hour", "mixes hours and seconds"),
        Wrong("return price_per_hour / (tokens_per_s * busy * 3600)", "one token", "gives one token"),
    ),
)
