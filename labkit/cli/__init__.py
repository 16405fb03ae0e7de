"""The command line. It only parses and prints; what it calls lives in the wings.

Data goes to stdout, one JSON object a line with --json; progress and sentences go to stderr. Exit codes: 0 done,
1 ran and failed, 2 bad input or a missing part, 130 interrupted.
"""

from __future__ import annotations

import sys

import typer
from pydantic import ValidationError

from labkit.core.errors import LabkitError

# typer brings a click of its own: its base of all usage errors
UsageProblem: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    name="labkit",
    help="Labs on deploying small language models: run them, measure models, serve them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """The exit code of one command; errors become one sentence on stderr."""
    from labkit.cli import checks, courses, fetch, loads, machine_room, parts, shrink  # noqa: F401 - they add their commands to `app`

    try:
        code = app(args=_pairs(argv), standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except LabkitError as error:
        return _say(str(error), error.exit_code)
    except ValidationError as error:
        first = error.errors()[0]
        return _say(f"{'.'.join(str(p) for p in first['loc'])}: {first['msg'].lower()} — labkit --help", 2)
    except UsageProblem as error:
        return _say(error.format_message().strip().replace("\n", " "), 2)  # type: ignore[attr-defined]
    except (typer.Abort, KeyboardInterrupt):
        return _say("interrupted; what was finished is kept", 130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, as in `labkit models | head`
        return 0
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _say(f"{error.strerror or error}{where} — free some space or choose another folder", 2)


def _pairs(argv: list[str]) -> list[str]:
    """`-p NAME VALUE` as one argument, `-pNAME=VALUE`: the parser knows no options with two values in a list."""
    out, rest = [], list(argv)
    while rest:
        word = rest.pop(0)
        if word == "-p" and len(rest) >= 2 and "=" not in rest[0]:
            out += ["-p", f"{rest.pop(0)}={rest.pop(0)}"]
        else:
            out.append(word)
    return out


def _say(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)  # noqa: T201
    return code
