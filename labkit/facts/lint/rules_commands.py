"""Rules for command lines of ollama and foundry, and for model tags."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.facts.lint.model import Command, Document, Edit, Hit, Word
from labkit.facts.lint.vocabulary import nearest, table

_EXEC_TAKES = {
    "-e",
    "--env",
    "-u",
    "--user",
    "-w",
    "--workdir",
    "-n",
    "--namespace",
    "-c",
    "--container",
    "-f",
    "--file",
    "--context",
    "-p",
    "--index",
}


def _executed(command: Command) -> list[Word]:
    """The command that `docker exec`, `docker compose exec` or `kubectl exec` runs inside a container."""
    words = command.words
    verb = next((n for n, word in enumerate(words[:6]) if word.text == "exec"), None)
    if verb is None or command.name not in {"docker", "podman", "kubectl", "docker-compose", "podman-compose", "oc", "nerdctl"}:
        return []
    at, placed = verb + 1, False
    while at < len(words):
        text = words[at].text
        if text == "--":
            return words[at + 1 :]
        if text.startswith("-"):
            at += 2 if text in _EXEC_TAKES else 1
        elif not placed:
            at, placed = at + 1, True  # the container, pod or service
        else:
            return words[at:]
    return []


def named(document: Document, *names: str) -> Iterator[tuple[Command, list[Word]]]:
    """(command, its words behind the program); also behind docker exec, kubectl exec and docker compose exec."""
    for command in document.commands:
        words = command.words
        inner = _executed(command)
        if inner and inner[0].text.rsplit("/", 1)[-1] in names:
            yield command, inner[1:]
        elif command.name in names and "=" not in words[0].text:
            yield command, words[1:]


def ollama_command(document: Document) -> Iterator[Hit]:
    rows = table("ollama")
    for _, words in named(document, "ollama"):
        if not words or words[0].open or words[0].quoted or not re.fullmatch(r"[A-Za-z][\w-]*", words[0].text):
            continue
        word = words[0].text
        if word in rows["commands"]:
            continue
        near = nearest(word, rows["commands"], 1 if len(word) < 5 else 2)
        meant = rows["commands_meant"].get(word) or (
            None if near else rows["commands_meant"].get(nearest(word, rows["commands_meant"]) or "")
        )
        if document.fragment and not near and not meant:
            continue
        fix = meant or (f"ollama {near}" if near else "ollama --help")
        yield Hit(
            words[0].line,
            {"word": word, "fix": fix},
            Edit(words[0].line, f"ollama {word}", f"ollama {near}") if near and not meant else None,
        )


def ollama_flag(document: Document) -> Iterator[Hit]:
    rows = table("ollama")
    for _, words in named(document, "ollama"):
        if not words or words[0].text not in rows["commands"] or words[0].text in {"runner", "help", "completion"}:
            continue
        known = {*rows["commands"][words[0].text], "--help", "-h", "--verbose", "--nowordwrap", "--version", "-v"}
        for word in words[1:]:
            if word.text == "--":
                break
            flag = word.text.split("=")[0]
            if word.quoted or (word.open and "=" not in word.text) or not re.fullmatch(r"--?[a-zA-Z][\w-]*", flag) or flag in known:
                continue
            if re.fullmatch(r"-[a-z]\S+", flag) and flag[:2] in known:
                continue  # -fModelfile
            near = nearest(flag, known, 2) if flag.startswith("--") else None
            fix = rows["flags_meant"].get(flag) or near or f"ollama {words[0].text} --help"
            yield Hit(
                word.line, {"command": f"ollama {words[0].text}", "flag": flag, "fix": fix}, Edit(word.line, flag, near) if near else None
            )


def quantize(document: Document) -> Iterator[Hit]:
    targets = table("ollama")["quantize"]["targets"]
    for _, words in named(document, "ollama"):
        if not words or words[0].text != "create":
            continue
        for n, word in enumerate(words):
            flag, equals, value = word.text.partition("=")
            if flag not in {"--quantize", "-q"}:
                continue
            value = value if equals else words[n + 1].text if n + 1 < len(words) else ""
            if value and not re.search(r"[$<>{\[]", value) and value.upper() not in targets:
                yield Hit(word.line, {"word": value})


def foundry_command(document: Document) -> Iterator[Hit]:
    rows = table("foundry")
    meant = rows["commands_meant"]
    for _, words in named(document, "foundry"):
        if not words or words[0].open or not re.fullmatch(r"[a-z][a-z-]*", words[0].text):
            continue
        word = words[0].text
        if word not in rows["commands"]:
            near = nearest(word, rows["commands"], 1 if len(word) < 6 else 2)
            if word in meant or near:
                yield Hit(
                    words[0].line,
                    {"word": f"foundry {word}", "fix": meant.get(word) or f"foundry {near}"},
                    Edit(words[0].line, f"foundry {word}", f"foundry {near}") if near and word not in meant else None,
                )
            continue
        for flag in words[1:]:
            if flag.text.split("=")[0] in rows["flags_meant"] and not flag.quoted:
                pair = f"foundry {word} … {flag.text.split('=')[0]}"
                yield Hit(flag.line, {"word": pair, "fix": rows["flags_meant"][flag.text.split("=")[0]]})
        known = rows["commands"][word]
        if known and len(words) > 1 and re.fullmatch(r"[a-z][a-z-]*", words[1].text) and words[1].text not in known and not words[1].open:
            pair = f"{word} {words[1].text}"
            near = nearest(words[1].text, known, 1 if len(words[1].text) < 6 else 2)
            if pair in meant or near:
                yield Hit(
                    words[1].line,
                    {"word": f"foundry {pair}", "fix": meant.get(pair) or f"foundry {word} {near}"},
                    Edit(words[1].line, pair, f"{word} {near}") if near and pair not in meant else None,
                )


def foundry_local(document: Document) -> Iterator[Hit]:
    meant = table("foundry")["commands_meant"]
    for command, words in named(document, "foundry-local", "foundrylocal", "foundry_local"):
        first = words[0].text if words else ""
        pair = " ".join(w.text for w in words[:2])
        one = {"models": "model"}.get(first, first)
        second = words[1].text if len(words) > 1 else ""
        fix = (
            meant.get(f"{one} {second}")
            or meant.get(pair)
            or (f"foundry model {second}" if first == "models" and second else meant.get(first))
            or f"foundry {pair}".strip()
        )
        yield Hit(command.line, {"word": f"{command.name} {pair}".strip(), "fix": fix})


def program(document: Document) -> Iterator[Hit]:
    """A misspelt program, told by what follows it."""
    programs = {"ollama": table("ollama")["commands"], "foundry": table("foundry")["commands"], "vllm": table("vllm")["commands"]}
    tools = table("llamacpp_tools")["programs"]
    for command in document.commands:
        if not command.words or command.words[0].open:
            continue
        name, follows = command.name, command.rest[0].text if command.rest else ""
        if name not in {*programs, "llama"} and follows:
            near = nearest(name, programs, 1)
            if (near and follows in programs[near] and follows not in {"help", "run", "list", "ls", "ps"}) or (
                near == "ollama" and follows in programs[near]
            ):
                yield Hit(command.line, {"word": name, "fix": near}, Edit(command.line, name, str(near)))
                continue
        first = name.partition("-")[0]
        ours = "-" in name and (first == "llama" or nearest(first, ["llama"], 1))
        if ours and name not in tools and (near := nearest(name, tools, 1)):
            yield Hit(command.line, {"word": name, "fix": near}, Edit(command.line, name, near))


def apt(document: Document) -> Iterator[Hit]:
    for command in document.commands:
        if (
            command.name in {"apt", "apt-get", "aptitude"}
            and any(word.text == "install" for word in command.words)
            and any(word.text == "ollama" for word in command.words)
        ):
            yield Hit(next(word.line for word in command.words if word.text == "ollama"))


def tag(document: Document) -> Iterator[Hit]:
    """Model tags that do not exist, wherever a model is named outside comments."""
    tags = table("models")["tags"]
    found: set[tuple[int, str]] = set()
    rows = document.text.split("\n")
    for n, row in enumerate(rows):
        code = re.sub(r"(^|\s)(#|//).*$", "", row)
        for word in re.findall(r"(?<![\w./:-])([\w.-]+:[\w.-]+)(?![\w:/-])", code):
            clean = word.rstrip(".")
            if clean in tags:
                found.add((document.first + n, clean))
    for line, word in sorted(found):
        yield Hit(line, {"word": word, "fix": tags[word]}, Edit(line, word, tags[word]))
