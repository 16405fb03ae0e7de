"""Commands that make a model smaller and say what that cost: quantize, evaluate, ladder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labkit import models
from labkit.cli import app
from labkit.cli.machine_room import EngineOpt, Json, ModelArg
from labkit.cli.show import emit, number, say, size, table
from labkit.core.errors import BadInput

TokensOpt = Annotated[int, typer.Option(min=32, help="Tokens of the text that are read, in whole windows.")]


@app.command()
def quantize(
    model: ModelArg,
    types: Annotated[list[str], typer.Argument(metavar="TYPE...", help="Such as Q8_0, Q4_K_M, Q4_0 or F16.")],
    out: Annotated[Path | None, typer.Option(help="A folder; without it the files stay in the cache.")] = None,
    json: Json = False,
) -> int:
    """Make smaller files of a model with llama.cpp's quantizer."""
    from labkit.quant import gguf

    kinds = list(dict.fromkeys(gguf.type_named(name) for name in types))
    ref, rows = models.resolve(model), []
    for kind in kinds:
        made = gguf.quantize(ref, kind, out)
        if json:
            emit([made])
        rows.append((made.type, size(made.bytes), f"{made.bits_per_weight:.2f}", made.sha256[:12], made.path))
    if not json:
        table(f"{ref.name}, {gguf.source_type(ref)}", ("type", "size", "bits per weight", "sha256", "file"), rows)
    return 0


@app.command()
def evaluate(
    model: ModelArg,
    against: Annotated[str | None, typer.Option(metavar="REF", help="A model to compare with: KL divergence, same first choice.")] = None,
    tokens: TokensOpt = 2000,
    context: Annotated[int, typer.Option(min=32, help="Tokens of a window; the second half of each is scored.")] = 512,
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="A text of your own, UTF-8.")] = None,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    engine: EngineOpt = "llamacpp",
    json: Json = False,
) -> int:
    """Perplexity of a model on a text, and with --against how far it is from another."""
    from labkit.measure import quality

    words = _read(text) if text else None
    ref, other = models.resolve(model), models.resolve(against) if against else None
    found = quality.evaluate(ref, words, tokens, context, other, threads, engine)
    if json:
        emit([found.model_dump(exclude=None if other else {"kl_mean", "kl_stderr", "top1_agreement"})])
        return 0
    rows = [("perplexity", _with_error(found.perplexity, found.perplexity_stderr))]
    if other:
        rows.append((f"KL divergence from {other.name}, nats", f"{number(found.kl_mean)} ± {number(found.kl_stderr, digits=2)}"))
        rows.append(("same first choice", f"{100 * (found.top1_agreement or 0):.1f} %"))
    table(f"{ref.name}, {found.tokens} tokens read, {found.scored_tokens} scored; ± is one standard error", ("figure", "value"), rows)
    return 0


@app.command()
def ladder(
    model: ModelArg,
    types: Annotated[str | None, typer.Option(metavar="T,T", help="Default: ten types from F16 to TQ2_0.")] = None,
    tokens: TokensOpt = 2000,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    json: Json = False,
) -> int:
    """One model in many types: size, what was lost, and speed."""
    from labkit.measure import ladder as ladders
    from labkit.quant import gguf

    kinds = [part.strip() for part in types.split(",") if part.strip()] if types is not None else None
    ref = models.resolve(model)
    rungs = ladders.climb(ref, kinds, tokens, threads)
    if json:
        emit(rung.model_dump(mode="json", exclude={"path"}) for rung in rungs)
        return 0
    near: dict[str, list[str]] = {rung.type: [] for rung in rungs}
    for pair in ladders.tied(rungs):
        if pair["tied"]:
            near[pair["a"]].append(pair["b"])
            near[pair["b"]].append(pair["a"])
    columns = ("type", "size", "bpw", "perplexity", "KL", "same top", "tokens/s", "tied with")
    cells = [
        (
            rung.type,
            size(rung.bytes),
            f"{rung.bits_per_weight:.2f}",
            _with_error(rung.perplexity, rung.perplexity_stderr),
            number(rung.kl_mean),
            f"{100 * rung.top1_agreement:.1f} %",
            number(rung.decode_tokens_per_s),
            ", ".join(near[rung.type]),
        )
        for rung in rungs
    ]
    table(f"{ref.name}, {rungs[0].tokens} tokens read, {rungs[0].scored_tokens} scored", columns, cells)
    if gguf.name_of(ref, "F16") != f"{ref.name}-F16":
        say(f"The file is {gguf.source_type(ref)}: its F16 copy, the reference here, holds what was left, not the original weights.")
    say("bpw: bits per weight; ±: one standard error; KL: nats from F16; same top: the same first choice as F16.")
    say("Tied: on this text the two perplexities differ by less than the error of their difference, token by token.")
    return 0


def _with_error(value: float, error: float) -> str:
    digits = 2 if value < 100 else 0
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}", "--text FILE") from error
