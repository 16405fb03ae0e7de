"""The exercises of lab 17: the loop with its ends and pieces of text here; what a service says in lab_17_service.py.

No model and no server: the loop gets pieces of text that were drawn, so that grading takes milliseconds anywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from labkit.learn.check import Exercise, Part, Wrong
from labkit.learn.exercises.lab_17_service import health, retry_after, status

__all__ = ["answer", "health", "retry_after", "status", "whole_pieces"]

_WORDS = (" the", " sea", " is", " calm", " and", " blue", " today", ",", " a", " ship", " goes", " by")

# -- answer(pieces, max_tokens, stop)


class _Pieces:
    """Pieces of text as a model makes them, one at a time; counts how many were asked for."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.asked = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.asked += 1
            yield text


def _expected(texts: list[str], max_tokens: int, stop: list[str]) -> tuple[str, str]:
    text = ""
    for count, piece in enumerate(texts):
        if count == max_tokens:
            return text, "length"
        text += piece
        found = [text.find(one) for one in stop if one in text]
        if found:
            return text[: min(found)], "stop"
    return text, "stop"


def _given(value: Any) -> tuple[str, str] | None:
    pair = list(value) if isinstance(value, (tuple, list)) else []
    return (pair[0], pair[1]) if len(pair) == 2 and all(isinstance(one, str) for one in pair) else None


_PAIR = 'Return two texts: the answer, and why it ended ("stop" or "length").'


def _limit(cut: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        texts = [str(rng.choice(_WORDS)) for _ in range(int(rng.integers(9, 14)))]
        most = int(rng.integers(3, 7)) if cut else len(texts) + int(rng.integers(3, 9))
        pieces = _Pieces(texts)
        given, right = _given(answer(pieces, most, [])), _expected(texts, most, [])
        if given is None:
            return _PAIR
        if cut and given[0] in ("".join(texts[: most + 1]), "".join(texts[: most - 1])):
            return f"max_tokens is {most}: that many tokens, not one more and not one less."
        if cut and given[0] == "".join(texts):
            return "The answer has more than max_tokens tokens. Whoever asks for few must get few."
        if given[0] != right[0]:
            return "The answer is the pieces one after another, with nothing between them."
        if given[1] != right[1]:
            return (
                'An answer that max_tokens cut off ends with "length", so that the client knows that it is not whole.'
                if cut
                else 'The model ended this answer itself: that is "stop".'
            )
        if cut and pieces.asked > most + 1:
            return f"You asked the model for {pieces.asked} tokens to give out {most}. Nobody gets the rest: end the loop."
        return None

    return test


def _stopping(answer: Any, rng: Any) -> str | None:
    before = [str(rng.choice(_WORDS)) for _ in range(int(rng.integers(2, 6)))]
    after = [str(rng.choice(_WORDS)) for _ in range(4)]
    whole = bool(rng.integers(0, 2))
    ends = ["END!"] if whole else [" well", " E", "ND! no"]
    texts, stop = [*before, *ends, *after], ["never said", "END!"]
    pieces = _Pieces(texts)
    given, right = _given(answer(pieces, 50, list(stop))), _expected(texts, 50, stop)
    if given is None:
        return _PAIR
    if given == right and pieces.asked > len(before) + len(ends):
        return "The stop text was there, and the loop went on. End it at once: the place is wanted by others."
    if given == right:
        return None
    if given[0] == "".join(texts):
        return (
            "A stop text is in the pieces, and the answer goes past it."
            if whole
            else "The stop text came in two pieces, ' E' and 'ND! no'. Look for it in the whole text so far."
        )
    if given[0].endswith("END!") or "END!" in given[0]:
        return "The stop text ends the answer and does not belong to the answer: cut it off, and what follows it."
    if given[0] == "".join(before) and not whole:
        return "What stands before the stop text belongs to the answer, also where both came in one piece."
    if given[0] == right[0]:
        return 'A stop text ended this answer: that is "stop".'
    return "Add each piece to the text; where a stop text is in it, give out what stands before it."


_LOOP = 'text = ""\nfor count, piece in enumerate(pieces):\n    if count == max_tokens:\n        return text, "length"\n    text += piece\n'
_CUT = '    for one in stop:\n        if one in text:\n            return text[:text.find(one)], "stop"\n'

answer = Exercise(
    "answer",
    "The loop and its three ends",
    (
        Part(1, "the model ends it", _limit(False)),
        Part(1, "max_tokens ends it", _limit(True)),
        Part(1, "a stop text ends it", _stopping),
    ),
    (
        Wrong(
            'text = ""\nfor piece in pieces:\n    text += piece\n    if any(one in text for one in stop):\n        break\n'
            'return text, "stop"',
            "more than max_tokens",
            "knows no limit",
        ),
        Wrong(
            'done = list(pieces)\ntext = "".join(done[:max_tokens])\n'
            "found = [text.find(one) for one in stop if one in text]\nreturn (text[:min(found)] if found else text), "
            '"length" if len(done) > max_tokens and not found else "stop"',
            "Nobody gets",
            "computes everything and cuts afterwards",
        ),
        Wrong(_LOOP.replace('"length"', '"stop"') + _CUT + 'return text, "stop"', '"length"', "hides that the answer was cut off"),
        Wrong(
            _LOOP.replace("count == max_tokens", "count > max_tokens") + _CUT + 'return text, "stop"', "not one more", "writes one too many"
        ),
        Wrong(
            _LOOP.replace("    text += piece\n", '    if piece in stop:\n        return text, "stop"\n    text += piece\n')
            + 'return text, "stop"',
            "two pieces",
            "looks into each piece alone",
        ),
        Wrong(
            _LOOP + '    if any(one in text for one in stop):\n        return text, "stop"\nreturn text, "stop"',
            "does not belong",
            "gives the stop text out",
        ),
    ),
)


# -- whole_pieces(tokens)

_TEXTS = ("Größe", "naïve", "日本語", "5 € ☕", "🙂 ja", "Ελλάδα", "добро", "déjà 🚢")


def _split(text: str, rng: Any, aligned: bool) -> list[bytes]:
    """The bytes of a text in tokens: at the borders of characters, or anywhere."""
    raw = text.encode()
    if aligned:
        return [character.encode() for character in text]
    cuts = sorted({int(n) for n in rng.integers(1, len(raw), len(raw) // 2)})
    edges = [0, *cuts, len(raw)]
    return [raw[a:b] for a, b in itertools.pairwise(edges)]


def _wholes(tokens: list[bytes]) -> list[str]:
    """The text that is whole after each token."""
    return [b"".join(tokens[: n + 1]).decode("utf-8", "ignore") for n in range(len(tokens))]


def _valid(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoded(split: str) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        text = " ".join(str(one) for one in rng.permutation(_TEXTS)[:3])
        tokens = _split(text, rng, split == "aligned")
        if split == "broken":  # max_tokens came in the middle of a character
            tokens = [*_split(text, rng, False), "🚢".encode()[: int(rng.integers(1, 4))]]
        got = answer(list(tokens))
        if not isinstance(got, (list, tuple)) or not all(isinstance(one, str) for one in got):
            return "Return a list of texts."
        if len(got) != len(tokens):
            return f"One text for each token, an empty one where nothing is whole yet: {len(tokens)} texts. Yours are {len(got)}."
        if any("�" in one for one in got):
            return (
                "There is a replacement character (�) in a piece: a token may end in the middle of a character."
                " Keep its bytes until the rest comes."
            )
        whole = "".join(got)
        if len(tokens) > 1 and len(whole) > len(text) + 1 and whole.count(text[:2]) > text.count(text[:2]):
            return "What was sent is sent again. Each piece is only what is new since the one before."
        if whole != text:
            return "Characters are lost: bytes that are no whole character yet must be kept for the next token, not thrown away."
        done, seen = _wholes(tokens), ""
        for n, piece in enumerate(got):
            seen += piece
            if not done[n].startswith(seen):
                return "A piece came before its bytes did."
            if _valid(b"".join(tokens[: n + 1])) and seen != done[n]:
                return "It comes out right, but late. As soon as the bytes so far are whole characters, send them: that is streaming."
        return None

    return test


whole_pieces = Exercise(
    "whole_pieces",
    "No half characters",
    (
        Part(1, "tokens that are whole characters", _decoded("aligned")),
        Part(1, "tokens that cut characters", _decoded("cut")),
        Part(1, "an answer that ends in the middle of one", _decoded("broken")),
    ),
    (
        Wrong('return [token.decode("utf-8", "replace") for token in tokens]', "replacement character", "decodes each token alone"),
        Wrong('return [token.decode("utf-8", "ignore") for token in tokens]', "Characters are lost", "throws half characters away"),
        Wrong(
            'return [b"".join(tokens[:n + 1]).decode("utf-8", "ignore") for n in range(len(tokens))]',
            "sent again",
            "sends all of the text each time",
        ),
        Wrong(
            'return [""] * (len(tokens) - 1) + [b"".join(tokens).decode("utf-8", "ignore")]',
            "late",
            "sends everything at the end",
        ),
        Wrong(
            'held, out = b"", []\nfor token in tokens:\n    held += token\n    try:\n        out.append(held.decode())\n'
            '        held = b""\n'
            "    except UnicodeDecodeError:\n        pass\nreturn out",
            "One text for each token",
            "leaves out what is not whole",
        ),
    ),
)
