"""Rules for workflows, Foundry's and Olive's JSON, and Python blocks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from labkit.facts.lint import shell
from labkit.facts.lint.kinds import invented
from labkit.facts.lint.model import Document, Edit, Hit
from labkit.facts.lint.vocabulary import nearest, table

_PLAIN_ACTIONS = (
    "actions/",
    "astral-sh/setup-uv",
    "docker/setup-",
    "docker/login",
    "codecov/",
    "pre-commit/",
    "pypa/",
    "snok/install-poetry",
)
_HOSTED = re.compile(r"(ubuntu|windows|macos)-[\w.]+$")
_MANAGERS = "brew|choco|winget|conda|mamba|micromamba|scoop|pacman|nix|dnf|snap|pixi"
_INSTALLS = re.compile(
    rf"ollama\.com/(install|download)|ollama/ollama|ollama-linux|({_MANAGERS})\b[^\n]*\bollama|go install[^\n]*ollama"
    r"|ollama\.(tgz|zip)|OllamaSetup|labkit runtimes",
    re.IGNORECASE,
)


def ci_without_ollama(document: Document) -> Iterator[Hit]:
    """A job on a stock runner that uses Ollama, and no step in front of it that could have installed it."""
    tree = document.trees[0] if document.trees else None
    jobs = tree.get("jobs") if tree else None
    for name, _, job in jobs.items() if jobs else ():
        on = job.get("runs-on")
        if on is None or not on.text or not _HOSTED.match(on.text) or job.get("container"):
            continue
        services = job.get("services")
        served = any("ollama" in (service.string("image") or "") for _, _, service in (services.items() if services else ()))
        ready = served
        steps = job.get("steps")
        for step in steps.each() if steps else []:
            uses, run = step.string("uses") or "", step.get("run")
            if uses and not uses.startswith(_PLAIN_ACTIONS):  # any other may install what it likes
                ready = True
            if run is None or not run.text:
                continue
            script = shell.parse(run.text, run.text_line)
            for command in script.commands:
                words = [word.text for word in command.words]
                text = " ".join(words)
                own = command.name in {
                    "make",
                    "just",
                    "task",
                    "bash",
                    "sh",
                    "source",
                    ".",
                    "nix",
                    "docker",
                    "docker-compose",
                    "tox",
                    "nox",
                    "npm",
                    "uv",
                    "python",
                    "python3",
                    "ansible-playbook",
                }
                if _INSTALLS.search(text) or (words and words[0].startswith("./")) or own:
                    ready = True
                if (
                    not ready
                    and command.name == "ollama"
                    and len(words) > 1
                    and words[1] in {"pull", "run", "create", "serve", "list", "ls", "show", "ps"}
                ):
                    yield Hit(command.line, {"job": name, "command": " ".join(words[:3])})
                    ready = True


def foundry_json(document: Document) -> Iterator[Hit]:
    groups = invented(document.data) if isinstance(document.data, dict) else []
    if len(groups) >= (1 if "foundry" in document.name.rsplit("/", 1)[-1].lower() else 2):
        yield Hit(_line_of(document, groups[0]), {"groups": ", ".join(groups)})


def foundry_model(document: Document) -> Iterator[Hit]:
    """Misspelt fields of inference_model.json."""
    rows = table("foundry")["inference_model"]
    if not document.name.endswith("inference_model.json") or not isinstance(document.data, dict):
        return
    inner = document.data.get("PromptTemplate")
    for known, keys in ((rows["top"], document.data), (rows["template"], inner if isinstance(inner, dict) else {})):
        for key in keys:
            if key not in known and (near := nearest(key, known, 2 if len(key) > 6 else 1)):
                line = _line_of(document, key)
                yield Hit(line, {"word": key, "fix": near}, Edit(line, f'"{key}"', f'"{near}"'))


def _line_of(document: Document, word: str, after: int = 0) -> int:
    at = document.text.find(f'"{word}"', after)
    return document.first + document.text[: max(at, 0)].count("\n")


def olive_json(document: Document) -> Iterator[Hit]:
    rows = table("toolchains")
    if not isinstance(document.data, dict):
        return
    passes = document.data.get("passes")
    listed: list[Any] = list(passes.values()) if isinstance(passes, dict) else []
    names = [item.get("type") for group in listed for item in (group if isinstance(group, list) else [group]) if isinstance(item, dict)]
    lowered = {name.lower() for name in rows["passes"]}
    for name in names:
        if not isinstance(name, str) or name.lower() in lowered:
            continue
        fix = rows["old_passes"].get(name) or nearest(name, rows["passes"], 2)
        if fix:
            line = _line_of(document, name)
            yield Hit(line, {"word": name, "what": "pass", "fix": fix}, Edit(line, name, fix) if fix in rows["passes"] else None)
    model = document.data.get("input_model")
    kind = model.get("type") if isinstance(model, dict) else None
    # the configuration takes PyTorchModel and HfModel; ONNXModel too: only misspelt ones are said
    known = [*rows["handlers"], *(name.removesuffix("Handler") for name in rows["handlers"])]
    if isinstance(kind, str) and kind.lower() not in {name.lower() for name in known} and (near := nearest(kind, known, 2)):
        line = _line_of(document, kind)
        yield Hit(line, {"word": kind, "what": "model type", "fix": near}, Edit(line, kind, near))


def olive_python(document: Document) -> Iterator[Hit]:
    old = table("toolchains")["old_classes"]
    for line, text in document.code:
        imported = re.match(r"\s*from olive\.model(?:\.\w+)* import (.+)", text)
        names = re.findall(r"\w+", imported[1]) if imported else re.findall(r"\bolive\.model\.(\w+)", text)
        for name in names:
            if name in old:
                yield Hit(line, {"word": name, "fix": old[name]}, Edit(line, name, old[name]))
    for line, text in document.code:
        for name in re.findall(r"\b(\w+Quantization)\b", text):
            if name in table("toolchains")["old_passes"] and "olive" in document.text:
                yield Hit(line, {"word": name, "fix": table("toolchains")["old_passes"][name]})


def mlx_python(document: Document) -> Iterator[Hit]:
    """Arguments that mlx_lm.generate no longer takes; only where `generate` is surely mlx_lm's."""
    meant = table("toolchains")["mlx_arguments"]
    try:
        tree = ast.parse(document.text)
    except (SyntaxError, ValueError):
        return
    names, modules = {"mlx_lm.generate", "mlx_lm.stream_generate"}, {"mlx_lm"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mlx_lm":
            names |= {alias.asname or alias.name for alias in node.names if alias.name in {"generate", "stream_generate"}}
        if isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "mlx_lm" and alias.asname}
    names |= {f"{module}.{name}" for module in modules for name in ("generate", "stream_generate")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            for keyword in node.keywords:
                if keyword.arg in meant:
                    yield Hit(document.first + keyword.value.lineno - 1, {"word": keyword.arg, "fix": meant[keyword.arg]})
