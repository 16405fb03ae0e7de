"""The rules of data/lint/rules.toml, one entry each: name, kinds of document, the function that finds, message, fix and source.

Messages and fixes are filled with the words of a hit. A rule is there only if what it says is certain from the text alone.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from labkit.facts.lint.model import Document, Finding, Hit
from labkit.facts.lint.vocabulary import table


@dataclass(frozen=True)
class Rule:
    name: str
    kinds: tuple[str, ...]
    find: Callable[[Document], Iterator[Hit]]
    message: str
    fix: str
    source: str

    def reads(self, kind: str) -> bool:
        return kind in self.kinds or "every" in self.kinds

    def finding(self, file: str, hit: Hit) -> Finding:
        words = dict(hit.words)
        return Finding(
            file=file, line=hit.line, rule=self.name, message=self.message.format(**words), fix=self.fix.format(**words), source=self.source
        )


@functools.cache
def rules() -> tuple[Rule, ...]:
    rows = {name: row for name, row in table("rules").items() if isinstance(row, dict)}
    return tuple(
        Rule(name, tuple(row["kinds"]), _function(row["find"]), row["message"], row["fix"], row["source"]) for name, row in rows.items()
    )


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(f"labkit.facts.lint.{module}"), function)
