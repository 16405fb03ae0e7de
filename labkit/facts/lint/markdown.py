"""The fenced code blocks of Markdown, each as the kind that it is, with the file's line of its first line."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labkit.facts.lint import kinds

OFF = "labkit lint: off"
_FENCE = re.compile(
    r"^(?P<indent>[ \t>]*)(?P<list>[-*+]\s+|\d+[.)]\s+)?(?P<mark>`{3,}|~{3,})\s*\{?\.?(?P<language>[\w+.-]*)(?P<rest>[^`]*)$"
)
_SHELL = {"bash", "sh", "shell", "zsh", "ksh"}
_CONSOLE = {"console", "shell-session", "shellsession", "terminal", "session", "sh-session", "bash-session"}
_PROGRAMS = (
    "ollama foundry foundry-local docker podman kubectl curl vllm llama-\\w+ pip apt apt-get brew olive git cd export python3? make ./\\w+"
)
_TOOLS = re.compile(rf"(sudo |[A-Z_]+=\S+ )*({_PROGRAMS.replace(' ', '|')}) \S")


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    line: int


def blocks(text: str, first: int = 1) -> list[Block]:
    """The blocks of known kinds. A comment with `labkit lint: off` in front of a fence leaves that block out."""
    out: list[Block] = []
    rows = text.splitlines()
    at = 0
    while at < len(rows):
        found = _FENCE.match(rows[at])
        at += 1
        if not found:
            continue
        strip = len(found["indent"].expandtabs(4)) + len(found["list"] or "")
        start, body = at, []
        while at < len(rows) and not re.match(rf"^[ \t>]*{re.escape(found['mark'])}[`~]*\s*$", rows[at]):
            body.append(_dedent(rows[at], strip, ">" in found["indent"]))
            at += 1
        at += 1
        off = any(OFF in row for row in rows[max(0, start - 4) : start])
        if not off and (kind := _kind(found["language"].lower(), found["rest"], "\n".join(body))):
            content = _console(body) if kind == "console" else "\n".join(body)
            out.append(Block("shell" if kind == "console" else kind, content, start + first))
    return out


def _dedent(row: str, strip: int, quoted: bool) -> str:
    if quoted:
        row = re.sub(r"^\s*>\s?", "", row)
        strip = 0
    while strip and row[:1] in (" ", "\t"):
        row, strip = row[1:], strip - 1
    return row


def _console(rows: list[str]) -> str:
    """Only what stands behind a prompt; output becomes empty lines, so that line numbers stay."""
    out, more = [], False
    for row in rows:
        prompt = re.match(r"^\s*(?:[\w.@~/-]*[$#%]|PS [^>]*>|>)\s+(.*)$", row)
        if prompt and not more:
            out.append(prompt[1])
            more = prompt[1].endswith("\\")
        else:
            out.append(row.removeprefix("> ") if more else "")
            more = more and row.endswith("\\")
    return "\n".join(out)


def _kind(language: str, rest: str, text: str) -> str | None:
    titled = re.search(r"(?:title|file|filename)\s*[=:]\s*[\"']?([\w./-]+)", rest)
    if titled and (named := kinds.recognise(titled[1], text)):
        return named
    if language in _SHELL:
        prompts = re.findall(r"^\s*\$ \S", text, re.MULTILINE)
        return "console" if prompts else "shell"
    if language in _CONSOLE:
        return "console" if re.search(r"^\s*[\w.@~/-]*[$#%] \S", text, re.MULTILINE) else "shell" if _all_commands(text) else None
    if language in {"dockerfile", "docker", "containerfile", "modelfile"}:
        return kinds.of_instructions(text) or ("modelfile" if language == "modelfile" else "dockerfile")
    if language in {"yaml", "yml", "compose", "docker-compose"}:
        return kinds.of_yaml(text) or (None if kinds._HELM.search(text) else "yaml")
    if language in {"json", "jsonc", "json5"}:
        return kinds.of_json(text) or "json"
    if language in {"python", "py", "python3"}:
        return "python"
    if language in {"powershell", "pwsh", "ps1"}:
        return "powershell"
    if language in {"env", "dotenv"}:
        return "env"
    if language in {"", "text", "txt", "plaintext", "plain", "none"}:
        if re.search(r"^\s*\$ \S", text, re.MULTILINE):
            return "console"
        return kinds.of_instructions(text) or ("shell" if not language and _all_commands(text) else None)
    return None


def _all_commands(text: str) -> bool:
    """Does every line that begins a command begin with a program we know, and none read like a sentence?"""
    joined = re.sub(r"\\\n", " ", text)
    rows = [row.strip() for row in joined.splitlines() if row.strip() and not row.strip().startswith("#")]
    return bool(rows) and all(_TOOLS.match(row) and not row.endswith((".", ":", "?")) for row in rows)
