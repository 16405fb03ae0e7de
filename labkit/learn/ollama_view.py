"""What lab 10 starts, tells and draws: a Desk with the lab's Ollama, the tables of data/ollama.toml, plots of its rows.

A Desk owns the lab's server. Whatever goes wrong in a cell, the server is stopped and the next cell starts a new one, so a
cell can always be run again. The questions themselves are in ollama_rows.py.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from labkit import servers
from labkit.core import paths
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import ModelRef
from labkit.learn import plots
from labkit.models import footprint, inspect
from labkit.models.inspect import Gguf
from labkit.servers import ollama as server

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = list[dict[str, Any]]


@functools.cache
def table(name: str) -> Rows:
    """A table of data/ollama.toml: install or behaviour."""
    return list(tomllib.loads(paths.data("ollama.toml").read_text(encoding="utf-8"))[name])


def numbers(version: str) -> tuple[int, ...]:
    """ "0.24.0" -> (0, 24, 0); what follows the numbers is left out ("0.30.0-rc1")."""
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def behaviours(version: str) -> Rows:
    """The rows of the table that hold for a version."""
    here = numbers(version)
    return [
        row for row in table("behaviour") if numbers(row.get("since", "0")) <= here and ("until" not in row or here < numbers(row["until"]))
    ]


def holds(id: str, version: str) -> bool:
    """Does a behaviour hold for this version? Raises BadInput for an id that the table has not."""
    if id not in {row["id"] for row in table("behaviour")}:
        raise BadInput(f"no behaviour {id!r}", "look into data/ollama.toml")
    return id in {row["id"] for row in behaviours(version)}


class Desk:
    """The lab's Ollama: started by the first cell that asks, stopped by close(), by an error and at the end of the kernel."""

    def __init__(self, model: ModelRef | None, name: str = "model", engine: str = "ollama", **settings: Any) -> None:
        if engine != "ollama":
            raise BadInput(f"this lab is about Ollama, not about engine {engine}", "-p engine ollama")
        self.model, self.settings = model, {"context": 2048, "parallel": 1, "max_loaded": 3, **settings}
        self.running: servers.Running | None = None
        self.name = model.name if model else name

    def server(self) -> servers.Running:
        """The running server; a new one where it has ended."""
        if self.running and not self.running.alive():
            print("Ollama had ended; a new one is started, with the lab's model in it.")  # noqa: T201 - the reader must see it
            self.close()
        if self.running is None:
            self.running = servers.open("ollama").start(self.require(), **self.settings)
        return self.running

    def require(self) -> ModelRef:
        if self.model is None:
            raise MissingPart("this lab plays its recording: there is no model", "labkit runtimes install ollama")
        return self.model

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """`question(client)` with the official client. Raises RunFailed in one sentence where Ollama ends in the middle."""
        running, api = self.server(), server.library()
        client = api.Client(host=running.url, timeout=120)
        try:
            return question(client)
        except api.ResponseError as error:
            said = error.error[:300]
            raise RunFailed(f"Ollama answered {error.status_code}: {said}", "mend the request and run the cell again") from error
        except (ConnectionError, httpx.TransportError) as error:
            self.close()
            raise RunFailed(f"Ollama ended in the middle of this cell ({error})", "run the cell again: it starts a new one") from error
        except BaseException:
            self.close()
            raise
        finally:
            client._client.close()

    def rows(self, question: Callable[[Any], Any]) -> Rows:
        """The same; answers of the client as plain rows, for the results file."""
        found = self.ask(question)
        return [plain(one) for one in (found if isinstance(found, list) else [found])]

    def close(self) -> None:
        if self.running:
            self.running.stop()
            self.running = None

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def plain(answer: Any) -> dict[str, Any]:
    """An answer of the official client as a dict that JSON takes; the long token context is left out."""
    found = answer.model_dump(mode="json", exclude_none=True) if hasattr(answer, "model_dump") else dict(answer)
    found.pop("context", None)
    return found


def predicted_bytes(ref: ModelRef, context: int, parallel: int, kv: str = "f16") -> dict[str, int]:
    """Weights, KV cache of all slots, and compute buffers, by labkit's arithmetic (lab 02)."""
    header = inspect.read(ref.path)
    found = footprint.predict(header, context, kv)
    cache = parallel * footprint.kv_cache_bytes(header, context, kv)
    return {"weights_bytes": found.weights_bytes, "kv_cache_bytes": cache, "compute_bytes": found.compute_bytes}


def cache_gigabytes(header: Gguf, context: int, parallel: int, kv: str = "f16") -> float:
    """KV cache of all slots in GB."""
    return parallel * footprint.kv_cache_bytes(header, context, kv) / 1e9


# -- pictures


def draw_stages(rows: Sequence[Mapping[str, Any]], guess: float, caption: str) -> Figure:
    """Where the seconds of each request went, and the learner's guess for the first one's share of loading."""
    fig, ax = plots.figure(caption, width=8.5)
    names = [r["request"] for r in rows]
    parts = {"load the model": "load_s", "read the prompt": "prompt_s", "make the answer": "answer_s"}
    plots.stacked(ax, names, {label: [r[key] for r in rows] for label, key in parts.items()}, "seconds")
    whole = sum(rows[0][key] for key in parts.values())
    ax.plot([-0.4, 0.4], [guess * whole] * 2, color=plots.RED, ls=":", lw=2.5, label="your guess: end of loading")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def draw_memory(rows: Sequence[Mapping[str, Any]], guess: float, caption: str) -> Figure:
    """Predicted and measured memory for each setting; the learner's guess for the last one."""
    fig, ax = plots.figure(caption, width=8.5)
    names = [f"{r['parallel']} × {r['context']:,}" for r in rows]
    measured = [r["measured_bytes"] / 1e6 for r in rows]
    plots.predicted_measured(ax, names, [r["predicted_bytes"] / 1e6 for r in rows], measured, "memory (MB)")
    for tick in ax.get_xticklabels():
        tick.set(rotation=0, ha="center")
    last = len(rows) - 1
    ax.plot([last - 0.45, last + 0.45], [guess, guess], color=plots.RED, ls=":", lw=2, label="your guess for the last")
    ax.set_xlabel("OLLAMA_NUM_PARALLEL × context (tokens)")
    ax.legend(frameon=False, loc="upper left")
    return fig


def draw_parallel(rows: Sequence[Mapping[str, Any]], caption: str) -> Figure:
    """All clients' tokens per second together, and how long the first and the last of them waited for a first token."""
    fig, (left, right) = plots.figure(caption, width=9, columns=2)
    names, at = [str(r["parallel"]) for r in rows], np.arange(len(rows))
    left.bar(at, [r["tokens_per_s"] for r in rows], 0.5, color=plots.BLUE)
    left.set_ylabel(f"tokens/s of {rows[0]['clients']} clients together")
    right.vlines(at, [r["best_ttft_s"] for r in rows], [r["worst_ttft_s"] for r in rows], color="0.6", lw=2)
    right.plot(at, [r["worst_ttft_s"] for r in rows], "v", color=plots.RED, ms=8, label="who waited longest")
    right.plot(at, [r["best_ttft_s"] for r in rows], "o", color=plots.GREEN, ms=8, label="who waited least")
    right.set_ylabel("time to first token (s)")
    right.set_ylim(bottom=0)
    right.legend(frameon=False)
    for ax in (left, right):
        ax.set_xticks(at, names)
        ax.set_xlabel("OLLAMA_NUM_PARALLEL")
        ax.set_xlim(-0.6, len(rows) - 0.4)
    return fig


def draw_sizes(rows: Sequence[Mapping[str, Any]], caption: str) -> Figure:
    """Bytes of the models that Ollama made, in percent of the first."""
    fig, ax = plots.figure(caption)
    made = [r for r in rows if r["bytes"]]
    at = np.arange(len(made))
    ax.bar(at, [r["bytes"] / 1e6 for r in made], 0.6, color=plots.BLUE)
    for x, r in zip(at, made, strict=True):
        ax.annotate(f"{r['bytes'] / made[0]['bytes']:.0%}", (x, r["bytes"] / 1e6), ha="center", va="bottom", fontsize=9)
    ax.set_xticks(at, [r["type"] for r in made])
    ax.set_ylabel("size (MB)")
    return fig


def draw_plan(header: Gguf, context: int, parallel: int, kv: str, caption: str) -> Figure:
    """Computed memory of one model at a setting, in its parts."""
    fig, ax = plots.figure(caption, width=8.5, height=3)
    cache = parallel * footprint.kv_cache_bytes(header, context, kv)
    found = footprint.predict(header, context, kv)
    parts = {"weights": found.weights_bytes, f"KV cache, {parallel} × {context:,} tokens": cache, "compute buffers": found.compute_bytes}
    plots.stacked(ax, [""], {name: [size / 1e9] for name, size in parts.items()}, "memory (GB), computed")
    ax.set_title(f"{sum(parts.values()) / 1e9:.2f} GB, of which the KV cache is {cache / sum(parts.values()):.0%}", fontsize=10)
    return fig
