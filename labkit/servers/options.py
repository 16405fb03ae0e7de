"""Options of a server's `start`, checked in one place: an unknown one is refused with the nearest known name."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from labkit.core.errors import BadInput, nearest

Options = TypeVar("Options", bound=BaseModel)
_NEXT = "labkit serve --help"


def parse(kind: type[Options], server: str, given: dict[str, Any]) -> Options:
    """Validated options. Raises BadInput: unknown name (nearest suggested) or wrong type."""
    for name in given:
        if name not in kind.model_fields:
            raise BadInput(f"{server} has no option {name!r} ({nearest(name, kind.model_fields)})", _NEXT)
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"option {first['loc'][0]} of {server}: {first['msg'].lower()}", _NEXT) from None
