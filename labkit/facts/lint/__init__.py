"""The checker for what people copy: `labkit lint FILE…`.

It knows Modelfiles, Dockerfiles, Compose, Kubernetes, Prometheus, workflows, shell scripts, .env files, Foundry JSON, and the code blocks
of Markdown.
A finding of our own is certain from the text: names that no release of a program reads, routes that answer 404, parts that do not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.core.errors import BadInput
from labkit.facts.lint import documents, kinds
from labkit.facts.lint.markdown import OFF
from labkit.facts.lint.model import Edit, Finding
from labkit.facts.lint.table import Rule, rules

__all__ = ["Checked", "Edit", "Finding", "Rule", "check", "check_text", "rules"]


@dataclass(frozen=True)
class Checked:
    """A file's kind, or None; its findings in order of lines; and the edits that mend some of them."""

    kind: str | None
    findings: list[Finding]
    edits: list[Edit]


def read(path: Path) -> str:
    """A file's text. Raises BadInput where it cannot be read."""
    try:
        if path.is_dir():
            raise BadInput(f"{path} is a folder", f"name its files: labkit lint {path}/FILE")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}", "labkit lint FILE…") from error


def check_text(path: str, text: str) -> Checked:
    """Our own rules over a text that has that name."""
    text = text.replace("\r\n", "\n")
    kind = kinds.recognise(path, text)
    rows = text.split("\n")
    findings: dict[tuple[int, str, str], Finding] = {}
    edits: list[Edit] = []
    for document in documents.read(path, text):
        for rule in rules():
            if not rule.reads(document.kind):
                continue
            for hit in rule.find(document):
                found = rule.finding(path, hit)
                key = (hit.line, rule.name, found.message)
                if key not in findings and not any(OFF in row for row in rows[max(0, hit.line - 2) : hit.line]):
                    findings[key] = found
                    edits += [hit.edit] if hit.edit else []
    return Checked(kind, sorted(findings.values(), key=lambda found: (found.line, found.rule)), edits)


def check(path: Path, say: Callable[[str], None] | None = None) -> Checked:
    """Our own rules and those of the tools that are installed, over one file. `say` is told which tools are not."""
    from labkit.facts.lint import tools

    own = check_text(str(path), read(path))
    others = tools.run(path, own.kind, say or (lambda _: None))
    return Checked(own.kind, sorted([*own.findings, *others], key=lambda found: (found.line, found.rule)), own.edits)
