"""One request's tokens: prompt in, pieces of text out. The token loop is `Generation.turn`, called once per turn.

What is easy to get wrong, and is right here:
- a character may be spread over several tokens (an emoji is four bytes, in up to four tokens): text is given out in whole characters only;
- a stop string may begin in one token and end in another: text that could be its beginning is held back;
- the token that ends a text is counted in no one's answer, and its text is not shown.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

HOLE = "\ufffd"  # what a tokenizer writes for bytes that are no whole character
_LONGEST = 8  # tokens to wait for the rest of a character; then the bytes were broken, and are shown as such
_COLD = 1e-3  # below this temperature (or top_p) the most likely token wins anyway, and dividing by it would overflow


class Detokenizer:
    """Token ids to text, piece by piece. Some tokenizers write a token differently at the start of a text, so each piece is
    the difference between two decodings that begin at the same token."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._from = self._shown = 0  # where the decoding begins, and up to where its text was given out

    def push(self, token: int) -> str:
        self._ids.append(token)
        return self._new(wait=len(self._ids) - self._shown < _LONGEST)

    def flush(self) -> str:
        """What is left at the end: part of a character, shown as a replacement mark."""
        return self._new(wait=False) if self._shown < len(self._ids) else ""

    def _new(self, wait: bool) -> str:
        before = self._decode(self._ids[self._from : self._shown]) if self._shown > self._from else ""
        after = self._decode(self._ids[self._from :])
        if wait and after.endswith(HOLE):
            return ""
        self._from, self._shown = self._shown, len(self._ids)
        return after[len(before) :]


class StopStrings:
    """Cuts a text before the first stop string in it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held = [one for one in stops if one], ""

    def push(self, piece: str) -> tuple[str, bool]:
        """(text that is safe to show, did a stop string end it?)."""
        text = self._held + piece
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)], True
        keep = max((n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


@dataclass(frozen=True)
class Asked:
    """A request as the engine takes it: ids, and how to draw the next one. temperature 0: always the most likely."""

    tokens: list[int]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def search_options(self) -> dict[str, Any]:
        """In onnxruntime-genai's words. max_length also fixes the size of the KV cache: this request's, no more."""
        length = {"max_length": len(self.tokens) + self.max_tokens}
        if self.temperature < _COLD or self.top_p < _COLD:
            return length | {"do_sample": False}
        seed = secrets.randbelow(2**31) if self.seed is None else self.seed & 0x7FFFFFFF
        return length | {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0, "random_seed": seed}


class Generation:
    """A request in progress: its generator of onnxruntime-genai, which holds its KV cache."""

    def __init__(self, asked: Asked, library: Any, model: Any, tokenizer: Any, ends: set[int], hidden: set[int]) -> None:
        params = library.GeneratorParams(model)
        params.set_search_options(**asked.search_options())
        self._generator = library.Generator(model, params)
        self._asked, self._ends, self._hidden = asked, ends, hidden
        self._text = Detokenizer(lambda ids: str(tokenizer.decode(np.array(ids, np.int32))))
        self._stops = StopStrings(asked.stop)
        self._read = 0  # prompt tokens computed so far
        self.output_tokens = 0
        self.reason: str | None = None  # why it ended: stop, length; None: it goes on

    def turn(self, chunk: int) -> Iterator[str]:
        """Compute a piece of the prompt, or one token of the answer; yields new text, if any."""
        if self._read < len(self._asked.tokens):
            piece = self._asked.tokens[self._read : self._read + chunk]
            self._generator.append_tokens(np.array(piece, np.int32))
            self._read += len(piece)
            return
        self._generator.generate_next_token()
        token = int(self._generator.get_next_tokens()[0])
        if token in self._ends and not self._asked.ignore_eos:
            yield from self._end("stop")
            return
        self.output_tokens += 1
        text, stopped = self._stops.push("" if token in self._hidden else self._text.push(token))
        if text:
            yield text
        if stopped:
            self.reason = "stop"
        elif self.output_tokens >= self._asked.max_tokens:
            yield from self._end("length")

    def _end(self, reason: str) -> Iterator[str]:
        """Give out what was held back; the rest of a character may still complete a stop string."""
        text, stopped = self._stops.push(self._text.flush())
        self.reason = "stop" if stopped else reason
        if text := text + self._stops.flush():
            yield text
