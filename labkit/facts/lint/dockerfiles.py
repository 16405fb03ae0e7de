"""Dockerfiles and Containerfiles as instructions, each with the file's lines of its text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from labkit.facts.lint import shell
from labkit.facts.lint.model import Command, Container, Document, Image, Setting, Word

KNOWN = {
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "RUN", "SHELL",
    "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip


@dataclass
class Instruction:
    name: str
    text: str  # with continuations and newlines kept, comment lines blanked
    line: int
    heredocs: list[shell.Heredoc]


def instructions(text: str, first: int = 1) -> list[Instruction]:
    out: list[Instruction] = []
    rows = text.splitlines()
    at = 0
    while at < len(rows):
        found = re.match(r"\s*([A-Za-z]+)(\s.*|$)", rows[at])
        if not found or rows[at].lstrip().startswith("#"):
            at += 1
            continue
        start, parts = at, [found[2]]
        while rows[at].rstrip().endswith("\\") or (at > start and (not rows[at].strip() or rows[at].lstrip().startswith("#"))):
            at += 1
            if at >= len(rows):
                break
            blank = not rows[at].strip() or rows[at].lstrip().startswith("#")
            parts.append("\\" if blank else rows[at])
        at += 1
        here = []
        for mark in re.finditer(r"<<-?(['\"]?)([A-Za-z_]\w*)\1", "\n".join(parts)) if found[1].upper() in {"RUN", "COPY", "ADD"} else ():
            body, line = [], at + first
            while at < len(rows) and rows[at].strip() != mark[2]:
                body.append(rows[at])
                at += 1
            at += 1
            words = "\n".join(parts).split()
            here.append(shell.Heredoc("\n".join(body), line, words[-1] if found[1].upper() != "RUN" else ""))
        out.append(Instruction(found[1].upper(), "\n".join(parts), start + first, here))
    return out


def read(document: Document) -> None:
    """Fill a document with what a Dockerfile says: images, settings, commands; the last stage's as a container."""
    stages: set[str] = set()
    container = Container("", None, document.first)
    for n, item in enumerate(instructions(document.text, document.first)):
        if item.name == "FROM":
            words = [word for word in item.text.split() if not word.startswith("--")]
            if words and words[0] != "\\":
                base = words[0]
                previous = container if base.lower() in stages else None
                container = Container("", previous.image if previous else base, item.line)
                document.containers.append(container)
                if base.lower() not in stages:
                    document.images.append(Image(base, item.line))
                if len(words) >= 3 and words[1].lower() == "as":
                    stages.add(words[2].lower())
        elif item.name == "ENV":
            container.settings += _env(item)
        elif item.name == "RUN":
            text = item.text if not item.heredocs else ""
            scripts = [_command(text, item.line, "run", n)] if text.strip() else []
            scripts += [shell.parse(here.text, here.line, "run", n) for here in item.heredocs]
            for script in scripts:
                container.commands += script.commands
                document.inner += [Document("", here.text, here.line, True, here.target) for here in script.heredocs]
        elif item.name in {"COPY", "ADD"}:
            document.inner += [Document("", here.text, here.line, True, here.target) for here in item.heredocs]
        elif item.name in {"CMD", "ENTRYPOINT"}:
            container.own_command = True
            container.commands += _command(item.text, item.line, "start", n).commands
        elif item.name == "HEALTHCHECK":
            body = re.match(r"((?:\s|\\\n)*(?:--\S+(?:\s|\\\n)+)*)CMD(.*)", item.text, re.DOTALL)
            if body:
                container.commands += _command(body[2], item.line + body[1].count("\n"), "probe", n).commands
    bare = container if not document.containers else None  # a fragment without FROM
    reader = _reader(document)
    for one in [*document.containers, *([bare] if bare else [])]:
        for command in one.commands:
            command.container = one
        document.commands += one.commands
        document.settings += [Setting(s.name, s.value, s.line, reader) for s in one.settings]


def _reader(document: Document) -> str:
    """ENV is for a server we know where the file speaks of one outside its comments."""
    code = re.sub(r"^\s*#.*$", "", document.text, flags=re.MULTILINE)
    return (
        "any"
        if re.search(r"ollama/ollama|ollama\.com/install|\bollama (serve|pull|run|create)|\"ollama\"|vllm|llama\.cpp|llama-server", code)
        else "other"
    )


def _command(text: str, line: int, where: str, group: int) -> shell.Script:
    flags = re.match(r"\s*(?:--\S+\s+)*", text)
    body = text[flags.end() :] if flags else text
    line += text[: len(text) - len(body)].count("\n")
    if body.lstrip().startswith("["):
        try:
            words = json.loads(body.replace("\\\n", "\n"))
        except ValueError:
            return shell.Script()
        if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
            return shell.from_words([Word(word, line, " " in word) for word in words], where, group)
        return shell.Script()
    return shell.parse(body, line, where, group)


def _env(item: Instruction) -> list[Setting]:
    script: list[Command] = shell.parse("export " + item.text.lstrip(), item.line).commands
    found = [setting for command in script for setting in command.env]
    plain = item.text.split(None, 1)
    if not found and len(plain) == 2 and re.fullmatch(r"[A-Za-z_]\w*", plain[0]):
        found = [Setting(plain[0], plain[1].strip(), item.line)]
    return found
