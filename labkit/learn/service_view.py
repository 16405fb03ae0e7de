"""What lab 17 starts: a Desk with the naive service and the correct one, on the same model.

A Desk starts a service at its first question and again when it has ended, and stops both whatever happens: a cell can always
be run again. The questions are in service_probes.py and service_rows.py, the pictures in service_plots.py.

>>> with Desk(models.resolve("smollm2-135m")) as desk:
...     desk.site("naive").get("/health").json()
{'status': 'healthy'}
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from labkit import servers
from labkit.core import extras, paths
from labkit.core.errors import BadInput, MissingPart, RunFailed, nearest
from labkit.core.records import ModelRef
from labkit.engines.hf_text import HfText
from labkit.learn.service_asking import Site
from labkit.servers import Running, naive_onnx

Rows = Sequence[dict[str, Any]]
PARTS = ("onnx",)  # what the lab needs
KINDS = ("naive", "correct")
RECIPE = "int4-shared"  # the correct service's own choice: both have the same folder


def source(name: str) -> Path:
    """A file of the stack that the lab is about."""
    return paths.labs("stacks", "onnx", name)


class Desk:
    """The lab's two services and what is known of them; a context manager, or `close` it.

    model: as the lab has it (a GGUF file is converted once, into the cache); None: only a recording is played.
    """

    def __init__(
        self, model: ModelRef | None, threads: int | None = None, context: int = 1024, parallel: int = 2, queue_length: int = 4
    ) -> None:
        self._given = model
        self.limits: dict[str, Any] = {"context": context, "parallel": parallel, "queue_length": queue_length}
        # what the correct service is told; 20 s, so that a slow machine too finishes an answer after SIGTERM
        self.options = self.limits | {"drain_seconds": 20.0} | ({"threads": threads} if threads else {})
        self._sites: dict[str, Site] = {}

    @functools.cached_property
    def model(self) -> ModelRef:
        """The model as an ONNX folder, under the lab's own name for it."""
        if self._given is None:
            raise MissingPart("this lab plays its recording: there is no model", extras.install("onnx"))
        if self._given.format == "onnx-genai":
            return self._given
        from labkit.quant import onnx

        return onnx.convert(self._given, RECIPE).model_copy(update={"name": self._given.name})

    @functools.cached_property
    def text(self) -> HfText:
        """The model's own tokenizer, to count with."""
        return HfText(self.model.path)

    def launch(self, kind: str, folder: Path | None = None, **more: Any) -> Running:
        """One more process of a kind, not waited for. `folder`: another model folder. Whoever asks for it stops it."""
        model = self.model.model_copy(update={"path": folder}) if folder else self.model
        if kind == "naive":
            return naive_onnx.SERVER.launch(model)
        if kind != "correct":
            raise BadInput(f"no service named {kind!r} ({nearest(kind, KINDS)})", "naive or correct")
        return servers.open("onnx").launch(model, **(self.options | more))

    def site(self, kind: str) -> Site:
        """The running service of that kind; a new one where it has ended."""
        site = self._sites.get(kind)
        if site is None or not site.running.alive():
            if site:
                site.running.stop()
            self._sites[kind] = site = self.open(kind)
        return site

    def open(self, kind: str, **more: Any) -> Site:
        """A service of that kind that can answer; whoever asks for it stops it."""
        running = self.launch(kind, **more)
        running.wait(120)
        known = {key: more.get(key, value) for key, value in self.limits.items()}
        return Site(kind, running, self.text, self.model.name, folder=self.model.path, again=functools.partial(self.launch, kind), **known)

    def rows(self, question: Callable[[], Rows]) -> Rows:
        """`question()`; where a service ends in the middle, one sentence with the way to go on; after an error both are stopped."""
        try:
            return question()
        except httpx.TransportError as error:
            self.close()
            raise RunFailed(f"a service ended in the middle of this cell ({error})", "run the cell again: it starts a new one") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        while self._sites:
            self._sites.popitem()[1].running.stop()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
