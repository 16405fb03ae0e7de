"""Options of an engine's `load` and a server's `start`, checked in one place: an unknown one is refused with the nearest name."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from labkit.core.errors import BadInput, nearest

Options = TypeVar("Options", bound=BaseModel)


def parse(kind: type[Options], owner: str, given: dict[str, Any], remedy: str = "labkit serve --help") -> Options:
    """Validated options of `owner`, such as "ollama" or "engine ollama".

    Raises BadInput: unknown name (the nearest is suggested) or wrong type.
    """
    for name in given:
        if name not in kind.model_fields:
            raise BadInput(f"{owner} has no option {name!r} ({nearest(name, kind.model_fields)})", remedy)
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        # what is wrong with several together has no place of its own
        what = f"option {first['loc'][0]}" if first["loc"] else "the options"
        raise BadInput(f"{what} of {owner}: {first['msg'].lower()}", remedy) from None
