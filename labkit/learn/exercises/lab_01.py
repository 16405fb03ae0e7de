"""The exercises of lab 01: from clock marks to the figures people quote, and from repeats to a decision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.learn.check import Exercise, Part, Wrong, close, likely_mistake

_NANOSECONDS = "That is a thousand million times too large: the marks are nanoseconds. Divide by 1e9."
_TTFT = "TTFT is the first token's mark minus start_ns, in seconds."
_TPOT = "TPOT is the time from the first mark to the last, divided by the gaps."
_FIRST = "Divide the first run by the median of the runs after it."
_OTHER_UNITS = {
    1e9: _NANOSECONDS,
    1e3: "That is milliseconds. The answer is wanted in seconds: divide nanoseconds by 1e9.",
    1e6: "That is microseconds. The answer is wanted in seconds: divide nanoseconds by 1e9.",
    -1.0: "The sign is wrong: take the earlier mark from the later one.",
}
_TIED = "A smaller count is tied when its median is not below the slowest repeat of the best one. Of those tied, take the fewest threads."
_LUCKY = "One lucky repeat decided. Compare the median of all repeats of a count, not its best repeat and not their mean."


def _stream(rng: Any, tokens: int, even: bool = False) -> tuple[int, list[int]]:
    """A start mark and the marks of an answer: a wait, then gaps that are all equal or all different."""
    start = int(rng.integers(10**12, 9 * 10**12))
    first = start + int(rng.integers(200, 3000)) * 1_000_000
    gaps = np.full(tokens - 1, int(rng.integers(20, 120))) if even else rng.permutation(np.arange(20, 140))[: tokens - 1]
    return start, [first, *(first + int(at) * 1_000_000 for at in np.cumsum(gaps))]


# -- time to first token


def _ttft(tokens: int) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        start, marks = _stream(rng, tokens)
        likely = [
            ((marks[-1] - start) / 1e9, "That is the time until the last token. TTFT ends with the first one: marks_ns[0]."),
            (marks[0] / 1e9, "A clock reading alone means nothing: it counts from some unknown moment. Subtract start_ns."),
            ((marks[-1] - marks[0]) / 1e9, "That is the time from the first token to the last. TTFT begins with the request: start_ns."),
        ]
        if tokens > 1:
            likely.append(((marks[1] - marks[0]) / 1e9, "That is a gap between two tokens. TTFT begins with the request: start_ns."))
        return likely_mistake(
            answer(start, list(marks)),
            (marks[0] - start) / 1e9,
            _TTFT,
            values=likely,
            factors=_OTHER_UNITS,
        )

    return test


ttft_s = Exercise(
    "ttft_s",
    "Time to first token",
    (Part(1, "an answer of one token", _ttft(1)), Part(1, "a longer answer", _ttft(12))),
    (
        Wrong("return (marks_ns[-1] - start_ns) / 1e9", "until the last token", "takes the end of the answer for its beginning"),
        Wrong("return marks_ns[0] - start_ns", "Divide by 1e9", "leaves nanoseconds"),
        Wrong("return (marks_ns[0] - start_ns) / 1e6", "milliseconds", "gives milliseconds under a name that ends in _s"),
        Wrong("return marks_ns[0] / 1e9", "Subtract start_ns", "takes one clock reading for a duration"),
        Wrong("return (marks_ns[-1] - marks_ns[0]) / 1e9", "begins with the request", "measures the writing, not the wait"),
    ),
)


# -- time per output token


def _tpot(even: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        _, marks = _stream(rng, int(rng.choice([5, 7, 11, 15])), even)  # an even number of gaps: their median is none of them
        n, whole = len(marks), (marks[-1] - marks[0]) / 1e9
        gaps = np.diff(marks) / 1e9
        likely = [
            (whole / n, "n tokens have n - 1 gaps between them: divide by len(marks_ns) - 1."),
            (whole / n * 1e9, f"n tokens have n - 1 gaps between them. And: {_NANOSECONDS}"),
            (whole, "That is the whole time of writing. Divide it by the number of gaps."),
            (float(gaps[-1]), "That is one gap, the last. TPOT is the mean of all gaps."),
            (float(gaps[0]), "That is one gap, the first. TPOT is the mean of all gaps."),
            (float(np.median(gaps)), "That is the median gap. TPOT is a mean: the whole time of writing, shared out over the gaps."),
            ((n - 1) / whole, "That is tokens per second. TPOT is the other way up: seconds per token."),
        ]
        return likely_mistake(
            answer(list(marks)),
            whole / (n - 1),
            _TPOT,
            values=likely,
            factors=_OTHER_UNITS,
        )

    return test


tpot_s = Exercise(
    "tpot_s",
    "Time per output token",
    (Part(1, "gaps that are all equal", _tpot(True)), Part(1, "gaps that differ", _tpot(False))),
    (
        Wrong("return (marks_ns[-1] - marks_ns[0]) / len(marks_ns) / 1e9", "n - 1 gaps", "divides by the tokens, not by the gaps"),
        Wrong("return (marks_ns[-1] - marks_ns[0]) / (len(marks_ns) - 1)", "Divide by 1e9", "leaves nanoseconds"),
        Wrong("return (marks_ns[-1] - marks_ns[-2]) / 1e9", "one gap, the last", "takes one gap for all"),
        Wrong(
            "import numpy as np\nreturn float(np.median(np.diff(marks_ns))) / 1e9",
            "TPOT is a mean",
            "the median gap hides the long ones, and a reader waits for those too",
        ),
        Wrong("return 1e9 * (len(marks_ns) - 1) / (marks_ns[-1] - marks_ns[0])", "other way up", "gives the rate"),
    ),
)


# -- tokens per second, of which kind?


def _decode(short_wait: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        start, marks = _stream(rng, int(rng.integers(5, 20)), even=short_wait)
        prompt = int(rng.integers(100, 900))
        if short_wait:  # the first token comes as fast as the others, so both ends of the wait give the same rate
            start = marks[0] - (marks[1] - marks[0])
        n, writing, whole = len(marks), (marks[-1] - marks[0]) / 1e9, (marks[-1] - start) / 1e9
        right = (n - 1) / writing
        likely = [
            ((prompt + n) / whole, "That counts prompt tokens as if the model had written them. Leave prompt_tokens out."),
            ((prompt + n) / writing, "That counts prompt tokens as if the model had written them. Leave prompt_tokens out."),
            ((prompt + n - 1) / writing, "That counts prompt tokens as if the model had written them. Leave prompt_tokens out."),
            (prompt / ((marks[0] - start) / 1e9), "That is the prefill rate. Asked for is the rate of the output tokens."),
            (n / whole, "The time holds the wait for the first token, which is prefill. Begin at marks_ns[0]."),
            ((n - 1) / whole, "The time holds the wait for the first token, which is prefill. Begin at marks_ns[0]."),
            (n / writing, "The first token belongs to the wait. In the time after it come n - 1 tokens."),
            (1 / right, "That is seconds per token. A rate is tokens per second: turn it upside down."),
            (right / 1e9, "That is tokens per nanosecond. Turn the time into seconds first: divide it by 1e9."),
        ]
        otherwise = "Count the tokens after the first one, and divide by the seconds from the first mark to the last."
        return likely_mistake(answer(prompt, start, list(marks)), right, otherwise, values=likely, factors=_OTHER_UNITS)

    return test


decode_tokens_per_s = Exercise(
    "decode_tokens_per_s",
    "The rate of the output tokens",
    (Part(1, "a short wait for the first token", _decode(True)), Part(1, "a long wait for the first token", _decode(False))),
    (
        Wrong(
            "return (prompt_tokens + len(marks_ns)) / ((marks_ns[-1] - start_ns) / 1e9)",
            "Leave prompt_tokens out",
            "adds the tokens it read to the tokens it wrote",
        ),
        Wrong("return len(marks_ns) / ((marks_ns[-1] - start_ns) / 1e9)", "Begin at marks_ns[0]", "lets the length of the prompt decide"),
        Wrong("return len(marks_ns) / ((marks_ns[-1] - marks_ns[0]) / 1e9)", "n - 1 tokens", "counts the first token, but not its time"),
        Wrong("return (marks_ns[-1] - marks_ns[0]) / 1e9 / (len(marks_ns) - 1)", "upside down", "gives TPOT"),
        Wrong("return prompt_tokens / ((marks_ns[0] - start_ns) / 1e9)", "prefill rate", "takes the other of the two kinds"),
    ),
)


# -- the first run against the others


def _first_run(kind: str) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        usual = float(rng.integers(200, 900)) / 1000
        if kind == "calm":
            rest = [usual] * int(rng.integers(4, 8))
        else:
            count = int(rng.choice([5, 7] if kind == "odd" else [4, 6]))
            rest = [usual * float(x) for x in 0.8 + 0.4 * rng.permutation(count) / count]
            rest[int(rng.integers(count))] = usual * float(rng.integers(5, 12))
        # a fast first run tells "the upper of the two in the middle" from "the first run is among them"
        first = usual * float(rng.integers(3, 7) if kind == "even" else rng.integers(15, 40)) / 10
        ordered, right = sorted(rest), first / float(np.median(rest))
        likely = [
            (first / float(np.mean(rest)), "That is the mean of the others. One disturbed run pulls it up; take the median."),
            (first / float(np.median([first, *rest])), "The first run is among the runs it is compared with. Leave it out: seconds[1:]."),
            (first / float(np.mean([first, *rest])), "The first run is among the runs it is compared with. Leave it out: seconds[1:]."),
            (1 / right, "That is the other way up: how many times as long was the first run?"),
            (first / ordered[len(rest) // 2], "With an even number of runs the median lies halfway between the two in the middle."),
            (first / ordered[0], "That compares with the best run. Nobody has the best run every time; take the median."),
            (first / rest[-1], "That compares with one run, the last. Take the median of all runs after the first."),
            (float(np.median(rest)), "That is the median of the others. Divide the first run by it."),
            (first / rest[len(rest) // 2], "Put the runs in order before you take the middle."),
        ]
        return likely_mistake(answer([first, *rest]), right, _FIRST, values=likely, factors=_OTHER_UNITS)

    return test


first_run_factor = Exercise(
    "first_run_factor",
    "The first run against the usual one",
    (
        Part(1, "repeats that are all equal", _first_run("calm")),
        Part(1, "an odd number of repeats, one disturbed", _first_run("odd")),
        Part(1, "an even number of repeats, one disturbed", _first_run("even")),
    ),
    (
        Wrong("return seconds[0] / (sum(seconds[1:]) / len(seconds[1:]))", "take the median", "a mean follows the one disturbed run"),
        Wrong("import numpy as np\nreturn seconds[0] / float(np.median(seconds))", "Leave it out", "counts the first run as a usual one"),
        Wrong("return seconds[0] / min(seconds[1:])", "best run", "quotes the best case"),
        Wrong("import numpy as np\nreturn float(np.median(seconds[1:])) / seconds[0]", "other way up", "divides the wrong way"),
        Wrong("return seconds[0] / sorted(seconds[1:])[len(seconds[1:]) // 2]", "halfway between", "right only for an odd number of runs"),
    ),
)


# -- which thread count?


def _table(rng: Any, groups: dict[int, list[float]]) -> list[dict[str, float]]:
    """Rows as a sweep leaves them: in turn, not sorted by count."""
    rows: list[dict[str, float]] = [{"threads": count, "tokens_per_s": rate} for count, rates in groups.items() for rate in rates]
    return [rows[int(i)] for i in rng.permutation(len(rows))]


def _around(rng: Any, middle: float, repeats: int) -> list[float]:
    """Repeats whose median is `middle` and whose slowest is 6 % below it; an odd number."""
    return [middle * (1 + 0.06 * float(x)) for x in rng.permutation(np.linspace(-1, 1, repeats))]


def _draw(rng: Any, kind: str) -> tuple[dict[int, list[float]], int]:
    counts = [[1, 2, 4], [1, 2, 4, 8], [2, 3, 6]][int(rng.integers(3))]
    repeats, base = int(rng.choice([3, 5])), float(rng.integers(10, 90))
    groups = {count: _around(rng, base * float(rng.uniform(0.4, 0.7)), repeats) for count in counts}
    if kind == "tie":
        right, best = counts[1], counts[-1]
        groups[best], groups[right] = _around(rng, base, repeats), _around(rng, base * 0.97, repeats)
        return groups, right
    right = counts[int(rng.integers(1, len(counts) - 1))]
    groups[right] = _around(rng, base, repeats)
    if kind == "lucky":
        other = next(count for count in counts if count != right)
        groups[other][int(np.argmax(groups[other]))] = base * 6
    return groups, right


def _which(kind: str) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        groups, right = _draw(rng, kind)
        given = answer(_table(rng, groups))
        if close(given, right):
            return None
        medians = {count: float(np.median(rates)) for count, rates in groups.items()}
        every = [rate for rates in groups.values() for rate in rates]
        if any(close(given, rate) for rate in [*every, *medians.values()]):
            return "That is a rate. Asked for is the thread count that has it."
        if not any(close(given, count) for count in groups):
            return f"That is not one of the thread counts in rows ({', '.join(map(str, groups))})."
        if kind == "tie" and close(given, max(medians, key=lambda count: medians[count])):
            return _TIED
        if kind == "lucky" and given == max(groups, key=lambda count: max(groups[count])):
            return _LUCKY
        if close(given, max(groups)):
            return "That is the most threads, not the fastest. Compare the medians of tokens_per_s."
        if close(given, min(groups)):
            return "That is the fewest threads of all. Fewest counts only among those tied with the best median."
        return "Take the median of each count's repeats and find the best. " + _TIED

    return test


_BEST_MEDIAN = """\
import numpy as np
groups = {}
for row in rows:
    groups.setdefault(row["threads"], []).append(row["tokens_per_s"])
return max(groups, key=lambda count: np.median(groups[count]))
"""

which_threads = Exercise(
    "which_threads",
    "Choose a thread count",
    (
        Part(1, "one count is clearly faster", _which("clear")),
        Part(1, "one lucky repeat", _which("lucky")),
        Part(1, "a tie", _which("tie")),
    ),
    (
        Wrong('return max(row["threads"] for row in rows)', "most threads", "the popular belief"),
        Wrong('return max(rows, key=lambda row: row["tokens_per_s"])["threads"]', "lucky repeat", "one lucky repeat wins"),
        Wrong(_BEST_MEDIAN, "tied", "takes a difference that the repeats do not support"),
        Wrong(_BEST_MEDIAN.replace("np.median", "np.mean"), "not their mean", "a mean follows the lucky repeat"),
        Wrong('return min(row["threads"] for row in rows)', "fewest threads of all", "saves threads whatever it costs"),
        Wrong('return max(row["tokens_per_s"] for row in rows)', "That is a rate", "returns the speed, not the count"),
    ),
)
