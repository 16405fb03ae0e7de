"""What a model reads and how it chooses: tokens, scores, and drawings of both. Plain functions; no model is loaded here.

Scores of a whole vocabulary are kept as the best `TOP` one by one and all the others in narrow bins, so that a result
line stays small and probabilities are still right to about one part in a thousand, also at high temperatures.

>>> row = summary(np.array([2.0, 1.0, 0.0]), text_of=str)
>>> [round(float(p), 3) for p in choose(row).probabilities]
[0.665, 0.245, 0.09]
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from labkit import measure
from labkit.core.records import Measurement, Message, Request
from labkit.learn import plots
from labkit.learn.expect import expect_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOP = 40
_BIN = 0.25  # logits; within a bin exp() differs by an eighth either way
_SHOWN = 12
_LAST_IN_FONT = 0x052F  # Latin, Greek and Cyrillic: what matplotlib's own font has for certain
_SENTENCE = " The quick brown fox jumps over the lazy dog."
_MARKS = {" ": "␣", "\n": "↵", "\t": "→", "\r": "↵", "\ufffd": "▯"}
Item = TypeVar("Item")


# -- pieces of text


def pieces(session: Any, ids: Sequence[int]) -> list[dict[str, Any]]:
    """One row a token: id, text, and whether it is a special marker (one that plain text cannot spell)."""
    rows = []
    for token in ids:
        plain, marked = session.token_text(token), session.token_text(token, special=True)
        rows.append({"id": int(token), "text": marked, "special": bool(marked and not plain)})
    return rows


def visible(text: str) -> str:
    """A token's text with its spaces and line ends shown, and letters that a plot's font may lack as their code."""
    return "".join(_MARKS.get(c) or (c if c.isprintable() and ord(c) <= _LAST_IN_FONT else f"\\u{ord(c):04x}") for c in text)


def draw_pieces(lines: Sequence[Sequence[dict[str, Any]]], caption: str, width: int = 78) -> Figure:
    """Each token as a box with its id below; a line of its own for each of `lines`. Special markers are orange."""
    from matplotlib.patches import Rectangle

    boxes, row = [], 0
    for line in lines:
        x = 0.0
        for number, piece in enumerate(line):
            label = visible(piece["text"])
            size = max(len(label), 0.75 * len(str(piece["id"]))) + 0.8
            if x and x + size > width:
                x, row = 0.0, row + 1
            boxes.append((x, row, size, label, piece, number))
            x += size + 0.3
        row += 1
    fig, ax = plots.figure(caption, height=0.55 + 0.48 * row)
    for x, y, size, label, piece, number in boxes:
        colour = plots.ORANGE if piece["special"] else (plots.SKY, plots.YELLOW)[number % 2]
        ax.add_patch(Rectangle((x, y), size, 0.5, facecolor=colour, alpha=0.55, edgecolor="0.4", lw=0.6))
        ax.text(x + size / 2, y + 0.26, label, ha="center", va="center", family="monospace", fontsize=9, parse_math=False)
        ax.text(x + size / 2, y + 0.68, str(piece["id"]), ha="center", va="center", fontsize=7, color="0.35")
    ax.set(xlim=(-0.5, width + 0.5), ylim=(row, -0.15))
    ax.axis("off")
    return fig


# -- scores and choices


@dataclass(frozen=True)
class Choice:
    """How one token was chosen. Arrays run over the entries of a summary: its candidates, then the bins of all others."""

    before: np.ndarray  # the model's own probabilities, at temperature 1
    kept: np.ndarray  # bool: what top-p left in
    probabilities: np.ndarray  # after top-p and temperature
    drawn: int  # the entry that was chosen


def softmax(logits: Any, temperature: float = 1.0, counts: Any = 1) -> np.ndarray:
    """Probabilities of scores: exp(score / temperature), divided by their sum. Temperature 0 takes the largest.

    `counts`: how many tokens stand behind each score.
    """
    scores = np.asarray(logits, dtype=float)
    if temperature == 0:
        return (np.arange(scores.size) == scores.argmax()).astype(float)
    weights = counts * np.exp((scores - scores.max()) / temperature)
    return np.asarray(weights / weights.sum())


def top_p_mask(probabilities: Any, p: float) -> np.ndarray:
    """Which entries of a list, best token first, stay: as many as together reach p. The one that reaches it stays."""
    given = np.asarray(probabilities, dtype=float)
    return np.asarray((np.cumsum(given) - given < p) | (p >= 1))


def summary(logits: np.ndarray, text_of: Callable[[int], str], top: int = TOP) -> dict[str, Any]:
    """A row for a result line: the best `top` tokens (id, text, logit), and the others as logits with counts."""
    order = np.argsort(-logits, kind="stable")
    best, rest = order[:top], logits[order[top:]].astype(float)
    candidates = [{"id": int(i), "text": text_of(int(i)), "logit": float(logits[i])} for i in best]
    bins = np.floor(rest[np.isfinite(rest)] / _BIN)
    values, counts = np.unique(bins, return_counts=True)
    others = {"logits": [float(v) for v in (values[::-1] + 0.5) * _BIN], "counts": [int(c) for c in counts[::-1]]}
    return {"candidates": candidates, "others": others, "vocabulary": int(logits.size)}


def choose(row: dict[str, Any], temperature: float = 1.0, top_p: float = 1.0, seed: int = 0) -> Choice:
    """Choose from a summary as the engine does: first top-p on the model's own probabilities, then temperature, then a draw.

    The draw is NumPy's: the same seed gives the same token here, not the one that the engine's own draw gives.
    """
    logits = np.array([c["logit"] for c in row["candidates"]] + row["others"]["logits"])
    counts = np.array([1] * len(row["candidates"]) + row["others"]["counts"])
    before = softmax(logits, 1.0, counts)
    kept = top_p_mask(before, top_p)
    after = softmax(np.where(kept, logits, -np.inf), temperature, counts)
    drawn = int(np.searchsorted(np.cumsum(after), np.random.default_rng(seed).random()))
    return Choice(before, kept, after, min(drawn, logits.size - 1))


def draw_candidates(row: dict[str, Any], caption: str) -> Figure:
    """The best tokens: on the left the model's scores, on the right the same as probabilities, with all others in one bar."""
    best = row["candidates"][:_SHOWN]
    fig, axes = plots.figure(caption, columns=2)
    _bars(axes[0], [visible(c["text"]) for c in best], [c["logit"] for c in best], plots.SKY)
    axes[0].set_xlabel("score (logit)")
    axes[0].set_xlim(left=min(0.0, *(c["logit"] for c in best)))
    names, values = _with_others(row, choose(row).before)
    _bars(axes[1], names, 100 * values, plots.BLUE)
    axes[1].set_xlabel("probability (%)")
    return fig


def draw_temperatures(row: dict[str, Any], caption: str, temperatures: Sequence[float]) -> Figure:
    """The same scores turned into probabilities at several temperatures, side by side."""
    fig, axes = plots.figure(caption, columns=len(temperatures))
    for number, (ax, temperature) in enumerate(zip(np.atleast_1d(axes), temperatures, strict=True)):
        names, values = _with_others(row, choose(row, temperature).probabilities)
        _bars(ax, names if number == 0 else [""] * len(names), 100 * values, plots.COLOURS[number])
        ax.set(title=f"temperature {temperature:g}", xlabel="probability (%)", xlim=(0, 100))
    return fig


def draw_choice(row: dict[str, Any], caption: str, temperature: float, top_p: float, seed: int) -> Figure:
    """Outlines: the model's own probabilities. Bars: what temperature and top-p make of them. Orange: the token drawn."""
    choice = choose(row, temperature, top_p, seed)
    names, before = _with_others(row, choice.before)
    _, after = _with_others(row, choice.probabilities)
    fig, ax = plots.figure(caption, height=4.6)
    at = np.arange(len(names))
    drawn = min(choice.drawn, len(names) - 1)
    ax.barh(at, 100 * before, 0.8, facecolor="none", edgecolor="0.5", ls="--", label="the model's own probability")
    bars = ax.barh(at, 100 * after, 0.55, color=plots.BLUE, label="after top-p and temperature")
    bars[drawn].set_color(plots.ORANGE)
    ax.annotate("← drawn", (100 * float(max(before[drawn], after[drawn])), drawn), xytext=(4, 0), textcoords="offset points", va="center")
    _names(ax, names)
    ax.set_xlabel("probability (%)")
    ax.set_xlim(0, 112)
    left = int(np.where(choice.kept, _counts(row), 0).sum())
    about = "about " if len(row["candidates"]) < left < row["vocabulary"] else ""  # among the others, whole bins are counted
    ax.set_title(
        f"temperature {temperature:g}, top-p {top_p:g}, seed {seed}: {about}{left:,} of {row['vocabulary']:,} tokens stay", fontsize=10
    )
    ax.legend(frameon=False, loc="center right")
    return fig


def _counts(row: dict[str, Any]) -> np.ndarray:
    return np.array([1] * len(row["candidates"]) + row["others"]["counts"])


def _with_others(row: dict[str, Any], values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The shown candidates and one entry for all other tokens."""
    shown = min(_SHOWN, len(row["candidates"]))
    others = row["vocabulary"] - shown
    names = [visible(c["text"]) for c in row["candidates"][:shown]]
    if not others:
        return names, values[:shown]
    return [*names, f"{others:,} others"], np.append(values[:shown], values[shown:].sum())


def _bars(ax: Axes, names: Sequence[str], values: Any, colour: str) -> None:
    ax.barh(np.arange(len(names)), values, 0.7, color=colour)
    _names(ax, names)


def _names(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(np.arange(len(names)), names, family="monospace", parse_math=False)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)


# -- running


def timed(items: Iterable[Item]) -> list[tuple[Item, float]]:
    """Each item of a generator with the seconds it took to come."""
    out, last = [], time.perf_counter_ns()
    for item in items:
        now = time.perf_counter_ns()
        out.append((item, (now - last) / 1e9))
        last = now
    return out


def filler(session: Any, count: int) -> tuple[int, ...]:
    """So many tokens of ordinary English, for prompts whose length alone matters."""
    ids: list[int] = session.tokenize(_SENTENCE)
    return tuple((ids * (count // len(ids) + 1))[:count])


def read_lengths(session: Any, lengths: Sequence[int], repeats: int) -> list[Measurement]:
    """Prompts of several lengths, eight output tokens each, measured in turn."""

    def case(length: int) -> Callable[[], Measurement]:
        request = Request(tokens=filler(session, length), max_tokens=8, ignore_eos=True)
        return lambda: measure.one(session, request)

    rounds = measure.ab({str(length): case(length) for length in lengths}, repeats=repeats, warmup=0)
    return [m for runs in rounds.values() for m in runs]


def second_turns(session: Any, first: Request, follow_up: str, repeats: int) -> list[Measurement]:
    """The second turn of a chat, measured with the KV cache kept and thrown away, in turn.

    Before each, `first` runs again unmeasured, so that the cache holds what it would hold after a first turn.
    """
    again = first.model_copy(update={"keep_cache": True})
    reply = Message(role="assistant", content=measure.one(session, again).text)

    def case(keep: bool) -> Callable[[], Measurement]:
        request = Request.chat(follow_up, history=(*(first.messages or ()), reply), max_tokens=4, ignore_eos=True, keep_cache=keep)

        def run() -> Measurement:
            measure.one(session, again)
            return measure.one(session, request)

        return run

    rounds = measure.ab({"thrown away": case(False), "kept": case(True)}, repeats=repeats, warmup=0)
    return [m for runs in rounds.values() for m in runs]


def refusal(call: Callable[[], Any]) -> str:
    """The sentence with which `call` is refused; AssertionError where it is not. Keeps an expected error in a step's rows."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), expect_error():
        call()
    return said.getvalue().strip()
