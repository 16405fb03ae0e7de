"""How good is a model, and how much did a smaller file lose? Perplexity, KL divergence, agreement, multiple choice.

**Perplexity** is exp(mean surprise) over the tokens of a text, surprise being -ln p(token | what came before): 20 means
as unsure as a fair choice among 20 tokens. Convention of llama.cpp's llama-perplexity, so that figures compare: the
text is tokenized with the model's first token (BOS) in front where it wants one, cut into whole windows of `context`
tokens, each window's first token replaced by BOS where the model wants one, and the last context/2 - 1 predictions of a
window scored. The standard error treats predictions as independent: perplexity x sqrt(var(surprise) / (n - 1)).

**KL divergence** of a model from a reference is the mean over the same positions of sum p_ref ln(p_ref / p), in nats: 0
where both say the same. It sees every change, also where the change happens to help. **Top-1 agreement** is the share
of positions at which both put the same token first.

Works with any session that is a Scorer. Memory stays bounded: scores are taken in blocks, two models go in step.

>>> evaluate(models.resolve("stdlib-10m"), tokens=2048).perplexity
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from labkit import engines
from labkit.core import paths
from labkit.core.errors import BadInput, RunFailed
from labkit.core.records import ModelRef, Record
from labkit.engines import Scorer
from labkit.measure import logits
from labkit.measure.choices import accuracy, choices, wilson
from labkit.models import catalog, footprint, inspect

__all__ = [
    "Quality",
    "Scores",
    "accuracy",
    "choices",
    "evaluate",
    "kept",
    "live",
    "opened",
    "score",
    "summary",
    "text_for",
    "wilson",
    "windows",
]

_UBATCH_VALUES = 1 << 24  # scores that the engine holds at once: 64 MB in float32
Source = Callable[[int], Iterator[np.ndarray]]  # window number -> blocks of its scored logits, float32 [positions, vocabulary]


class Quality(Record):
    """`tokens` were read, in whole windows, and `scored_tokens` of them predicted; the last three need a reference."""

    perplexity: float
    perplexity_stderr: float
    tokens: int
    scored_tokens: int
    kl_mean: float | None = None
    kl_stderr: float | None = None
    top1_agreement: float | None = None


class Scores(NamedTuple):
    """One value a scored position: surprise in nats, and against a reference KL in nats and 'same first choice?'."""

    nll: np.ndarray
    kl: np.ndarray | None
    same_top: np.ndarray | None


def evaluate(
    model: ModelRef,
    text: str | None = None,
    tokens: int = 2000,
    context: int = 512,
    against: ModelRef | None = None,
    threads: int | None = None,
    engine: str = "llamacpp",
    progress: bool = True,
) -> Quality:
    """Perplexity of a model on a text (None: the one that suits it), with `against` also what changed from that reference.

    `tokens` of the text are read, in whole windows of `context`; fewer where the text is shorter.

    Raises:
        BadInput: less than a window of text, a context longer than the model's, a model without a vocabulary, a
            reference with another vocabulary, an engine that gives no scores.
    """
    text = text_for(model) if text is None else text
    with opened(model, context, threads, engine) as session:
        cut = windows(session, text, tokens, context)
        if against is None:
            return summary(score(live(session, cut), cut, desc=model.name, progress=progress), cut)
        with opened(against, context, threads, engine) as reference:
            if windows(reference, text, tokens, context) != cut:
                raise BadInput(f"{model.name} and {against.name} have different vocabularies", "compare two files of one model")
            return summary(score(live(session, cut), cut, live(reference, cut), model.name, progress), cut)


@contextmanager
def opened(model: ModelRef, context: int, threads: int | None = None, engine: str = "llamacpp") -> Iterator[Any]:
    """A session that can score, loaded for windows of `context` and closed at the end. Raises BadInput as `evaluate` does."""
    if context < 32:
        raise BadInput(f"a window of {context} tokens is too short", "--context 512")
    options: dict[str, Any] = {"threads": threads} if threads else {}
    if model.format == "gguf":
        header = inspect.read(model.path)
        longest, width = header.value("context_length"), footprint.vocabulary(header)
        if not header.has_vocabulary:
            raise BadInput(f"{model.name} has no vocabulary, so its perplexity means nothing", "give a model with its tokenizer")
        if header.architecture.endswith("bert"):
            raise BadInput(f"{model.name} is an embedding model: it predicts no next token", "labkit models")
        if isinstance(longest, int) and context > longest:
            raise BadInput(f"{model.name} reads at most {longest} tokens, --context is {context}", f"--context {longest}")
        if engine == "llamacpp":
            options["ubatch"] = 1 << max(5, min(9, (_UBATCH_VALUES // max(width, 1)).bit_length() - 1))
    chosen = engines.open(engine)
    unable = BadInput(f"engine {engine} gives no scores of all tokens, which perplexity needs", "--engine llamacpp")
    if "endpoint" in chosen.formats:  # said before a server is started for nothing
        raise unable
    with closing(chosen.load(model, context=context, **options)) as session:
        if not isinstance(session, Scorer):
            raise unable
        yield session


def text_for(model: ModelRef) -> str:
    """The evaluation text that suits a model: its catalogue row's, also for files made from it (`stdlib-10m-Q4_0`)."""
    rows = [row for name, row in catalog.load().items() if model.name == name or model.name.startswith(name + "-")]
    file = max(rows, key=lambda row: len(row.name)).text if rows else "opticks.txt"
    return paths.data("evaluation", file).read_text(encoding="utf-8")


def windows(session: Any, text: str, tokens: int, context: int) -> list[list[int]]:
    """The token ids of the windows that are read. Raises BadInput for less than one."""
    bos = getattr(session, "bos", None)
    ids = ([] if bos is None else [bos]) + list(session.tokenize(text))
    count = min(tokens, len(ids)) // context
    if not count:
        why = f"the text has {len(ids)} tokens" if len(ids) <= tokens else f"{tokens} tokens are asked for"
        raise BadInput(f"{why}, a window has {context}", "a longer --text, more --tokens or a smaller --context")
    cut = [ids[n * context : (n + 1) * context] for n in range(count)]
    return [[bos, *window[1:]] for window in cut] if bos is not None else cut


def live(session: Any, cut: Sequence[Sequence[int]]) -> Source:
    """Logits as a session computes them."""

    def blocks(number: int) -> Iterator[np.ndarray]:
        window = cut[number]
        return logits.blocks(session, window[:-1], start=len(window) // 2)

    return blocks


@contextmanager
def kept(source: Source, cut: Sequence[Sequence[int]], vocabulary: int, desc: str = "", progress: bool = True) -> Iterator[Source]:
    """The same logits, computed once and kept in a temporary file: a reference for many. Raises BadInput without space for it."""
    rows = [len(window) - 1 - len(window) // 2 for window in cut]
    folder, need = paths.cache("ladder"), 4 * vocabulary * sum(rows)
    paths.check_room(folder, need, "the file of the reference's scores", "fewer --tokens")
    with tempfile.TemporaryFile(dir=folder) as file:
        for number in tqdm(range(len(cut)), desc=desc, unit="window", leave=False, disable=not progress):
            for block in source(number):
                file.write(np.ascontiguousarray(block, np.float32).tobytes())
        file.flush()

        def blocks(number: int) -> Iterator[np.ndarray]:
            at, step = sum(rows[:number]), logits.rows(vocabulary)
            for first in range(0, rows[number], step):
                take = min(step, rows[number] - first)
                file.seek(4 * vocabulary * (at + first))
                yield np.frombuffer(file.read(4 * vocabulary * take), np.float32).reshape(take, vocabulary)

        yield blocks


def score(model: Source, cut: Sequence[Sequence[int]], reference: Source | None = None, desc: str = "", progress: bool = True) -> Scores:
    """Surprise at every scored position, and the difference from a reference where one is given; window by window, in step."""
    nll, kl, same = [], [], []
    for number in tqdm(range(len(cut)), desc=desc, unit="window", leave=False, disable=not progress):
        window = np.asarray(cut[number])
        targets, at = window[len(window) // 2 + 1 :], 0
        others: Iterator[np.ndarray | None] = reference(number) if reference else itertools.repeat(None)
        for ours, theirs in zip(model(number), others, strict=reference is not None):
            logs = logits.log_softmax(ours)
            nll.append(-logs[np.arange(len(logs)), targets[at : at + len(logs)]])
            at += len(logs)
            if theirs is not None:
                if theirs.shape != ours.shape:
                    raise BadInput(
                        f"the vocabularies differ: {ours.shape[1]} and {theirs.shape[1]} tokens", "compare two files of one model"
                    )
                kl.append(logits.divergence(logits.log_softmax(theirs), logs))
                same.append(ours.argmax(axis=1) == theirs.argmax(axis=1))
    surprise = np.concatenate(nll)
    if not np.isfinite(surprise).all() or surprise.mean() > 700:  # e^700 is the last that a float holds
        raise RunFailed("the model's scores are not numbers", "its file is damaged: labkit models verify PATH")
    return Scores(surprise, np.concatenate(kl) if kl else None, np.concatenate(same) if same else None)


def summary(scores: Scores, cut: Sequence[Sequence[int]]) -> Quality:
    """Means and their standard errors."""
    mean, error = logits.mean(scores.nll)
    perplexity = float(np.exp(mean))
    kl, kl_error = logits.mean(scores.kl) if scores.kl is not None else (None, None)
    return Quality(
        perplexity=perplexity,
        perplexity_stderr=perplexity * error,
        tokens=sum(len(window) for window in cut),
        scored_tokens=len(scores.nll),
        kl_mean=kl,
        kl_stderr=kl_error,
        top1_agreement=float(scores.same_top.mean()) if scores.same_top is not None else None,
    )
