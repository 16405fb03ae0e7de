"""What the checker reads a file into, and what it says: documents, commands, settings, addresses, containers; hits and findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.core.records import Record


class Finding(Record):
    """One line of the report. `rule` is ours, or `tool/RULE`; `line` counts from 1 in the file, also inside Markdown."""

    file: str
    line: int
    rule: str
    message: str
    fix: str
    source: str


@dataclass(frozen=True)
class Edit:
    """A mechanical fix: on that line of the file, `old` becomes `new`; with `whole`, the line's text is replaced."""

    line: int
    old: str
    new: str


@dataclass(frozen=True)
class Hit:
    """Where a rule applies, and the words for its message."""

    line: int
    words: Mapping[str, Any] = field(default_factory=dict)
    edit: Edit | None = None


@dataclass(frozen=True)
class Word:
    """A word of a command, unquoted."""

    text: str
    line: int
    quoted: bool = False

    @property
    def open(self) -> bool:
        """Is part of it filled in later: a variable, a placeholder?"""
        return (not self.quoted and any(mark in self.text for mark in "$<>{}[]*`…")) or "..." in self.text or "$" in self.text


@dataclass(frozen=True)
class Setting:
    """An environment variable that is given a value. `reader`: the known server that will read it, 'other', or 'any'."""

    name: str
    value: str | None
    line: int
    reader: str = "any"


@dataclass
class Command:
    """One simple command: its words, the variables set in front of it, and where it stands."""

    words: list[Word]
    env: list[Setting] = field(default_factory=list)
    where: str = "script"  # script, run, probe, start
    group: int = 0  # commands of one script share it
    container: Container | None = None

    @property
    def line(self) -> int:
        return self.words[0].line if self.words else self.env[0].line

    @property
    def name(self) -> str:
        return self.words[0].text.rsplit("/", 1)[-1] if self.words else ""

    @property
    def rest(self) -> list[Word]:
        return self.words[1:]


@dataclass(frozen=True)
class Probe:
    """A health check over HTTP that Kubernetes makes."""

    path: str | None
    port: str | None
    line: int
    port_line: int


@dataclass
class Container:
    """A container of Compose or Kubernetes, or the image that a Dockerfile builds."""

    name: str
    image: str | None
    line: int
    built: bool = False
    settings: list[Setting] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    args: list[Word] = field(default_factory=list)
    ports: list[tuple[str, int]] = field(default_factory=list)  # container port, line
    port_names: set[str] = field(default_factory=set)
    probes: list[Probe] = field(default_factory=list)
    own_command: bool = False  # it starts something else than the image does
    server: str | None = None  # the known server in it
    port: int | None = None  # where that listens, None where that cannot be said

    def has(self, name: str) -> bool:
        return any(setting.name == name for setting in self.settings)


@dataclass(frozen=True)
class Address:
    """A URL in a command or a value. `server`: the known server that answers there, or None."""

    server: str | None
    host: str
    port: int | None
    path: str
    line: int
    method: str | None = None
    text: str = ""
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Image:
    """An image that is named. `line` is that of the name."""

    name: str
    line: int


@dataclass
class Document:
    """A file, or a block of one, as a kind. `first` is the file's line of the text's first; a fragment may lack its frame."""

    kind: str
    text: str
    first: int = 1
    fragment: bool = False
    name: str = ""
    commands: list[Command] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    addresses: list[Address] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    trees: list[Any] = field(default_factory=list)  # yamls.Node, one a YAML document
    inner: list[Document] = field(default_factory=list)  # heredocs that are known kinds
    code: list[tuple[int, str]] = field(default_factory=list)  # lines without comments
    data: Any = None
