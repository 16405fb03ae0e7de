"""What lab 11 measures and draws: a service of one's own, its routes, answers at once, and tables of what Foundry Local needs.

`Service` starts Foundry Local's web service when it is first needed, and again when it is gone: a cell that is run again works.
The steps that use the SDK itself are in labkit.learn.foundry_child. Functions return rows (dicts) or figures.

>>> service = Service(lab)
>>> rows = service.step("routes", lambda: foundry_view.route_rows(service))
"""

from __future__ import annotations

import functools
import time
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from labkit import servers
from labkit.core import paths
from labkit.core.errors import MissingPart, RunFailed
from labkit.core.records import ModelRef
from labkit.facts import live
from labkit.learn import plots
from labkit.servers import foundry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from labkit.learn.lab import Lab

Row = dict[str, Any]
PARTS = ("foundry", "onnx", "hf")  # what the lab needs: the SDK, and what converts a GGUF file for it
CLAIMS = ("foundry-config-json", "foundry-npu", "foundry-sla", "foundry-image", "windows-ml", "windows-phi-silica", "vscode-ai-toolkit")
STORY = "The harbour master wrote every ship into a big book. "
LENGTHS = (16, 32, 48, 64)  # output tokens of the four requests that are sent at once
# (method, path, body): what is asked of the service. MODEL and ALIAS stand for the model's id and its alias
ROUTES = (
    ("GET", "/catalogs/local/v1/models", ""), ("POST", "/catalogs/local/v1/chat/completions", "MODEL"),
    ("POST", "/catalogs/local/v1/chat/completions", "ALIAS"), ("POST", "/v1/chat/completions", "MODEL"),
    ("POST", "/catalogs/local/v1/completions", "MODEL"), ("POST", "/catalogs/local/v1/responses", "MODEL"),
    ("GET", "/status", ""), ("GET", "/health", ""), ("GET", "/metrics", ""), ("GET", "/api/metrics", ""),
)  # fmt: skip


class Service:
    """Foundry Local's web service with the lab's model, started at first use. `stop` it at the end of the lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._running: servers.Running | None = None
        self.ready_s: float | None = None  # from the last start until it could answer
        self.model_id = foundry.model_id(lab.parameters["model"] if lab.model is None else lab.model.name)

    @functools.cached_property
    def model(self) -> ModelRef:
        """The model as an ONNX folder; converted at first use, which takes a minute on a new machine."""
        if self.lab.model is None:
            raise MissingPart(self.lab.missing or "the lab is played from its recording")
        return foundry.as_onnx(self.lab.model)

    @property
    def running(self) -> servers.Running:
        """The running service. One that was killed is started again."""
        if self._running is None or not self._running.alive():
            self.stop()
            named = self.model.model_copy(update={"name": self.lab.model.name}) if self.lab.model else self.model
            begin = time.perf_counter()  # the model is converted by now
            self._running = servers.open("foundry").start(named, threads=self.lab.threads)
            self.ready_s = time.perf_counter() - begin
        return self._running

    @property
    def base_url(self) -> str:
        """Where the OpenAI routes of one's own models begin: …/catalogs/local/v1"""
        return self.running.base_url

    def step(self, key: str, function: Callable[[], Sequence[Row]]) -> list[Row]:
        """`lab.step`; where the service ends in the middle, one sentence with the way to go on."""
        return self.lab.step(key, lambda: self._watched(function))

    def _watched(self, function: Callable[[], Sequence[Row]]) -> Sequence[Row]:
        import openai

        try:
            return function()
        except (httpx.TransportError, openai.APIConnectionError) as error:
            raise RunFailed("Foundry Local's service ended in the middle", "run this cell again: it starts a new one") from error

    def stop(self) -> list[Row]:
        """End it. What is left of it: a row each for its process, its port and its folder."""
        running, self._running = self._running, None
        if running is None:
            return []
        running.stop()
        gone = {"process": not running.alive(), "port": not running.healthy(), "folder": not (running.folder and running.folder.exists())}
        return [{"part": part, "left": "nothing" if done else "still there"} for part, done in gone.items()]


@functools.cache
def tables() -> dict[str, list[Row]]:
    """data/foundry.toml: how Foundry Local is installed on each system (`install`), what its providers need (`provider`)."""
    found: dict[str, list[Row]] = tomllib.loads(paths.data("foundry.toml").read_text(encoding="utf-8"))
    return found


def turns(quick: bool = False) -> list[str]:
    """A conversation about a long text, with questions whose answers are short and end by themselves."""
    first = STORY * (10 if quick else 25) + "\nWho wrote the book? Answer in one word."
    return [first, "Was it big?", "Name one ship.", "Thank you."][: 3 if quick else 4]


def route_rows(service: Service) -> list[Row]:
    """What the service answers on each route: status code, and the error where there is one."""
    alias, rows = service.model_id.partition("-generic")[0], []
    root = service.running.url
    for method, path, model in ROUTES:
        name = {"MODEL": service.model_id, "ALIAS": alias}.get(model, "")
        hello = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        body = {"input": "Hello", "max_output_tokens": 16} if path.endswith("/responses") else hello
        answer = httpx.request(method, root + path, json={"model": name, **body} if name else None, timeout=60)
        rows.append({"method": method, "path": path, "model": name, "status": answer.status_code})
    return rows


# -- several at once


def parallel_rows(service: Service, lengths: Sequence[int] = LENGTHS, repeats: int = 2) -> list[Row]:
    """The same requests, of `lengths` output tokens, sent 1, 2 and 4 at a time; the ways in turn, `repeats` times.

    Rows: parallel, repeat, tokens and seconds of each request, tokens_per_s in all.
    The service for it runs with ignore_eos, so that each answer has exactly its length.
    """
    named = service.model.model_copy(update={"name": service.model_id.partition("-generic")[0]})
    rows = []
    with servers.open("foundry").start(named, ignore_eos=True) as running:
        ask = functools.partial(_answer, running.base_url, service.model_id)
        ask(0, 8)  # warm-up
        for repeat in range(repeats):
            for parallel in (1, 2, 4):
                started = time.perf_counter()
                with ThreadPoolExecutor(parallel) as pool:
                    done = list(pool.map(ask, range(len(lengths)), lengths))
                rate = sum(d["tokens"] for d in done) / (time.perf_counter() - started)
                several = {key: [d[key] for d in done] for key in ("tokens", "seconds")}
                rows.append({"parallel": parallel, "repeat": repeat, **several, "tokens_per_s": rate})
    return rows


def _answer(url: str, model: str, number: int, tokens: int) -> Row:
    import openai

    text = f"Tell me a long story about the number {number + 2}."
    started = time.perf_counter()
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], max_tokens=tokens, temperature=0)
    return {"tokens": answer.usage.completion_tokens if answer.usage else 0, "seconds": time.perf_counter() - started}


def shared_finish(alone: Sequence[float]) -> list[float]:
    """When requests that start together are done, if they share one processor equally: `alone` is what each takes by itself.

    While k requests run, each gets 1/k of the speed: the shortest is done after k times its time, and so on.
    """
    order = sorted(range(len(alone)), key=lambda n: alone[n])
    finish, now, before = [0.0] * len(alone), 0.0, 0.0
    for place, n in enumerate(order):
        now += (len(alone) - place) * (alone[n] - before)
        finish[n], before = now, alone[n]
    return finish


def queued_finish(alone: Sequence[float]) -> list[float]:
    """The same, one after another in the order of arrival."""
    return [float(t) for t in np.cumsum(alone)]


def medians(rows: Sequence[Row], parallel: int, key: str = "seconds") -> Any:
    """The median over the repeats, of each request or of the total."""
    return np.median([r[key] for r in rows if r["parallel"] == parallel], axis=0)


# -- what people say


def claim_rows(service: Service) -> list[Row]:
    """What the running service decides, and what this machine decides without it."""
    alias = service.model_id.partition("-generic")[0]
    asked: Row = {"foundry_url": service.running.url, "foundry_ready_s": service.ready_s, "foundry_folder": service.model.path}
    world = live.World(foundry_model=service.model_id, foundry_alias=alias, **asked)
    return list(live.rows([*live.of("foundry"), *CLAIMS], world))


def provider_rows(here: Sequence[Row]) -> list[Row]:
    """The table of providers, with what was found on this machine."""
    found = {row["provider"]: "yes" if row["ready"] else "can be fetched" for row in here}
    keep = ("name", "processor", "maker", "systems", "needs")
    return [
        {key: ", ".join(r[key]) if key == "systems" else r[key] for key in keep} | {"here": found.get(r["name"], "no")}
        for r in tables()["provider"]
    ]


# -- pictures


def draw_session(rows: Sequence[Row], guess_s: float, caption: str) -> Figure:
    """Time to the first token in each turn, in the three ways; the learner's guess for the second turn."""
    fig, ax = plots.figure(caption, width=8)
    ways = list(dict.fromkeys(r["way"] for r in rows))
    for way, colour, mark in zip(ways, (plots.BLUE, plots.ORANGE, plots.GREEN), "os^", strict=False):
        some = [r for r in rows if r["way"] == way]
        ax.plot([r["turn"] for r in some], [r["ttft_s"] for r in some], f"{mark}-", color=colour, label=way)
    ax.plot([1.8, 2.2], [guess_s, guess_s], color=plots.RED, ls=":", lw=2, label="your guess for turn 2")
    ax.set_xticks(sorted({r["turn"] for r in rows}))
    ax.set_xlabel("turn of the conversation")
    ax.set_ylabel("time to first token, s")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, loc="center right")
    return fig


def draw_parallel(rows: Sequence[Row], guess: float, caption: str) -> Figure:
    """Left: tokens per second in all at 1, 2 and 4 at once, with the guess. Right: predicted and measured ends of the four."""
    fig, (left, right) = plots.figure(caption, width=10, columns=2)
    levels = sorted({r["parallel"] for r in rows})
    plots.points(left, {str(n): [r["tokens_per_s"] for r in rows if r["parallel"] == n] for n in levels}, "tokens/s in all")
    left.plot([len(levels) - 1.3, len(levels) - 0.7], [guess, guess], color=plots.RED, ls=":", lw=2, label=f"your guess for {levels[-1]}")
    left.set_ylim(0, max(left.get_ylim()[1], 1.1 * guess))
    left.set_xlabel("requests at a time")
    left.legend(frameon=False, loc="lower right")
    alone = list(medians(rows, 1))
    names = [f"{tokens} tokens" for tokens in rows[-1]["tokens"]]
    plots.predicted_measured(right, names, shared_finish(alone), list(medians(rows, levels[-1])), "done after, s")
    right.set_title("above each pair: predicted / measured", fontsize=9)
    return fig


def draw_disciplines(requests: int, tokens: int, rate: float, caption: str) -> Figure:
    """When each of some equal requests is done: one after another, in equal shares, and in a batch that costs nothing more."""
    alone = [tokens / rate] * requests
    ways = {"one after another": queued_finish(alone), "equal shares": shared_finish(alone), "ideal batch": alone}
    fig, ax = plots.figure(caption, width=8)
    for number, (way, finish) in enumerate(ways.items()):
        at = np.arange(requests) + (number - 1) * 0.26
        ax.bar(at, finish, 0.24, color=plots.COLOURS[number], hatch=("//", "", "..")[number], edgecolor="white", label=way)
    ax.set_xticks(range(requests), [f"request {n + 1}" for n in range(requests)], fontsize=8)
    ax.set_ylabel("done after, s")
    ax.set_title(f"{requests} × {tokens} tokens at {rate:.0f} tokens/s: computed, not measured", fontsize=10)
    ax.legend(frameon=False, loc="upper left")
    ax.margins(y=0.35)
    return fig
