"""What a lab says about itself: the YAML header of its source, under `labkit:`.

    # ---
    # labkit:
    #   title: Which model fits?
    #   minutes: 40
    #   memory_gb: 1.2
    #   track: [run]
    #   builds_on: [0, 1]
    #   expected: ["decode: 10 to 200 tokens/s"]
    #   transfer: ["What if the context doubled?", …]     five of them, for the instructor
    # ---

The built notebook carries none of it; the table of labs, the course map and the instructor's page read it here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from labkit.core.errors import BadInput, nearest

_LISTS = ("track", "builds_on", "platforms", "prerequisites", "expected", "transfer")


@dataclass(frozen=True)
class Front:
    """The header; what a lab leaves out is empty."""

    title: str
    minutes: float | None = None
    memory_gb: float | None = None
    track: tuple[str, ...] = ()
    builds_on: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ("Linux", "macOS", "Windows")
    prerequisites: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    transfer: tuple[str, ...] = ()


def front(source: Path) -> Front:
    """Read the header of a source.

    Raises:
        BadInput: it is not YAML, or has a name or a kind of value that is not known.
    """
    raw = _header(source)
    known = {field.name for field in fields(Front)}
    for name in raw:
        if name not in known:
            raise BadInput(f"{source.name}: its header has an unknown entry {name!r}", nearest(str(name), known))
    values: dict[str, Any] = {"title": source.stem[3:].replace("_", " ").capitalize()}
    for name, value in raw.items():
        values[name] = tuple(_text(name, item) for item in _list(source, name, value)) if name in _LISTS else value
    for name in ("minutes", "memory_gb"):
        number = values.get(name)
        if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float)) or number <= 0):
            raise BadInput(f"{source.name}: {name} must be a number above 0, not {number!r}", "mend the header")
    return Front(**values)


def _header(source: Path) -> dict[str, Any]:
    import yaml

    lines = source.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].strip() != "# ---":
        return {}
    body = []
    for line in lines[1:]:
        if line.strip() == "# ---":
            break
        body.append(line.removeprefix("#").removeprefix(" "))
    try:
        found = yaml.safe_load("\n".join(body)) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 2})" if mark else ""
        raise BadInput(f"{source.name}: its header is not YAML{where}", "put texts that hold a colon in quotes") from error
    # jupytext keeps what stands under `jupyter:`; both places are fine
    inner = found.get("jupyter") if isinstance(found.get("jupyter"), dict) else {}
    ours = found.get("labkit", (inner or {}).get("labkit", {}))
    if not isinstance(ours, dict):
        raise BadInput(f"{source.name}: `labkit:` in its header must hold names and values", "mend the header")
    return ours


def _list(source: Path, name: str, value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    raise BadInput(f"{source.name}: {name} must be a list, not {value!r}", f"write {name}: [ … ]")


def _text(name: str, item: Any) -> str:
    if isinstance(item, dict):  # `- decode: 10 to 200` without quotes is a mapping in YAML
        return "; ".join(f"{key}: {value}" for key, value in item.items())
    if name == "builds_on" and str(item).isdecimal():
        return f"{int(item):02d}"
    return str(item)
