"""The command that asks a server for more than one answer at a time: load."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from labkit.cli import app
from labkit.cli.machine_room import Json
from labkit.cli.show import emit, number, say, table
from labkit.core.errors import BadInput, MissingPart

INTERRUPTED = 130


@app.command()
def load(
    url: Annotated[str, typer.Argument(metavar="URL", help="Base URL of an endpoint on this machine, ends in /v1.")],
    model: Annotated[str, typer.Option(metavar="M", help="The model's name at the endpoint.")],
    rate: Annotated[float | None, typer.Option(metavar="R", help="Open loop: requests a second, whatever the answers do.")] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="Closed loop: users who each wait for their answer.")] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Open loop: arrival times, seconds from the start, one a line.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(metavar="S", help="No new request after so long.")] = None,
    requests: Annotated[int | None, typer.Option(metavar="N", help="No more requests than this.")] = None,
    arrivals: Annotated[str, typer.Option(help="poisson or constant.")] = "poisson",
    prompt_tokens: Annotated[int, typer.Option(help="About so many tokens of prompt, new ones for each request.")] = 64,
    output_tokens: Annotated[int, typer.Option(help="At most so many tokens of answer.")] = 32,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Ask for exactly that many, where the server knows how.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain text to /completions instead of messages to /chat/completions.")] = False,
    salt: Annotated[bool, typer.Option(help="Prompts that no prefix cache has seen.")] = True,
    ttft: Annotated[float | None, typer.Option(metavar="S", help="Goodput: first token within so many seconds.")] = None,
    tpot: Annotated[float | None, typer.Option(metavar="S", help="Goodput: so long for each further token.")] = None,
    e2e: Annotated[float | None, typer.Option(metavar="S", help="Goodput: whole answer within so many seconds.")] = None,
    timeout: Annotated[float, typer.Option(metavar="S", help="Give a request up after so long.")] = 60,
    warmup: Annotated[int, typer.Option(help="Requests before the clock starts.")] = 1,
    seed: int = 0,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", envvar="LABKIT_API_KEY", show_envvar=True, help="Sent as a bearer token.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate by which an https endpoint is trusted.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Append all outcomes as one line of JSON.")] = None,
    json: Json = False,
) -> int:
    """Load an endpoint on this machine and summarize what its users would have felt. Exit code 1 where no request was answered."""
    from tqdm import tqdm

    from labkit.measure import load as loads

    given: dict[str, Any] = {"rate": rate, "concurrency": concurrency, "seconds": seconds, "requests": requests, "arrivals": arrivals}
    if trace:
        given["times_s"] = _times(trace)
    plan = _plan(
        **given,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        ignore_eos=ignore_eos,
        chat=not plain,
        salt=salt,
        timeout_s=timeout,
        warmup=warmup,
        seed=seed,
        slo=loads.Slo(ttft_s=ttft, tpot_s=tpot, e2e_s=e2e),
    )
    _answers(url, loads.target(url, api_key, ca))
    finished: list[loads.Outcome] = []
    total = None if plan.kind == "closed" else len(plan.schedule_s())
    interrupted = False
    with tqdm(total=total or plan.requests, desc=plan.kind, unit=" requests", leave=False, disable=None) as bar:
        try:
            loads.run(url, model, plan, finished=finished, on_outcome=lambda _: bar.update(), api_key=api_key, ca=ca)
        except KeyboardInterrupt:
            interrupted = True
    finished.sort(key=lambda outcome: outcome.number)
    if out:
        loads.write(out, model, plan, finished, interrupted)
    found = loads.summarize(finished, plan)
    if json:
        emit([found.model_dump(mode="json") | {"interrupted": interrupted}])
    else:
        _print(model, found)
    if found.not_sent:
        say(f"{found.not_sent} requests were not sent: too many were unanswered, so the load was less than planned.")
    if interrupted:
        say("interrupted; what was finished is kept")
        return INTERRUPTED
    if not found.ok:
        say(f"no request was answered: {next((o.error for o in finished), 'none was sent')}")
    return 0 if found.ok else 1


def _plan(**given: Any) -> Any:
    from labkit.measure.load import Plan

    try:
        return Plan(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--{first['loc'][0]}: ".replace("_", "-") if first["loc"] else ""
        raise BadInput(f"{where}{first['msg'].removeprefix('Value error, ').lower()}", "labkit load --help") from None


def _print(model: str, found: Any) -> None:
    ways = {"ttft_s": "first token", "tpot_s": "each further token", "itl_s": "gap between pieces", "e2e_s": "whole answer"}
    rows = []
    for key, words in ways.items():
        q = getattr(found, key)
        rows.append((words, *(_with_interval(q, name) for name in ("p50", "p95", "p99")), q.n))
    table(f"{model}, {found.plan.kind} load for {found.duration_s:.1f} s", ("ms", "p50", "p95", "p99", "n"), rows)
    say(", ".join(f"{getattr(found, status)} {status}" for status in ("ok", "refused", "error", "cut", "timeout")))
    say(f"{number(found.tokens_per_s)} tokens/s, goodput {number(found.goodput_per_s)} requests/s; latencies from when a request was "
        f"{'sent' if found.latency_from == 'sent' else 'due'}; in brackets 95 % intervals.")  # fmt: skip


def _with_interval(q: Any, name: str) -> str:
    if not q.n:
        return ""
    low, high = q.intervals[name]
    return f"{_ms(getattr(q, name))} [{_ms(low)}, {_ms(high)}]"


def _ms(seconds: float | None) -> str:
    """Three digits, never a power of ten; a dash where n is too small for an end of the interval."""
    return "–" if seconds is None else f"{float(f'{1e3 * seconds:.3g}'):g}"


def _times(path: Path) -> tuple[float, ...]:
    try:
        return tuple(float(line) for line in path.read_text(encoding="utf-8").split())
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}", "--trace FILE") from error
    except ValueError as error:
        raise BadInput(f"{path} holds something that is no number", "one arrival time a line, in seconds from the start") from error


def _answers(url: str, to: Any) -> None:
    """Is anybody there at all? Refusals later, under load, are outcomes."""
    try:
        socket.create_connection((to.host, to.port), timeout=5).close()
    except OSError as error:
        raise MissingPart(
            f"no server answers at {url} ({error.strerror or error})", "labkit serve MODEL, then pass its base_url"
        ) from error
