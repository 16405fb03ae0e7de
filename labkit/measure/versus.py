"""A fair comparison of several engines on one model: the same prompt to the byte, the same sampling, the same counts, in turn.

What makes it fair is checked, not hoped for. The prompt's text is made once, from the GGUF file's own chat template, and
every engine must be given that text: engines that take text or token ids get it as it is, one that takes messages must say
what it makes of them. Counted prompt tokens and output tokens must agree too. Where anything differs, the comparison is
refused with the difference. Sampling is greedy everywhere, one warm-up goes ahead, engines run in turn and the order is
reversed every other round (A B C, C B A, …). Each record's settings say `includes_http`, its `round` and its `turn`.

Every prompt begins with words of its own, so that no cache of earlier prompts helps: `shared_tokens` is what is left.

>>> with versus.opened(models.resolve("smollm2-135m"), ["llamacpp", "openai"], threads=1) as ring:
...     found = versus.compare(ring, versus.prompts(ring, 6), max_tokens=24)
>>> versus.figures(found)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from labkit import engines, servers
from labkit.core.errors import BadInput
from labkit.core.records import Measurement, Message, ModelRef, Request
from labkit.engines import templates
from labkit.measure import clock

REFERENCE = "llamacpp"  # its tokenizer counts, its greedy text is what the others are held against
_DROP = "leave that engine out: -p engines llamacpp,…"


class Way(NamedTuple):
    """How an engine is handed a prompt, whether what is measured passes through HTTP, and where it is told to go on past the
    end of a text: in a request, when it is loaded, or nowhere (then its answers must be long enough by themselves).

    load: options of its own. server: the one that can be told how many requests to answer at once. joins: what a further
    session on the same server must be told.
    """

    takes: Literal["tokens", "prompt", "messages"]
    includes_http: bool
    ignore_eos: Literal["request", "load", "never"] = "request"
    load: tuple[tuple[str, Any], ...] = ()
    server: str | None = None
    joins: tuple[str, ...] = ()


# the one table; an engine that is not in it is compared as one that takes text over HTTP
WAYS = {
    "llamacpp": Way("tokens", includes_http=False),
    "ortgenai": Way("tokens", includes_http=False),
    "openai": Way("prompt", includes_http=True, server="llama_server"),
    # a server of its own, so that nobody else's settings and models are in the comparison
    "ollama": Way("prompt", True, "never", (("own", True),), "ollama", ("threads", "context")),
    "foundry": Way("messages", True, "load", (("ignore_eos", True),)),
}
TOPICS = (
    "the sea", "a long journey by train", "the work of a baker", "how a bridge is built", "a garden in spring", "the history of paper",
    "a city at night", "how bees live", "learning to swim", "the seasons of the year", "a market day", "the life of a river",
)  # fmt: skip


class Prompt(NamedTuple):
    """One prompt in its three forms: messages, the text that the template makes of them, and that text's token ids."""

    messages: tuple[Message, ...]
    text: str
    tokens: tuple[int, ...]


class Contender(NamedTuple):
    """An engine in the comparison: a loaded session, and how it is asked."""

    name: str
    session: Any
    way: Way

    def request(self, prompt: Prompt, max_tokens: int) -> Request:
        """The same prompt in the form that this engine takes; greedy, and past the end of text where the engine can."""
        given: dict[str, Any] = {self.way.takes: getattr(prompt, "text" if self.way.takes == "prompt" else self.way.takes)}
        return Request(**given, max_tokens=max_tokens, temperature=0.0, ignore_eos=self.way.ignore_eos == "request")

    def sees(self, prompt: Prompt) -> str | None:
        """The text that the model is given, as far as the engine can say: None where it cannot."""
        if self.way.takes == "prompt":
            return prompt.text
        if self.way.takes == "messages":
            own = getattr(self.session, "chat_prompt", None)
            return own(prompt.messages) if own else _folder_text(self.session.model.path, prompt.messages)
        back = getattr(self.session, "detokenize", None)
        return back(prompt.tokens, special=True) if back else None


def _folder_text(folder: Path, messages: Sequence[Message]) -> str | None:
    """What the chat template in a model's folder makes of messages; None where there is none."""
    apart, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    told = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    template = apart.read_text(encoding="utf-8") if apart.is_file() else told.get("chat_template")
    if not isinstance(template, str):
        return None
    bos, eos = (t.get("content", "") if isinstance(t := told.get(key) or "", dict) else t for key in ("bos_token", "eos_token"))
    return templates.render(template, messages, bos, eos)


class Ring(NamedTuple):
    """Those who compete, by name, and the session of llama.cpp whose template and tokenizer make the prompts."""

    contenders: dict[str, Contender]
    reference: Any
    limits: dict[str, Any]  # threads and context, the same for all


@contextmanager
def opened(model: ModelRef, names: Sequence[str], threads: int, context: int = 1024, slots: int = 1) -> Iterator[Ring]:
    """Load the model in each engine; all are closed at the end, whatever happens. `slots`: requests that a server takes at once.

    Raises: BadInput for names that are unknown, twice or none; what `load` of an engine raises.
    """
    if not names or len(set(names)) < len(names):
        raise BadInput("name each engine to compare once", "-p engines llamacpp,ollama")
    limits = {"threads": threads, "context": context}
    with ExitStack() as stack:

        def load(name: str) -> Any:
            options = load_options(name, threads, context)
            if slots > 1 and (server := _way(name).server):
                running = stack.enter_context(servers.open(server).start(model, parallel=slots, **limits))
                options = {"url": running.base_url} | {key: limits[key] for key in _way(name).joins}
            session = engines.open(name).load(model, **options)
            stack.callback(session.close)
            return session

        reference = load(REFERENCE)
        chosen = {name: reference if name == REFERENCE else load(name) for name in names}
        yield Ring({name: contender(name, session) for name, session in chosen.items()}, reference, limits)


def load_options(name: str, threads: int, context: int) -> dict[str, Any]:
    """The same threads and context for every engine, and options of its own that make it comparable."""
    return {"threads": threads, "context": context} | dict(_way(name).load)


def _way(name: str) -> Way:
    return WAYS.get(name, Way("prompt", includes_http=True))


def contender(name: str, session: Any) -> Contender:
    """A loaded session as a competitor."""
    return Contender(name, session, _way(name))


def prompts(ring: Ring, count: int, seed: int = 1, first: int = 0) -> list[Prompt]:
    """`count` prompts that differ from their first words on; another `first` gives others.

    Raises: BadInput for a model without a vocabulary, whose prompts cannot be the same text for all.
    """
    session = ring.reference
    if not session.has_vocabulary:
        raise BadInput(f"{session.model.name} has no vocabulary, so its engines cannot be given the same text", "labkit models")
    rng = np.random.default_rng([seed, first])
    made = []
    for number in range(count):
        topic, salt = TOPICS[int(rng.integers(len(TOPICS)))], int(rng.integers(100_000, 1_000_000))
        system = f"{salt + number} is the number of this conversation. You tell long stories, with many details, and never stop early."
        request = Request.chat(f"Tell me everything that you know about {topic}. Begin at the very beginning.", system=system)
        text = session.chat_prompt(request.messages)
        made.append(Prompt(request.messages or (), text, tuple(session.tokenize(text, special=True))))
    return made


def shared_tokens(some: Sequence[Prompt]) -> int:
    """With how many tokens do all these prompts begin? More than that no prefix cache can have saved."""
    same = 0
    for column in zip(*(prompt.tokens for prompt in some), strict=False):
        if len(set(column)) > 1:
            break
        same += 1
    return same


def check_text(ring: Ring, some: Sequence[Prompt]) -> list[dict[str, Any]]:
    """One row an engine: how it takes a prompt, and that it sees the same bytes. Raises BadInput with the first difference."""
    for one in ring.contenders.values():
        for prompt in some:
            seen = one.sees(prompt)
            if seen is None:
                raise BadInput(f"{one.name} takes messages and does not say what text it makes of them: that is no fair comparison", _DROP)
            at = first_difference(prompt.text.encode(), seen.encode())
            if at is not None:
                ours, theirs = prompt.text.encode()[at : at + 16], seen.encode()[at : at + 16]
                raise BadInput(f"{one.name}'s prompt differs from byte {at} on: {theirs!r} instead of {ours!r}", _DROP)
    rows = ring.contenders.values()
    return [{"engine": c.name, "takes": c.way.takes, "includes_http": c.way.includes_http, "prompts": len(some)} for c in rows]


def first_difference(a: bytes, b: bytes) -> int | None:
    """Position of the first byte in which two texts differ; None where they are equal."""
    if a == b:
        return None
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def check_counts(name: str, found: Measurement, prompt: Prompt, max_tokens: int) -> None:
    """Raises BadInput where an engine counted other prompt tokens or output tokens than it was given and asked for."""
    if found.prompt_tokens != len(prompt.tokens):
        given = f"the prompt has {len(prompt.tokens)} tokens"
        raise BadInput(f"{given}, and {name} counts {found.prompt_tokens}: it does not read the same", _DROP)
    if found.output_tokens != max_tokens:
        raise BadInput(f"{name} gave {found.output_tokens} tokens of {max_tokens}: shorter answers cannot be compared", "fewer max_tokens")


def compare(ring: Ring, some: Sequence[Prompt], max_tokens: int = 24, progress: bool = True) -> list[Measurement]:
    """Every engine on every prompt, in turn; the first prompt is the warm-up. Records in the order in which they ran.

    Raises: BadInput where the engines are not asked the same, or do not answer equally long; RunFailed where one fails.
    """
    if len(some) < 2:
        raise BadInput("it takes a prompt to warm up and one to measure", "give at least two prompts")
    check_text(ring, some)
    shared = shared_tokens(some)

    def case(one: Contender) -> Callable[[], Measurement]:
        rounds = iter(enumerate(some))

        def measure() -> Measurement:
            number, prompt = next(rounds)
            found = clock.one(one.session, one.request(prompt, max_tokens))
            check_counts(one.name, found, prompt, max_tokens)
            return labelled(found, one, round=number, shared_tokens=shared)

        return measure

    cases = {name: case(one) for name, one in ring.contenders.items()}
    by_name = clock.ab(cases, repeats=len(some) - 1, warmup=1, progress=progress)
    in_order = sorted((m for found in by_name.values() for m in found), key=lambda m: m.marks_ns.start)
    return [m.model_copy(update={"settings": m.settings | {"turn": turn}}) for turn, m in enumerate(in_order)]


def labelled(found: Measurement, one: Contender, **more: Any) -> Measurement:
    """The record under the engine's name in this comparison, saying whether HTTP is in its times."""
    settings = found.settings | {"includes_http": one.way.includes_http, "takes": one.way.takes} | more
    return found.model_copy(update={"engine": one.name, "settings": settings})


def figures(found: Sequence[Measurement]) -> list[dict[str, Any]]:
    """One row an engine: median and 95 % interval of TTFT, TPOT, decode and prefill rate, and the text against llama.cpp's.

    `prefill_tokens_per_s` is (prompt tokens - shared ones) / TTFT for all alike: not every engine says what came from its
    cache, and no more than the tokens with which all prompts begin can have. `same_text` is the mean share of the answer's characters
    that are the same as llama.cpp's from the beginning on; None without llama.cpp.
    """
    rows = []
    for name in dict.fromkeys(m.engine for m in found):
        mine = [m for m in found if m.engine == name]
        row: dict[str, Any] = {"engine": name, "includes_http": mine[0].settings["includes_http"], "repeats": len(mine)}
        for key in ("ttft_s", "tpot_s", "decode_tokens_per_s"):
            row |= _interval(key, [getattr(m, key) for m in mine])
        row |= _interval("prefill_tokens_per_s", [_prefill(m) for m in mine])
        row |= {"prompt_tokens": sum(m.prompt_tokens or 0 for m in mine), "output_tokens": sum(m.output_tokens or 0 for m in mine)}
        rows.append(row | {"same_text": _same_text(mine, [m for m in found if m.engine == REFERENCE])})
    return rows


def _prefill(m: Measurement) -> float | None:
    return (m.prompt_tokens - m.settings.get("shared_tokens", 0)) / m.ttft_s if m.prompt_tokens and m.ttft_s else None


def _interval(key: str, values: Sequence[float | None]) -> dict[str, float | None]:
    found = clock.spread(values)
    low, middle, high = (found.low, found.median, found.high) if found else (None, None, None)
    return {key: middle, f"{key}_low": low, f"{key}_high": high}


def _same_text(mine: Sequence[Measurement], reference: Sequence[Measurement]) -> float | None:
    """Mean over the rounds of: characters until the first difference / characters of the longer text."""
    theirs = {m.settings["round"]: m.text for m in reference}
    shares = []
    for m in mine:
        other = theirs.get(m.settings["round"])
        if other is not None:
            longest = max(len(m.text), len(other), 1)
            same = next((i for i, (a, b) in enumerate(zip(m.text, other, strict=False)) if a != b), min(len(m.text), len(other)))
            shares.append(1.0 if m.text == other else same / longest)
    return float(np.mean(shares)) if shares else None
