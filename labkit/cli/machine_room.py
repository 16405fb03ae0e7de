"""Commands on models, engines and servers: chat, bench, footprint, models, inspect, serve, cache, doctor."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit import engines, models
from labkit.cli import app
from labkit.cli.show import emit, number, say, size, table
from labkit.core import machine
from labkit.core.errors import BadInput, LabkitError, RunFailed
from labkit.core.records import ModelRef, Request
from labkit.models import catalog, store

ModelArg = Annotated[str, typer.Argument(metavar="MODEL", help="A catalogue name, or the path of a model.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
EngineOpt = Annotated[str, typer.Option("--engine", help="Who answers: " + ", ".join(engines.names()) + ".")]
UrlOpt = Annotated[str | None, typer.Option("--url", help="Base URL of an endpoint, ends in /v1.")]

group = typer.Typer(help="The catalogue and the model files on this machine.", invoke_without_command=True)
app.add_typer(group, name="models")


def _target(model: str, engine: str, url: str | None) -> tuple[Any, ModelRef, dict[str, Any]]:
    """Engine, model and load options. Behind a URL the model need not be on this machine."""
    chosen = engines.open(engine if url is None or engine != "llamacpp" else "openai")
    if url is None:
        return chosen, models.resolve(model), {}
    try:
        ref = models.resolve(model)
    except LabkitError:
        ref = ModelRef(name=model, path=Path(model), format="endpoint")
    return chosen, ref, {"url": url}


@app.command()
def chat(
    model: ModelArg,
    prompt: str,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0)] = 0.0,
    seed: int = 0,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    engine: EngineOpt = "llamacpp",
    url: UrlOpt = None,
    json: Json = False,
) -> int:
    """Ask a model one question; the answer streams as it is made."""
    from labkit import measure

    chosen, ref, options = _target(model, engine, url)
    request = Request.chat(prompt, system, max_tokens=max_tokens, temperature=temperature, seed=seed)
    if threads and url is None:
        options["threads"] = threads
    session = chosen.load(ref, **options)
    try:
        if not getattr(session, "has_chat_template", True):
            say(f"{ref.name} has no chat template: it continues the text.")
        record = measure.one(session, request, on_text=None if json else lambda text: print(text, end="", flush=True))  # noqa: T201
    finally:
        session.close()
    if json:
        emit([record])
    else:
        print(flush=True)  # noqa: T201
        rate = number(record.decode_tokens_per_s, " tokens/s")
        say(f"first token after {number(record.ttft_s, ' s')}, then {rate}, {record.output_tokens} tokens")
    return 0


@app.command()
def bench(
    model: ModelArg,
    threads: Annotated[str, typer.Option(help="auto, or counts such as 1,2,4.")] = "auto",
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 128,
    output_tokens: Annotated[int, typer.Option(min=2)] = 64,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    engine: EngineOpt = "llamacpp",
    url: UrlOpt = None,
    json: Json = False,
) -> int:
    """Measure prefill and decode: warm-up, repeats, thread counts in turn."""
    from labkit.measure import bench as benches
    from labkit.measure import spread

    chosen, ref, options = _target(model, engine, url)
    found = benches.bench(chosen, ref, _counts(threads), prompt_tokens, output_tokens, repeats, **options)
    if json:
        emit(found)
        return 0
    groups = sorted({m.threads for m in found}, key=lambda n: n or 0)
    rows = []
    for count in groups:
        mine = [m for m in found if m.threads == count]
        cells = [spread(getattr(m, key) for m in mine) for key in ("prefill_tokens_per_s", "decode_tokens_per_s", "ttft_s")]
        rows.append((count, *(f"{c.median:.3g} [{c.low:.3g}, {c.high:.3g}]" if c else "unknown" for c in cells), len(mine)))
    table(f"{ref.name}, {prompt_tokens} + {output_tokens} tokens", ("threads", "prefill tokens/s", "decode tokens/s", "TTFT s", "n"), rows)
    return 0


def _counts(text: str) -> list[int] | None:
    if text == "auto":
        return None
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise BadInput(f"--threads {text} is no list of counts", "--threads auto, or --threads 1,2")
    return counts


@app.command()
def footprint(
    model: ModelArg,
    context: Annotated[int, typer.Option(min=32, help="Tokens of prompt and answer.")] = 2048,
    kv: Annotated[str, typer.Option(help="KV cache type: f16 or q8_0.")] = "f16",
    measure: Annotated[bool, typer.Option("--measure", help="Also load it in a fresh process and measure.")] = False,
    json: Json = False,
) -> int:
    """Memory a model takes: weights, KV cache and compute, predicted and measured."""
    from labkit.measure import memory
    from labkit.models import footprint as arithmetic
    from labkit.models import inspect, shape

    ref: ModelRef | None = None
    if not Path(model).exists() and model.lower() in catalog.load() and models.known_path(model) is None:
        say(f"{model} is not on this machine: its shape at Q4_0.")
        header = shape.header(catalog.get(model), "Q4_0")
        if measure:
            ref = shape.write(catalog.get(model), "Q4_0")
    else:
        ref = models.resolve(model)
        header = inspect.read(ref.path)
    found = arithmetic.predict(header, context, kv).model_dump(mode="json")
    if measure and ref:
        arithmetic.check_fits(header, context, kv, 512)
        found["measured_bytes"] = memory.growth(ref, context, kv, threads=2)["measured_bytes"]
    if json:
        emit([found])
    else:
        rows = [(key.removesuffix("_bytes").replace("_", " "), size(value)) for key, value in found.items() if key.endswith("_bytes")]
        table(f"{model}, context {context}, KV cache {kv}", ("part", "memory"), rows)
    return 0


@group.callback()
def list_models(context: typer.Context, json: Json = False) -> None:
    """The catalogue."""
    if context.invoked_subcommand:
        return
    rows = store.listing()
    if json:
        emit(rows)
        return
    cells = [(r["name"], f"{r['parameters'] / 1e9:.3g} B", r["context"], r["licence"], "here" if r["path"] else "") for r in rows]
    table("Models", ("name", "parameters", "context", "licence", "weights"), cells)


@group.command("verify")
def verify(target: Annotated[str, typer.Argument(metavar="NAME|PATH")], json: Json = False) -> int:
    """Is a model file whole, and the one that was published?"""
    row = store.verify(target)
    if json:
        emit([row])
    else:
        print(f"{row['sha256']}  {row['path']}", flush=True)  # noqa: T201
    say(row["why"])
    return 0 if row["ok"] else 2


@group.command("shape")
def shape_(
    name: str, type_: Annotated[str, typer.Option("--type", help="Tensor type, such as Q4_0 or Q8_0.")] = "Q4_0", json: Json = False
) -> int:
    """Write a shape-true file: real architecture and sizes, random weights. Its speed and memory are real, its text is not."""
    from labkit.models import shape

    ref = shape.write(catalog.get(name), type_)
    row = {"path": str(ref.path), "sha256": models.sha256_of(ref.path), "bytes": ref.path.stat().st_size, "licence": ref.licence}
    if json:
        emit([row])
    else:
        print(row["path"], flush=True)  # noqa: T201
    return 0


@group.command("rm")
def rm(name: str, json: Json = False) -> int:
    """Delete a model's shape-true files from the cache."""
    gone = store.remove(name)
    if json:
        emit(gone)
    else:
        table("Deleted", ("file", "size"), [(g["path"], size(g["bytes"])) for g in gone])
    return 0


@app.command()
def cache(clean: Annotated[bool, typer.Option("--clean", help="Delete everything in it.")] = False, json: Json = False) -> int:
    """What labkit keeps in your cache folder."""
    rows = store.cache(clean)
    if json:
        emit(rows)
    else:
        table("Deleted" if clean else "Cache", ("kind", "files", "size"), [(r["kind"], r["files"], size(r["bytes"])) for r in rows])
    return 0


@app.command()
def inspect(file: str, json: Json = False) -> int:
    """What is in a GGUF file."""
    from labkit.models import inspect as reader

    path = models.resolve(file).path
    found = reader.read(path)
    row = found.model_dump(mode="json", include={"tensors": {"__all__": {"name", "type", "shape", "bytes"}}, "metadata": True})
    row = {"architecture": found.architecture, "parameters": found.parameters, "bits_per_weight": found.bits_per_weight, **row}
    if json:
        emit([row])
        return 0
    say(f"{path}: {found.architecture}, {found.parameters:,} parameters, {found.bits_per_weight:.3g} bits per weight")
    counts = [(kind, sum(t.type == kind for t in found.tensors), size(total)) for kind, total in found.types.items()]
    table("Tensors", ("type", "tensors", "size"), counts)
    shares = [(kind, size(total), f"{100 * total / max(1, found.tensor_bytes):.1f} %") for kind, total in found.kinds.items()]
    table("What they are for", ("part", "size", "share"), shares)
    return 0


@app.command()
def serve(
    model: ModelArg,
    server: Annotated[str, typer.Option(help="Which server.")] = "llama_server",
    port: Annotated[int | None, typer.Option(help="Default: a free one.")] = None,
    replicas: Annotated[int, typer.Option(min=1)] = 1,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    json: Json = False,
) -> int:
    """Serve a model on loopback, OpenAI-compatible, until Ctrl-C."""
    from labkit import servers
    from labkit.servers import replicas as several

    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    ref = models.resolve(model)
    with contextlib.ExitStack() as stack:
        if replicas == 1:
            front = stack.enter_context(servers.open(server).start(ref, port, **({"threads": threads} if threads else {})))
            behind, base_url = [front], front.base_url
        else:
            each = threads or max(1, machine.cores() // replicas)
            group = stack.enter_context(several.start(server, ref, replicas, port, threads=each))
            front, behind, base_url = group.balancer, list(group.replicas), group.base_url
        row = {"base_url": base_url, "pid": front.pid, "replicas": [{"pid": one.pid, "url": one.url} for one in behind]}
        if json:
            emit([row])
        else:
            print(base_url, flush=True)  # noqa: T201
        say("Ctrl-C stops it.")
        while not stopped:
            for one in [one for one in behind if not one.alive()]:
                behind.remove(one)
                if not behind:
                    raise RunFailed(f"{server} ended: {one.last_line()}", f"its log is {one.log}")
                say(f"{server} at {one.url} ended: {one.last_line()}; {len(behind)} of {replicas} go on")
            if not front.alive():
                raise RunFailed(f"{front.name} ended: {front.last_line()}", f"its log is {front.log}")
            time.sleep(0.2)
    return 0


@app.command()
def doctor(json: Json = False) -> int:
    """Every engine, server and program: ready, or missing with the command that installs it."""
    from labkit.teach import doctor as doctors

    rows = doctors.parts()
    if json:
        emit(rows)
    else:
        cells = [(r["name"], r["kind"], "yes" if r["ready"] else "no", r["version"], r["install"]) for r in rows]
        table("Parts", ("name", "kind", "ready", "version", "what to do"), cells)
    return 0
