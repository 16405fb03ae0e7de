"""The engine: a process that owns the model. It reads requests and writes events, one JSON object a line.

In (stdin):   {"op": "submit", "id": 7, "messages": [...] or "prompt": "..." or "tokens": [...], "max_tokens": 64, ...}
              {"op": "cancel", "id": 7}
Out (stdout): {"event": "loaded", "context": 2048}   then, when one token was made for a try:   {"event": "ready"}
              {"id": 7, "event": "refused", "message": ..., "code": ...}                        or, in this order:
              {"id": 7, "event": "accepted", "prompt_tokens": 12}, "started", "text" ..., "done" (reason, output_tokens) or "failed"

Several requests are answered in turns: each turn is one token of one request, or a piece of its prompt. It ends with its stdin:
so it never outlives the process that started it, however that one ended.

    echo '{"op": "submit", "id": 1, "prompt": "Once", "max_tokens": 5}' | python -m service.engine --model FOLDER
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections import deque
from typing import Any

from service.decode import Asked, Generation
from service.settings import Settings, parse

Event = dict[str, Any]


class Refused(Exception):
    """A request that cannot be answered as it is; `code` is the machine's word for it."""

    def __init__(self, message: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.code = code


class Engine:
    """The model, those who wait for it, and those whose turn it is."""

    def __init__(self, settings: Settings) -> None:
        import onnxruntime_genai

        self.settings, self._library = settings, onnxruntime_genai
        told = json.loads((settings.model / "genai_config.json").read_text(encoding="utf-8"))["model"]
        ends = told["eos_token_id"]
        self._ends = set(ends) if isinstance(ends, list) else {ends}
        self.context, self._vocabulary = min(settings.context, int(told["context_length"])), int(told["vocab_size"])
        words = json.loads((settings.model / "tokenizer.json").read_text(encoding="utf-8"))
        self._hidden = {one["id"] for one in words.get("added_tokens", []) if one.get("special")}
        self._start = _start(words.get("post_processor"))
        self._has_template = _has_template(settings)
        config = onnxruntime_genai.Config(str(settings.model))
        # waiting threads sleep: spinning ones halve the speed of a busy machine. -1: no token ends a text, the token loop watches for it
        session = {"intra_op_num_threads": settings.threads or _cores(), "session.intra_op.allow_spinning": "0"}
        config.overlay(json.dumps({"model": {"eos_token_id": -1, "decoder": {"session_options": session}}}))
        self._model = onnxruntime_genai.Model(config)
        self._tokenizer = onnxruntime_genai.Tokenizer(self._model)
        self._waiting: deque[tuple[int, Asked]] = deque()
        self._active: dict[int, Generation] = {}

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._active

    def try_one(self) -> None:
        """One token, to see that the model can: a graph may load and still fail at its first step."""
        trial = self._generation(Asked([min(self._ends)], max_tokens=1, temperature=0, ignore_eos=True))
        while trial.reason is None:
            for _ in trial.turn(1):
                pass

    def take(self, command: Event) -> list[Event]:
        number = command["id"]
        if command["op"] == "cancel":
            self._active.pop(number, None)  # its generator, and the KV cache in it, go at once
            self._waiting = deque(one for one in self._waiting if one[0] != number)
            return []
        try:
            asked = self._asked(command)
        except Refused as why:
            return [{"id": number, "event": "refused", "message": str(why), "code": why.code}]
        except (RuntimeError, TypeError, ValueError) as error:  # of the tokenizer: one request's trouble, not everybody's
            return [{"id": number, "event": "failed", "message": _short(error)}]
        self._waiting.append((number, asked))
        return [{"id": number, "event": "accepted", "prompt_tokens": len(asked.tokens)}]

    def turn(self, number: int) -> list[Event]:
        """One turn of one request. A failure of the library ends this request and no other."""
        generation = self._active[number]
        events: list[Event] = []
        try:
            events = [{"id": number, "event": "text", "text": text} for text in generation.turn(self.settings.prefill_chunk)]
        except RuntimeError as error:
            del self._active[number]
            return [{"id": number, "event": "failed", "message": _short(error)}]
        if generation.reason is not None:
            del self._active[number]
            events.append({"id": number, "event": "done", "reason": generation.reason, "output_tokens": generation.output_tokens})
        return events

    def admit(self) -> list[Event]:
        """Let those who wait in, as long as there is room."""
        events = []
        while self._waiting and len(self._active) < self.settings.parallel:
            number, asked = self._waiting.popleft()
            try:
                self._active[number] = self._generation(asked)
                events.append({"id": number, "event": "started"})
            except RuntimeError as error:
                events.append({"id": number, "event": "failed", "message": _short(error)})
        return events

    def active(self) -> list[int]:
        return list(self._active)

    def _generation(self, asked: Asked) -> Generation:
        return Generation(asked, self._library, self._model, self._tokenizer, self._ends, self._hidden)

    # -- what was asked, in token ids

    def _asked(self, command: Event) -> Asked:
        tokens = self._tokens(command)
        if not tokens:
            raise Refused("the prompt is empty")
        room = self.context - len(tokens)
        wanted = command.get("max_tokens")
        if room < 1 or (wanted is not None and wanted > room):
            more = f" and max_tokens {wanted} more" if wanted is not None else ""
            why = f"the context holds {self.context} tokens; the prompt has {len(tokens)}{more}"
            raise Refused(why, "context_length_exceeded")
        how = {key: command[key] for key in ("temperature", "top_p", "seed", "ignore_eos") if command.get(key) is not None}
        return Asked(tokens, max_tokens=room if wanted is None else wanted, stop=tuple(command.get("stop") or ()), **how)

    def _tokens(self, command: Event) -> list[int]:
        if command.get("tokens") is not None:
            bad = [one for one in command["tokens"] if not 0 <= one < self._vocabulary]
            if bad:
                raise Refused(f"token {bad[0]} is outside the vocabulary of {self._vocabulary}")
            return list(command["tokens"])
        text = command.get("prompt")
        if text is None:
            text = self._chat(command["messages"])
        tokens = [int(token) for token in self._tokenizer.encode(text)]
        # the library leaves out the token that some models want in front of every text; a chat template may have written it
        return tokens if self._start is None or tokens[:1] == [self._start] else [self._start, *tokens]

    def _chat(self, messages: list[dict[str, str]]) -> str:
        """The text that the model sees, by its own chat template; plain texts one after another where it has none."""
        if not self._has_template:
            return "\n\n".join(one["content"] for one in messages)
        try:
            return str(self._tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True))
        except RuntimeError as error:
            raise Refused(f"the model's chat template refuses these messages: {_short(error)}") from error


def _start(processor: dict[str, Any] | None) -> int | None:
    """The token that tokenizer.json puts in front of a text; None where it puts none."""
    for one in (processor or {}).get("processors", [processor]):
        if one and one.get("type") == "TemplateProcessing" and "SpecialToken" in one["single"][0]:
            return int(one["special_tokens"][one["single"][0]["SpecialToken"]["id"]]["ids"][0])
    return None


def _cores() -> int:
    """Those that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_template(settings: Settings) -> bool:
    about = settings.model / "tokenizer_config.json"
    told = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    return bool(told.get("chat_template")) or (settings.model / "chat_template.jinja").is_file()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _commands(into: queue.SimpleQueue[Event]) -> None:
    for line in sys.stdin:
        into.put(json.loads(line))
    os._exit(0)  # the front is gone: there is no one left to answer


def main(settings: Settings) -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # Ctrl-C reaches both processes: the front decides, running answers finish
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not come between the events

    def say(*events: Event) -> None:
        for event in events:
            out.write(json.dumps(event) + "\n")
        out.flush()

    commands: queue.SimpleQueue[Event] = queue.SimpleQueue()
    threading.Thread(target=_commands, args=(commands,), daemon=True).start()
    engine = Engine(settings)
    say({"event": "loaded", "context": engine.context})
    engine.try_one()
    say({"event": "ready"})
    while True:
        while engine.idle or not commands.empty():
            say(*engine.take(commands.get()))
        say(*engine.admit())
        for number in engine.active():
            while not commands.empty():  # between any two turns, so that a cancelled request costs nothing more
                say(*engine.take(commands.get()))
            if number in engine.active():
                say(*engine.turn(number))


if __name__ == "__main__":
    main(parse())
