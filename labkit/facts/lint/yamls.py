"""YAML with the line of every value. Aliases and merge keys are followed; what does not parse gives no tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml


@dataclass(frozen=True)
class Node:
    """A value of a YAML document; `first` is added to its line."""

    raw: yaml.Node
    first: int

    @property
    def line(self) -> int:
        return self.raw.start_mark.line + self.first

    @property
    def text(self) -> str | None:
        """A scalar's text."""
        return self.raw.value if isinstance(self.raw, yaml.ScalarNode) else None

    @property
    def plain(self) -> bool:
        """A scalar that is written without quotes, and is no number or boolean by its tag."""
        return isinstance(self.raw, yaml.ScalarNode) and self.raw.style is None

    @property
    def block(self) -> bool:
        """A `|` or `>` scalar: its text begins on the next line."""
        return isinstance(self.raw, yaml.ScalarNode) and self.raw.style in ("|", ">")

    @property
    def text_line(self) -> int:
        return self.line + (1 if self.block else 0)

    @property
    def is_map(self) -> bool:
        return isinstance(self.raw, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        return isinstance(self.raw, yaml.SequenceNode)

    def items(self, *path: str) -> Iterator[tuple[str, Node, Node]]:
        """(key, key's node, value) of the map below a path, merged keys last; nothing where there is none."""
        if path:
            found = self.get(*path)
            yield from found.items() if found else ()
            return
        if not isinstance(self.raw, yaml.MappingNode):
            return
        merged: list[yaml.Node] = []
        for key, value in self.raw.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value == "<<":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            else:
                yield key.value, Node(key, self.first), Node(value, self.first)
        for source in merged:
            yield from Node(source, self.first).items()

    def get(self, *path: str) -> Node | None:
        here: Node | None = self
        for name in path:
            here = next((value for key, _, value in here.items() if key == name), None) if here else None
        return here

    def key(self, name: str) -> Node | None:
        return next((node for key, node, _ in self.items() if key == name), None)

    def each(self, *path: str) -> list[Node]:
        """The items of the list below a path; none where there is none."""
        if path:
            found = self.get(*path)
            return found.each() if found else []
        return [Node(child, self.first) for child in self.raw.value] if isinstance(self.raw, yaml.SequenceNode) else []

    def string(self, *path: str) -> str | None:
        found = self.get(*path) if path else self
        return found.text if found else None

    def scalars(self, seen: frozenset[int] = frozenset()) -> Iterator[Node]:
        """Every scalar below, keys left out."""
        if id(self.raw) in seen:
            return
        deeper = seen | {id(self.raw)}
        if self.text is not None:
            yield self
        for child in self.each():
            yield from child.scalars(deeper)
        for _, _, child in self.items():
            yield from child.scalars(deeper)

    def mapping(self) -> dict[str, str]:
        """A map of scalars."""
        return {key: value.text for key, _, value in self.items() if value.text is not None}


def parse(text: str, first: int = 1) -> list[Node]:
    """The documents of a text whose first line is the file's line `first`; [] where it is no YAML."""
    try:
        return [Node(node, first) for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
    except (yaml.YAMLError, RecursionError):
        return []
