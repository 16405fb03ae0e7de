"""Rules for Modelfiles: what `ollama create` refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.facts.lint import modelfiles
from labkit.facts.lint.model import Document, Edit, Hit
from labkit.facts.lint.vocabulary import nearest, table

_OPEN = re.compile(r"^(INSTRUCTION|COMMAND|KEYWORD|ARGUMENTS?)$|[<>{}$…]|\.\.\.|\[\w+\]")
_SEMVER = re.compile(r"v?\d+(\.\d+){0,2}(-[\w.]+)?(\+[\w.]+)?$")


def _words(document: Document) -> list[modelfiles.Instruction]:
    return modelfiles.parse(document.text, document.first)


def _known(name: str) -> bool:
    return name.upper() in table("ollama")["modelfile"]["instructions"]


def instruction(document: Document) -> Iterator[Hit]:
    meant = table("ollama")["modelfile"]["meant_instructions"]
    prose = False
    for item in _words(document):
        if _known(item.name) or _OPEN.search(item.name):
            continue
        near = nearest(item.name.upper(), table("ollama")["modelfile"]["instructions"], 2 if len(item.name) > 4 else 1)
        if not re.fullmatch(r"[A-Z]{2,}:?", item.name) and not near:
            if document.fragment or prose:
                continue
            prose = True  # text that was meant to belong to the value above: said once
        upper = item.name.upper().rstrip(":")
        if document.fragment and not near and upper not in meant and not re.fullmatch(r"[A-Z]{3,}", item.name):
            continue
        fix = meant.get(upper) or (f"{near}" if near else 'text of several lines stands between """ and """' if prose else "leave it out")
        yield Hit(item.line, {"word": item.name, "fix": fix}, Edit(item.line, item.name, near) if near and upper not in meant else None)


def _parameters(document: Document) -> Iterator[tuple[modelfiles.Instruction, str, str]]:
    for item in _words(document):
        if item.name.upper() == "PARAMETER":
            parts = item.value.split(None, 1)
            if parts:
                yield item, parts[0], parts[1].strip() if len(parts) == 2 else ""


def parameter(document: Document) -> Iterator[Hit]:
    rows = table("ollama")["modelfile"]
    for item, name, _ in _parameters(document):
        # a retired one is legal: `ollama create` warns, and takes it
        if name in rows["parameters"] or name in rows["retired_parameters"] or _OPEN.search(name):
            continue
        meant = (
            rows["meant"].get(name.lower())
            or nearest(name.lower(), rows["parameters"], 2)
            or (name.lower() if name.lower() in rows["parameters"] else None)
        )
        fix = f"PARAMETER {meant}" if meant else "leave it out; known: " + " ".join(rows["parameters"])
        yield Hit(item.line, {"word": name, "fix": fix}, Edit(item.line, name, meant) if meant else None)


def value(document: Document) -> Iterator[Hit]:
    types = table("ollama")["modelfile"]["parameters"]
    patterns = {
        "int": r"[+-]?\d+", "float": r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)",
        "bool": "1|t|T|TRUE|true|True|0|f|F|FALSE|false|False", "text": r"(.|\n)*",
    }  # fmt: skip
    words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    for item, name, given in _parameters(document):
        kind = types.get(name)
        if kind is None or not given or re.search(r"[<>{}$…]|\.\.\.|^\[.*\]$", given):
            if kind is not None and not given and not document.fragment and len(item.value.split()) == 1:
                yield Hit(
                    item.line, {"name": name, "value": "nothing", "type": words.get(kind, "a text"), "fix": f"PARAMETER {name} <value>"}
                )
            continue
        if kind != "text" and not re.fullmatch(patterns[kind], given.strip('"'), re.IGNORECASE if kind == "float" else 0):
            note = re.fullmatch(rf"({patterns[kind]})\s+#.*", given)
            thousand = re.fullmatch(r"(\d+)[kK]", given)
            whole = re.fullmatch(r"([+-]?\d+)\.0+", given)
            new = note[1] if note else str(int(thousand[1]) * 1024) if thousand and kind == "int" else whole[1] if whole else None
            fix = f"PARAMETER {name} {new}" if new else f"write {words[kind]}"
            if note:
                fix += " (a comment needs a line of its own)"
            yield Hit(
                item.line, {"name": name, "value": given, "type": words[kind], "fix": fix}, Edit(item.line, given, new) if new else None
            )


def role(document: Document) -> Iterator[Hit]:
    roles = table("ollama")["modelfile"]["roles"]
    for item in _words(document):
        if item.name.upper() == "MESSAGE" and item.value.split():
            given = item.value.split()[0]
            if given not in roles and not _OPEN.search(given):
                meant = nearest(given.lower(), roles, 2) or {
                    "human": "user",
                    "ai": "assistant",
                    "bot": "assistant",
                    "model": "assistant",
                }.get(given.lower())
                meant = meant or (given.lower() if given.lower() in roles else None)
                fix = f"MESSAGE {meant} …" if meant else "one of: " + ", ".join(roles)
                yield Hit(item.line, {"word": given, "fix": fix}, Edit(item.line, given, meant) if meant else None)


def no_from(document: Document) -> Iterator[Hit]:
    names = [item.name.upper() for item in _words(document)]
    if not document.fragment and names and "FROM" not in names and set(names) != {"TEMPLATE"} and "modelfile" in document.name.lower():
        near = any(nearest(name, ["FROM"], 1) for name in names)
        if not near:
            yield Hit(document.first)


def unclosed(document: Document) -> Iterator[Hit]:
    for item in _words(document):
        if not item.closed and not document.fragment and _known(item.name):
            yield Hit(item.line, {"name": item.name.upper()})


def template(document: Document) -> Iterator[Hit]:
    """Blocks that are not closed, and misspelt fields."""
    fields = table("ollama")["modelfile"]["template_fields"]
    for item in _words(document):
        if item.name.upper() != "TEMPLATE" or not item.closed:
            continue
        actions = list(re.finditer(r"\{\{-?\s*(.*?)\s*-?\}\}", item.value, re.DOTALL))
        code = [(found, re.sub(r"\"[^\"]*\"|`[^`]*`", "", found[1])) for found in actions if not found[1].startswith("/*")]
        opened = sum(bool(re.match(r"(if|range|with|define|block)\b", text)) for _, text in code)
        closed = sum(bool(re.match(r"end\b", text)) for _, text in code)
        if opened != closed and not document.fragment:
            yield Hit(item.line, {"what": f"{opened} of if, range, with … and {closed} of end", "fix": "close each with {{ end }}"})
        for found, text in code:
            for name in re.findall(r"(?<![\w)])(?:\$)?\.([A-Za-z]\w*)", text):
                near = nearest(name, ["System", "Prompt", "Response", "Messages", "Content", "ToolCalls"], 2)
                if name not in fields and near and len(name) > 4:
                    line = item.line + item.raw[: max(item.raw.find(found[0]), 0)].count("\n")
                    yield Hit(line, {"what": f".{name} is no field of a template", "fix": f".{near}"}, Edit(line, f".{name}", f".{near}"))


def version(document: Document) -> Iterator[Hit]:
    for item in _words(document):
        if item.name.upper() == "REQUIRES" and item.value and not _OPEN.search(item.value) and not _SEMVER.fullmatch(item.value):
            yield Hit(item.line, {"value": item.value})
