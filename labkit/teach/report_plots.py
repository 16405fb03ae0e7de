"""The report's comparison: the same step of a lab over several models or thread counts, each figure with n and spread.

>>> comparisons([(record, result_lines), ...])[0].png
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labkit.core.records import RunRecord
from labkit.learn.plots import COLOURS
from labkit.measure.clock import Spread, spread

_MAX_STEPS = 2
_METRICS = (("decode_tokens_per_s", "decode, tokens/s (more is better)"), ("ttft_s", "time to first token, s (less is better)"))
_GREY = "0.35"

Lines = Sequence[dict[str, Any]]
Key = tuple[str, int | None, bool]  # model, threads, recorded


@dataclass
class Bar:
    """One model at one thread count: each metric with its interval, None where it is unknown."""

    model: str
    threads: int | None
    recorded: bool
    values: dict[str, list[float]]
    spreads: dict[str, Spread | None]

    @property
    def label(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads != 1 else ''}"
        return f"{self.model}{threads}{' (recorded)' if self.recorded else ''}"


@dataclass
class Comparison:
    """A plot as base64 PNG, and its figures for those who do not see it."""

    step: str
    png: str
    bars: list[Bar]
    alt: str


def comparisons(runs: Sequence[tuple[RunRecord, Lines]]) -> list[Comparison]:
    """The comparisons of one lab's runs: none unless the grid varied the model or the thread count."""
    if not any(len({str(record.parameters.get(name)) for record, _ in runs}) > 1 for name in ("model", "threads")):
        return []
    steps: dict[str, dict[Key, list[dict[str, Any]]]] = {}
    mixed: set[str] = set()
    for _, lines in runs:
        for line in lines:
            step = str(line.get("step", ""))
            for key, rows in _by_key(line).items():
                if len({(row.get("prompt_tokens"), row.get("cached_tokens")) for row in rows}) > 1:
                    mixed.add(step)
                steps.setdefault(step, {}).setdefault(key, []).extend(rows)
    # where a step varies the prompt itself, pooling its requests would compare nothing
    wide = [(step, groups) for step, groups in steps.items() if len(groups) > 1 and step not in mixed]
    wide.sort(key=lambda item: -sum(map(len, item[1].values())))
    return [_comparison(step, groups) for step, groups in wide[:_MAX_STEPS]]


def _by_key(line: dict[str, Any]) -> dict[Key, list[dict[str, Any]]]:
    found: dict[Key, list[dict[str, Any]]] = {}
    for row in line["rows"]:
        if isinstance(row, dict) and "marks_ns" in row and "model" in row:
            found.setdefault((str(row["model"]), row.get("threads"), line.get("source") == "recorded"), []).append(row)
    return found


def _comparison(step: str, groups: dict[Key, list[dict[str, Any]]]) -> Comparison:
    bars = []
    for (model, threads, recorded), rows in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] or 0, item[0][2])):
        values = {name: [float(row[name]) for row in rows if isinstance(row.get(name), int | float)] for name, _ in _METRICS}
        bars.append(Bar(model, threads, recorded, values, {name: spread(values[name]) for name in values}))
    said = [f"{bar.label}: {s.median:.3g} tokens/s decode" for bar in bars if (s := bar.spreads["decode_tokens_per_s"])]
    return Comparison(step, _draw(bars), bars, f"Step {step}. " + "; ".join(said))


def _draw(bars: list[Bar]) -> str:
    from matplotlib.figure import Figure

    models = sorted({bar.model for bar in bars})
    colours = {model: COLOURS[n % len(COLOURS)] for n, model in enumerate(models)}
    figure = Figure(figsize=(10, 1.3 + 0.5 * len(bars)), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, len(_METRICS), sharey=True), _METRICS, strict=True):
        for y, bar in enumerate(bars):
            middle = bar.spreads[metric]
            if middle is None:
                axes.annotate("unknown", (0, y), va="center", fontsize=9, color=_GREY)
                continue
            colour = colours[bar.model]
            axes.plot(bar.values[metric], [y] * len(bar.values[metric]), "|", color=colour, alpha=0.5, ms=12)
            axes.plot([middle.low, middle.high], [y, y], color=colour, lw=5, alpha=0.45, solid_capstyle="butt")
            axes.plot(middle.median, y, "o", color=colour, mfc="white" if bar.recorded else colour, ms=9, mew=2)
            note = f"{middle.median:.3g}  (n={middle.n})"
            axes.annotate(note, (middle.median, y), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9, color="0.2")
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.set_ylim(len(bars) - 0.4, -0.7)
        axes.set_xlim(left=0)
        axes.margins(x=0.15)
        axes.set_title(title, fontsize=10, loc="left")
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    hollow = "; hollow: RECORDED, not measured here" if any(bar.recorded for bar in bars) else ""
    figure.supxlabel(f"dot: median; band: its 95 % interval; ticks: single requests{hollow}", fontsize=8, color=_GREY)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
