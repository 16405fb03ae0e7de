"""The three protocols an engine fulfils. Timing, saving and progress live in the caller, never here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from labkit.core.records import Chunk, ModelRef, Request, Usage


@runtime_checkable
class Session(Protocol):
    """A loaded model. One stream at a time; closing a stream's iterator early cancels it.

    The attributes go into every record: `threads` and `load_s` are None where the engine does not say. It may also have
    `refuses`, what of a Request it cannot do and answers with BadInput: "tokens", "prompt", "ignore_eos", "keep_cache".
    """

    model: ModelRef
    engine_name: str
    engine_version: str | None
    threads: int | None
    load_s: float | None

    @property
    def settings(self) -> dict[str, Any]:
        """What the model was loaded with."""
        ...

    def stream(self, request: Request) -> Iterator[Chunk]: ...

    def usage(self) -> Usage:
        """Counts of the last finished stream; None where the engine did not say."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Scorer(Protocol):
    """A session that also gives tokens and logits.

    It may also have `bos`, the token that the model wants in front of a text (None: none), and its `logits` may take
    `start`, the first position whose scores are wanted: what comes before is computed and not given out.
    """

    def tokenize(self, text: str) -> list[int]: ...

    def logits(self, tokens: Sequence[int]) -> Iterator[np.ndarray]:
        """One float32 array [vocabulary] a position: the scores for the token that follows it."""
        ...


@runtime_checkable
class Engine(Protocol):
    """A way to run models. Its module imports without its library."""

    name: str
    formats: frozenset[str]

    def missing(self) -> str | None:
        """None, or one sentence that ends with the install command."""
        ...

    def load(self, model: ModelRef, **options: Any) -> Session:
        """Raises BadInput for a model that it cannot load, MissingPart where its library is not installed."""
        ...
