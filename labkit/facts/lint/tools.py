"""The known tools over a file, where they are installed: only what does not work, no hygiene. A finding of theirs is `tool/RULE`.

Programs are called by argument lists with a time limit. What is a Python package is called as one, since starting each of them anew takes
longer than all the rest: yamllint, kubernetes-validate, and the schemas that check-jsonschema carries.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from labkit.core import extras
from labkit.facts.lint import yamls
from labkit.facts.lint.model import Finding

TIMEOUT_S = 30.0
_YAML = ("compose", "kubernetes", "workflow", "prometheus", "prometheus-rules")
_VENDOR = {"compose": "compose-spec", "workflow": "github-workflows"}

# hadolint's rules that mean a file that does not build; its other rules are about style and hygiene
_HADOLINT = {"DL1000", "DL3011", "DL3023", "DL3024", "DL3043", "DL3061"}

Row = tuple[int, str, str]  # line, rule, message


def run(path: Path, kind: str | None, say: Callable[[str], None]) -> list[Finding]:
    """What the tools for that kind find. `say` is told of each that is not installed, or that did not end."""
    out: list[Finding] = []
    for tool, (kinds, check, home) in TOOLS.items():
        if kind not in kinds:
            continue
        try:
            rows = list(check(path, str(kind)))
        except ImportError:
            say(f"{tool} is not installed: its checks are left out ({_install(tool)})")
            continue
        except subprocess.TimeoutExpired:
            say(f"{tool} did not end within {TIMEOUT_S:g} s on {path}: its checks are left out")
            continue
        except OSError as error:
            say(f"{tool} does not run ({error.strerror or error}): its checks are left out")
            continue
        out += [
            Finding(file=str(path), line=line, rule=f"{tool}/{rule}", message=message, fix="see the message", source=home)
            for line, rule, message in rows
        ]
    return out


def missing() -> list[str]:
    """The tools that are not here."""
    return [tool for tool in TOOLS if not installed(tool)]


def installed(tool: str) -> bool:
    """Is the tool here: as a program, or as a package?"""
    if tool in {"hadolint", "promtool"}:
        return _program(tool) is not None
    module = {"check-jsonschema": "check_jsonschema", "kubernetes-validate": "kubernetes_validate"}.get(tool, tool)
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _install(tool: str) -> str:
    return "your system's package prometheus has it" if tool == "promtool" else extras.install("lint")


def _program(tool: str) -> str | None:
    """The program's path: beside this Python, then on PATH."""
    here = Path(sys.executable).parent / tool
    return str(here) if here.is_file() else shutil.which(tool)


def _call(tool: str, *words: str) -> str:
    """What a program prints. Raises ImportError where it is not installed."""
    program = _program(tool)
    if program is None:
        raise ImportError(tool)
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    return done.stdout + "\n" + done.stderr


def _hadolint(path: Path, kind: str) -> Iterator[Row]:
    output = _call("hadolint", "--no-fail", "--format", "json", str(path))
    try:
        rows = json.loads(output.strip().splitlines()[0]) if output.strip() else []
    except ValueError:
        return
    for row in rows:
        if row.get("code") in _HADOLINT:
            yield row["line"], row["code"], " ".join(str(row["message"]).split())


def _yamllint(path: Path, kind: str) -> Iterator[Row]:
    linter, config = importlib.import_module("yamllint.linter"), importlib.import_module("yamllint.config")
    text = path.read_text(encoding="utf-8-sig")
    for problem in linter.run(text, config.YamlLintConfig("rules: {key-duplicates: enable}")):
        if problem.level == "error":
            yield problem.line, problem.rule or "syntax", problem.desc


def _kubernetes(path: Path, kind: str) -> Iterator[Row]:
    validate = importlib.import_module("kubernetes_validate")
    utils = importlib.import_module("kubernetes_validate.utils")
    for tree, data in _pairs(path):
        if not isinstance(data, dict):
            continue
        try:
            validate.validate(data, validate.latest_version(), strict=True)
        except utils.ValidationError as error:
            yield _place(tree, list(error.path), error.message), "schema", _say(list(error.path), error.message)
        except (utils.SchemaNotFoundError, utils.VersionNotSupportedError, utils.InvalidSchemaError, KeyError):
            continue  # a custom resource


@functools.cache
def _validator(name: str) -> Any:
    """A validator with one of the schemas that check-jsonschema carries."""
    package = importlib.import_module("check_jsonschema")
    schema = json.loads((Path(str(package.__file__)).parent / "builtin_schemas" / "vendor" / f"{name}.json").read_text(encoding="utf-8"))
    return importlib.import_module("jsonschema.validators").validator_for(schema)(schema)


def _schema(path: Path, kind: str) -> Iterator[Row]:
    validator = _validator(_VENDOR[kind])
    for tree, data in _pairs(path)[:1]:
        for error in validator.iter_errors(data):
            deepest = _deepest(error)
            yield _place(tree, list(deepest.absolute_path), deepest.message), "schema", _say(list(deepest.absolute_path), deepest.message)


def _deepest(error: Any) -> Any:
    """Where one of several forms would do: the fault of the form that it misses by the fewest."""
    while error.context:
        forms: dict[Any, list[Any]] = {}
        for below in error.context:
            forms.setdefault(below.relative_schema_path[0], []).append(below)
        error = min(forms.values(), key=lambda faults: (len(faults), len(faults[0].message)))[0]
    return error


def _pairs(path: Path) -> list[tuple[yamls.Node, Any]]:
    """(tree with lines, data) of every YAML document; [] where it is no YAML: yamllint says why. YAML 1.2, where `on` is no boolean."""
    ruamel = importlib.import_module("ruamel.yaml")
    text = path.read_text(encoding="utf-8-sig")
    trees = yamls.parse(text)
    try:
        data = [one for one in ruamel.YAML(typ="safe").load_all(text) if one is not None]
    except ruamel.error.YAMLError:
        return []
    return list(zip(trees, data, strict=False)) if len(trees) == len(data) else []


def _promtool(path: Path, kind: str) -> Iterator[Row]:
    rules = kind == "prometheus-rules"
    output = _call("promtool", "check", "rules" if rules else "config", *([] if rules else ["--syntax-only"]), str(path))
    _, failed, said = output.partition("FAILED")
    if failed:
        yield from _promtool_rows(said.lstrip(":"), str(path))


def _promtool_rows(said: str, path: str) -> Iterator[Row]:
    """Rules come as `FILE: LINE:COLUMN: MESSAGE`, a configuration's unknown fields as `line LINE: MESSAGE`, the rest without a line."""
    found = re.findall(rf"{re.escape(path)}: (\d+):\d+: (.+)|^\s*line (\d+): (.+)", said, re.MULTILINE)
    for line, message, other_line, other in found:
        yield int(line or other_line), "check", message or other
    if not found:
        yield 1, "check", " ".join(said.replace(f"parsing YAML file {path}:", "").split())[:300]


def _say(path: Sequence[Any], message: str) -> str:
    return f"{'.'.join(map(str, path)) or 'the file'}: {' '.join(message.split())[:300]}"


def _place(tree: yamls.Node, path: Sequence[Any], message: str) -> int:
    """The line of a path in a document, and of the key that the message names."""
    here = tree
    for part in path:
        below = here.each()
        step = below[part] if isinstance(part, int) and part < len(below) else here.get(str(part))
        if step is None:
            break
        here = step
    key = re.search(r"'([^']+)' (?:was|were) unexpected|^'([^']+)' does not match", message)
    at = here.key(key[1] or key[2]) if key else None
    return at.line if at else here.line


# tool -> (the kinds it reads, the call, where it is at home)
TOOLS: dict[str, tuple[tuple[str, ...], Callable[[Path, str], Iterator[Row]], str]] = {
    "hadolint": (("dockerfile",), _hadolint, "github.com/hadolint/hadolint"),
    "yamllint": (_YAML, _yamllint, "yamllint.readthedocs.io"),
    "kubernetes-validate": (("kubernetes",), _kubernetes, "the Kubernetes API's own schemas"),
    "check-jsonschema": (("compose", "workflow"), _schema, "the Compose specification's and SchemaStore's schemas"),
    "promtool": (("prometheus", "prometheus-rules"), _promtool, "prometheus.io"),
}
