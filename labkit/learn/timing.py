"""What lab 01 says about its measurements: figures in words with their intervals, ties included, and one drawing.

Everything here takes numbers or records and gives back words, numbers or a figure. It measures nothing.

>>> told(spread([1.0, 2.0, 4.0]), "s")
'2 s (1 to 4, n = 3)'
>>> fewest_tied({1: [9.0, 10.0, 11.0], 2: [9.5, 10.5, 11.5]})
1
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.core.errors import BadInput
from labkit.core.records import SCHEMA, Measurement, Message, Request
from labkit.learn import plots
from labkit.measure.clock import Spread, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def told(figure: Spread | None, unit: str) -> str:
    """A median with its interval and the number of repeats; 'unknown' where nothing was measured."""
    if figure is None:
        return "unknown"
    return f"{figure.median:.3g} {unit} ({figure.low:.3g} to {figure.high:.3g}, n = {figure.n})"


def gaps_s(marks_ns: Sequence[int] | None) -> list[float]:
    """Seconds between one token and the next: one fewer than there are marks. The inter-token latencies of a request."""
    return [] if marks_ns is None else [(b - a) / 1e9 for a, b in itertools.pairwise(marks_ns)]


def token_prompt(count: int, vocabulary: int) -> tuple[int, ...]:
    """A prompt of exactly `count` token ids. What they say does not matter to the speed."""
    return tuple((100 + i % 97) % vocabulary for i in range(count))


def claims(m: Measurement) -> dict[str, float | None]:
    """What one run could be called in tokens per second. Only the first and the last name keep the two kinds apart."""
    sent, written, marks = m.prompt_tokens, m.output_tokens, m.marks_ns
    whole_s = None if marks.last is None else (marks.last - marks.start) / 1e9
    return {
        "decode: output tokens after the first / time after the first": m.decode_tokens_per_s,
        "output tokens / whole time": written / whole_s if written and whole_s else None,
        "prompt and output tokens / whole time": (sent + written) / whole_s if sent and written and whole_s else None,
        "prefill: prompt tokens / wait for the first token": m.prefill_tokens_per_s,
    }


def told_first(first: float, others: Sequence[float]) -> str:
    """Was the first run slower than those that followed? Seconds, all of one kind."""
    low, usual, high = min(others), float(np.median(others)), max(others)
    said = f"First run {first:.3g} s. The {len(others)} runs after it: median {usual:.3g} s, from {low:.3g} to {high:.3g} s.\n"
    said += f"The first is {first / usual:.2f} times the median. "
    if first > high:
        return said + f"It is slower than all others. By chance alone that happens once in {len(others) + 1} times."
    return said + f"It lies {'below all of them' if first < low else 'inside their range'}: this time it does not stand out."


def by(measurements: Iterable[Measurement], field: str, metric: str) -> dict[int, list[float]]:
    """The known values of a metric, one list for each value of `field` (threads, prompt_tokens), in its order."""
    found: dict[int, list[float]] = {}
    for m in measurements:
        key, value = getattr(m, field), getattr(m, metric)
        if key is not None and value is not None:
            found.setdefault(key, []).append(value)
    return dict(sorted(found.items()))


def medians(measurements: Iterable[Measurement], field: str, metric: str) -> dict[int, float]:
    """The median of each list that `by` gives."""
    return {key: float(np.median(values)) for key, values in by(measurements, field, metric).items()}


def fewest_tied(rates: Mapping[int, Sequence[float]]) -> int:
    """The thread count to use: the best median, or fewer threads whose median lies in the interval of the best.

    Raises: BadInput where no rate is known.
    """
    known = {count: found for count, values in rates.items() if (found := spread(values))}
    if not known:
        raise BadInput("no thread count has a known rate", "measure answers of at least two tokens")
    best = max(known.values(), key=lambda one: one.median)
    return min(count for count, one in known.items() if one.median >= best.low)


def told_threads(rates: Mapping[int, Sequence[float]], unit: str = "tokens/s") -> str:
    """The sweep in words: each count, which is fastest, what is tied with it, which to take, and whether more was faster."""
    take = fewest_tied(rates)
    known = {count: found for count, values in rates.items() if (found := spread(values))}
    best, most = max(known, key=lambda count: known[count].median), max(known)
    lines = [f"{_threads(count)}: {told(one, unit)}" for count, one in known.items()]
    tied = [count for count, one in known.items() if count != best and one.median >= known[best].low]
    lines.append(f"Best median: {_threads(best)}.")
    if tied:
        lines.append(f"Tied with it (median inside its interval): {', '.join(map(_threads, tied))}.")
    lines.append(f"Take {_threads(take)}{', the fewest of these' if tied else ''}.")
    if len(known) > 1:
        ratio = f"{known[most].median / known[min(known)].median:.2f} times as fast as {min(known)}"
        verdict = "true here" if take == most else "a tie here" if most in (best, *tied) else "false here"
        lines.append(f'"More threads are faster" is {verdict}: {_threads(most)} ran {ratio}.')
    return "\n".join(lines)


def column(groups: Mapping[int, Any], wanted: int) -> int:
    """Which column of `plots.points` has the number nearest to `wanted`."""
    counts = list(groups)
    return min(range(len(counts)), key=lambda i: abs(counts[i] - wanted))


def mark_prediction(ax: Axes, x: float, value: float) -> Axes:
    """The learner's prediction over a column of `plots.points`; the axis grows where it lies above."""
    ax.plot([x - 0.3, x + 0.3], [value, value], "--", color=plots.ORANGE, lw=2, label="your prediction")
    ax.set_ylim(0, max(ax.get_ylim()[1], 1.08 * value))
    ax.legend(frameon=False, loc="lower left")
    return ax


def ending(name: str, request: Request, m: Measurement) -> dict[str, Any]:
    """How an answer ended, as a row: what was allowed and what came."""
    return {
        "asked": name,
        "max_tokens": request.max_tokens,
        "stop strings": list(request.stop),
        "output_tokens": m.output_tokens,
        "finish_reason": m.finish_reason,
        "text": m.text,
    }


def system_request(session: Any, system: str, question: str, **options: Any) -> Request:
    """A chat request with a system prompt; in front of the question for a model whose template knows no system role."""
    messages = [Message(role="system", content=system), Message(role="user", content=question)]
    try:
        session.chat_prompt(messages)
    except BadInput:
        return Request.chat(f"{system}\n\n{question}", **options)
    return Request.chat(question, system=system, **options)


def told_memory(growth_bytes: int, file_bytes: int) -> str:
    """Growth of a process against the file it loaded, in words."""
    said = f"The process grew by {growth_bytes / 1e6:.0f} MB for a file of {file_bytes / 1e6:.0f} MB: "
    if growth_bytes < file_bytes:
        return said + "less than the file, because not every page of it was needed."
    more = f"the file and {(growth_bytes - file_bytes) / 1e6:.0f} MB more: the KV cache, working memory"
    return f"{said}{more} and, for some file formats, a rearranged copy of the weights."


def benches(lines: Iterable[Mapping[str, Any]], lab: str = "01_first_model") -> list[dict[str, Any]]:
    """One row a run of this lab in a results file, or in the files of a whole class one after another."""
    found = []
    for line in lines:
        if line.get("schema") != SCHEMA or line.get("lab") != lab or line.get("step") != "bench":
            continue
        rows = [Measurement.model_validate(row) for row in line["rows"]]
        if not rows:
            continue
        rate, wait = spread(m.decode_tokens_per_s for m in rows), spread(m.ttft_s for m in rows)
        found.append(
            {
                "machine": line["machine"]["id"],
                "cores": line["machine"]["cores"],
                "source": line["source"],
                "model": rows[0].model,
                "threads": rows[0].threads,
                "n": len(rows),
                "ttft_s": wait.median if wait else None,
                "decode_tokens_per_s": rate.median if rate else None,
            }
        )
    return found


def wait_s(prompt_tokens: int, output_tokens: int, prefill_tokens_per_s: float, decode_tokens_per_s: float) -> tuple[float, float]:
    """(seconds until the first token, seconds of writing after it), if both rates stayed as they are."""
    return prompt_tokens / prefill_tokens_per_s, max(0, output_tokens - 1) / decode_tokens_per_s


def draw_wait(
    prompt_tokens: int,
    output_tokens: int,
    prefill_tokens_per_s: float,
    decode_tokens_per_s: float,
    caption: str,
    most: tuple[int, int] = (1024, 256),
) -> Figure:
    """How many tokens of an answer are there, second by second. The axes end at the wait for `most` tokens (prompt, answer)."""
    wait, writing = wait_s(prompt_tokens, output_tokens, prefill_tokens_per_s, decode_tokens_per_s)
    fig, ax = plots.figure(caption, height=3.2)
    ax.axvspan(0, wait, color=plots.ORANGE, alpha=0.35, label="waiting: the prompt is computed")
    ax.plot([0, wait, wait, wait + writing], [0, 0, 1, output_tokens], color=plots.BLUE, lw=2, label="tokens of the answer")
    ax.set_xlim(0, sum(wait_s(*most, prefill_tokens_per_s, decode_tokens_per_s)) * 1.03)
    ax.set_ylim(0, most[1] * 1.05)
    ax.set_xlabel("seconds since the request (predicted)")
    ax.set_ylabel("tokens there")
    ax.set_title(f"first token after {wait:.1f} s, all {output_tokens} after {wait + writing:.1f} s", fontsize=10)
    ax.legend(frameon=False, loc="lower right")
    return fig


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"
