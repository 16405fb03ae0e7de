"""Text to ids and back with a folder's own tokenizer.json and chat template, as Hugging Face's library reads them.

>>> text = HfText(folder)
>>> text.tokenize("def add(a, b):")
[316, 730, 8, 65, 12, 303, 298]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.core.errors import BadInput
from labkit.core.records import Message, Request
from labkit.engines import stream, templates


class HfText:
    """The tokenizer of a model folder; tokenizer_config.json and chat_template.jinja are read where they are there."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self.plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises the bare class
            raise BadInput(f"{folder} has no readable tokenizer.json: {str(error)[:100]}", "convert the model again") from error
        self._config = _json(folder / "tokenizer_config.json")
        template = folder / "chat_template.jinja"
        written = template.read_text(encoding="utf-8") if template.is_file() else self._config.get("chat_template")
        self.chat_template: str | None = written if isinstance(written, str) else None
        self._start = self._marker("bos_token")

    @property
    def bos(self) -> int | None:
        """The token that this model wants in front of a text; None where it wants none."""
        found = self.plain.encode("", add_special_tokens=True).ids
        return int(found[0]) if found and found[0] == self.plain.token_to_id(self._start) else None

    def tokenize(self, text: str, special: bool = False, bos: bool = False) -> list[int]:
        """Token ids of a text; `special` also reads markers such as <|im_start|>."""
        self.plain.encode_special_tokens = not special
        return [int(token) for token in self.plain.encode(text, add_special_tokens=bos).ids]

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> str:
        return str(self.plain.decode(list(tokens), skip_special_tokens=not special))

    def chat_prompt(self, messages: Sequence[Message]) -> str:
        """The text that the model sees; plain texts one after another where it has no chat template."""
        if self.chat_template is None:
            return templates.plain(messages)
        return templates.render(self.chat_template, messages, self._start, self._marker("eos_token"))

    def prompt_tokens(self, request: Request, n_vocab: int) -> list[int]:
        """The ids that a request puts in front of the model. Raises BadInput for an id outside the vocabulary."""
        if request.tokens is not None:
            return stream.check_ids(request.tokens, n_vocab, "give ids of this model's tokenizer")
        text = (request.prompt if request.messages is None else self.chat_prompt(request.messages)) or ""
        written = bool(self._start) and text.startswith(self._start)  # the template wrote it already
        return self.tokenize(text, special=request.messages is not None, bos=not written)

    def _marker(self, name: str) -> str:
        """The text of a marker; the file has it bare or inside a table."""
        found = self._config.get(name) or ""
        return str(found.get("content", "")) if isinstance(found, dict) else str(found)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is no JSON", "convert the model again") from error
    return found if isinstance(found, dict) else {}
