"""Rules for environment variables: names that no program reads, values it cannot read, settings on the wrong command."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.facts.lint.model import Document, Edit, Hit, Setting
from labkit.facts.lint.vocabulary import nearest, table

_PREFIXES = ("OLLAMA_", "VLLM_", "LLAMA_ARG_")
_OPEN = re.compile(r"[$<>{}…]|\.\.\.")
_DURATION = re.compile(r"-?(\d+|(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*")


def _settings(document: Document, server: str) -> Iterator[Setting]:
    for setting in document.settings:
        if setting.reader in {"any", server}:
            yield setting


def _ollama_names() -> set[str]:
    rows = table("ollama")["env"]
    return {*rows["real"], *rows["removed"], *rows["never"], *rows["others"]["names"]}


def _for_ollama(document: Document) -> bool:
    """Does the file start Ollama's server, or build its image?"""
    starts = any(c.name == "ollama" and [w.text for w in c.words[1:2]] in (["serve"], ["start"]) for c in document.commands)
    return starts or document.kind == "dockerfile"


def ollama_name(document: Document) -> Iterator[Hit]:
    rows = table("ollama")["env"]
    told = {**rows["removed"], **rows["never"]}
    sure = _for_ollama(document)
    for setting in _settings(document, "ollama"):
        if setting.name in told and not (sure or setting.reader == "ollama" or setting.name in rows["claimed"]["names"]):
            continue  # a program of one's own may well read it
        if setting.name in told:
            verb = "is no longer read" if setting.name in rows["removed"] else "is not read by any release"
            yield Hit(setting.line, {"name": setting.name, "verb": verb, "fix": told[setting.name]})
            continue
        known = _ollama_names()
        if setting.name in known or _is_of(setting.name, "OLLAMA_") or not re.fullmatch(r"[A-Z][A-Z_]{6,}", setting.name):
            continue  # OLLAMA_MODEL2 is one of a series of somebody's own
        limit = 2 if len(setting.name) >= 16 else 1
        near = nearest(setting.name, rows["real"], limit)
        # a name that is nearer to another program's is not ours to judge
        if (near and nearest(setting.name, [name for name in known if name not in rows["real"]], 1) is None) or (near and limit == 1):
            yield Hit(
                setting.line,
                {"name": setting.name, "verb": "is not read by any release", "fix": str(near)},
                Edit(setting.line, setting.name, str(near)),
            )
        elif setting.name.startswith("OLLAMA_") and (wrong := nearest(setting.name, told, 1)):
            yield Hit(setting.line, {"name": setting.name, "verb": "is not read by any release", "fix": told[wrong]})


def ollama_value(document: Document) -> Iterator[Hit]:
    real = table("ollama")["env"]["real"]
    for setting in _settings(document, "ollama"):
        kind, value = real.get(setting.name), (setting.value or "").strip().strip("\"'")
        if kind in (None, "text") or not value or _OPEN.search(value):
            continue
        if kind == "uint" and not re.fullmatch(r"\d+", value):
            yield Hit(
                setting.line,
                {"name": setting.name, "value": value, "type": "a whole number" + (" of bytes" if "OVERHEAD" in setting.name else "")},
            )
        elif kind == "duration" and not _DURATION.fullmatch(value):
            yield Hit(setting.line, {"name": setting.name, "value": value, "type": "a duration such as 10m or 24h, or seconds, or -1"})
        elif kind == "cache" and value not in {"f16", "q8_0", "q4_0"}:
            yield Hit(setting.line, {"name": setting.name, "value": value, "type": "f16, q8_0 or q4_0"})


def on_client(document: Document) -> Iterator[Hit]:
    server = set(table("ollama")["env"]["server"]["names"])
    clients = set(table("ollama")["commands"]) - {"serve", "start", "runner"}
    for command in document.commands:
        words = [word.text for word in command.words]
        if command.name == "ollama" and len(words) > 1 and words[1] in clients:
            for setting in command.env:
                if setting.name in server:
                    yield Hit(setting.line, {"name": setting.name, "command": f"ollama {words[1]}"})


def _is_of(name: str, prefix: str) -> bool:
    """Does a name carry the prefix of another program than that one?"""
    return name.startswith(tuple(other for other in _PREFIXES if not other.startswith(prefix)))


def vllm_name(document: Document) -> Iterator[Hit]:
    rows = table("vllm")
    known = {*rows["env"], *rows["other_env"]}
    yield from _misspelt(document, "vllm", known, rows["env"], "vLLM", "VLLM_")


def llama_name(document: Document) -> Iterator[Hit]:
    rows = table("llamacpp")
    yield from _misspelt(document, "llamacpp", set(rows["env"]), rows["env"], "llama.cpp", "LLAMA_")


def _misspelt(document: Document, server: str, known: set[str], real: list[str], program: str, prefix: str) -> Iterator[Hit]:
    for setting in _settings(document, server):
        name = setting.name
        if (
            name in known
            or _is_of(name, prefix)
            or not re.fullmatch(r"[A-Z][A-Z0-9_]{6,}", name)
            or name in _ollama_names()
            or name in _build_options()
        ):
            continue
        if near := nearest(name, real, 2 if name.startswith(prefix) and len(name) >= 14 else 1):
            yield Hit(setting.line, {"name": name, "program": program, "fix": near}, Edit(setting.line, name, near))


def _build_options() -> set[str]:
    build = table("llamacpp_tools")["build"]
    return {*build, *build.values()}
