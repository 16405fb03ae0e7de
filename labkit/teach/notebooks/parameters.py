"""What can be set in a notebook, and is what was given of the right type? Asked before a kernel starts.

The parameters cell is read, not run: annotated assignments of plain values, one comment each. Any notebook with a cell
tagged `parameters` will do; without an annotation the default's type counts.

>>> parse("3", "int"), parse("true", "bool"), parse("a,b", "list[str]")
(3, True, ['a', 'b'])
"""

from __future__ import annotations

import ast
import io
import json
import math
import sys
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.core.errors import BadInput, nearest

if TYPE_CHECKING:
    from nbformat import NotebookNode

_SCALARS = ("bool", "int", "float", "str")
_WORDS = {"true": True, "false": False}
_NONE = ("none", "null")


@dataclass(frozen=True)
class Parameter:
    """One name of the parameters cell. `annotation` is 'Any' where neither it nor the default tells the type."""

    name: str
    annotation: str
    default: Any
    comment: str = ""


def read(notebook: NotebookNode | Path | str) -> dict[str, Parameter]:
    """The parameters of a notebook, in its order.

    Raises:
        BadInput: not a notebook, no cell tagged `parameters`, or one that is not plain Python.
    """
    source = parameters_cell(load(notebook)).source
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise BadInput(f"the parameters cell is not plain Python (line {error.lineno})", "keep to lines such as `seed: int = 1`") from error
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    for node in statements:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            annotation = node.annotation.value if isinstance(node.annotation, ast.Constant) else ast.unparse(node.annotation)
            name, value = node.target.id, node.value
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name, value, annotation = node.targets[0].id, node.value, ""
        else:
            continue
        default, kind = _default(value)
        found[name] = Parameter(name, str(annotation) or kind, default, comments.get(node.end_lineno or 0, ""))
    return found


def validate(notebook: NotebookNode | Path | str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values as the notebook's types want them (3 becomes 3.0 for a float); those not given are left out.

    Raises:
        BadInput: an unknown name, with the nearest one, or a value of another type.
    """
    known = read(notebook)
    return {name: _accept(_known(name, known), value) for name, value in given.items()}


def from_text(notebook: NotebookNode | Path | str, given: Mapping[str, str]) -> dict[str, Any]:
    """`validate` for texts of a command line, each parsed by its parameter's annotation."""
    known = read(notebook)
    parsed = {}
    for name, text in given.items():
        parameter = _known(name, known)
        try:
            parsed[name] = parse(text, parameter.annotation)
        except BadInput as error:
            raise BadInput(f"parameter {name}: {error.cause}", error.next) from error
    return parsed


def parse(text: str, annotation: str) -> Any:
    """The value that a text stands for, read as `annotation`: `true`, `3`, `a,b` or `["a", "b"]`.

    Raises:
        BadInput: it stands for none.
    """
    for kind in sorted(_kinds(annotation), key=_text_last):
        try:
            return _convert(text, kind)
        except ValueError:
            continue
    raise BadInput(f"{text!r} is not {_article(annotation)}", _example(annotation))


def load(notebook: NotebookNode | Path | str) -> NotebookNode:
    """A notebook from its file, or itself.

    Raises:
        BadInput: the file cannot be read as a notebook.
    """
    if not isinstance(notebook, (Path, str)):
        return notebook
    import nbformat

    path = Path(notebook)
    try:
        return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    except (ValueError, AttributeError, KeyError, TypeError, nbformat.ValidationError) as error:
        raise BadInput(f"{path} is not a notebook", "open it in JupyterLab, or build it again") from error


def parameters_cell(notebook: NotebookNode) -> NotebookNode:
    """The cell tagged `parameters`.

    Raises:
        BadInput: there is none, or more than one.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []) and cell.cell_type == "code"]
    if len(cells) != 1:
        raise BadInput(
            f"the notebook has {len(cells) or 'no'} cell{'s'[: len(cells) != 1]} tagged `parameters`", "tag exactly one code cell"
        )
    return cells[0]


def with_values(notebook: NotebookNode, values: Mapping[str, Any]) -> NotebookNode:
    """A copy whose parameters cell has other defaults; comments and annotations stay."""
    import copy

    known = read(notebook)
    changed = copy.deepcopy(notebook)
    cell = parameters_cell(changed)
    source = cell.source.encode()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in reversed(ast.parse(cell.source).body):
        if not isinstance(node, (ast.AnnAssign, ast.Assign)) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        name = target.id if isinstance(target, ast.Name) else ""
        if name in values:
            end = starts[(node.value.end_lineno or 1) - 1] + (node.value.end_col_offset or 0)
            start = starts[node.value.lineno - 1] + node.value.col_offset
            source = source[:start] + repr(_accept(known[name], values[name])).encode() + source[end:]
    for name in values:
        _known(name, known)
    cell.source = source.decode()
    return changed


def _known(name: str, known: Mapping[str, Parameter]) -> Parameter:
    if name not in known:
        raise BadInput(f"there is no parameter {name!r}", nearest(name, known) if known else "the notebook has none")
    return known[name]


def _accept(parameter: Parameter, value: Any) -> Any:
    kinds = _kinds(parameter.annotation)
    for kind in kinds:
        if kind == "Any" or _is(value, kind):
            return _as(value, kind)
    raise BadInput(f"parameter {parameter.name} must be {_article(parameter.annotation)}, not {value!r}", _example(parameter.annotation))


def _is(value: Any, kind: str) -> bool:
    if kind == "None":
        return value is None
    if kind.startswith("list"):
        item = kind[5:-1]
        return isinstance(value, (list, tuple)) and all(not item or _is(one, item) for one in value)
    if isinstance(value, bool):
        return kind == "bool"  # True is 1 to Python, and a slip to a reader
    if kind == "float":
        return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
    return isinstance(value, {"int": int, "str": str}.get(kind, ()))


def _as(value: Any, kind: str) -> Any:
    if kind == "float":
        return float(value)
    if kind.startswith("list"):
        return [_as(one, kind[5:-1]) for one in value]
    return value


def _kinds(annotation: str) -> list[str]:
    """The alternatives of an annotation, `float | None` as ['float', 'None'].

    Raises:
        BadInput: a type that is not among those a parameter may have.
    """
    try:
        return _alternatives(ast.parse(annotation, mode="eval").body)
    except (SyntaxError, KeyError) as error:
        raise BadInput(
            f"a parameter cannot have the type {annotation}", "use str, int, float, bool, list[str], list[int], or one of them `| None`"
        ) from error


def _alternatives(node: ast.expr) -> list[str]:
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _alternatives(left) + _alternatives(right)
        case ast.Name(id=name) if name in (*_SCALARS, "Any", "list"):
            return [name]
        case ast.Constant(value=None):
            return ["None"]
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return [*_alternatives(inner), "None"]
        case ast.Subscript(value=ast.Name(id="list"), slice=ast.Name(id=item)) if item in _SCALARS:
            return [f"list[{item}]"]
    raise KeyError(ast.unparse(node))


def _convert(text: str, kind: str) -> Any:
    """Raises ValueError where the text is no such value."""
    if kind == "str":
        return text
    if kind == "None":
        if text.lower() in _NONE:
            return None
        raise ValueError(text)
    if kind == "bool":
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        raise ValueError(text)
    if kind in ("int", "float"):
        number = int(text) if kind == "int" else float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return number
    if kind == "Any":
        try:
            return json.loads(text)
        except ValueError:
            return text
    if text.strip().startswith("["):
        items = json.loads(text)
        if not _is(items, kind):
            raise ValueError(text)
        return _as(items, kind)
    return [_convert(item.strip(), kind[5:-1] or "str") for item in text.split(",") if item.strip()]


def _text_last(kind: str) -> int:
    order = ("None", "bool", "int", "float", "list", "Any", "str")
    return order.index(kind.partition("[")[0])


def _article(annotation: str) -> str:
    return (
        annotation if "|" in annotation or annotation.startswith("list") else f"{'an' if annotation[0] in 'aeioAEIO' else 'a'} {annotation}"
    )


def _example(annotation: str) -> str:
    examples = {"bool": "true or false", "int": "such as 3", "float": "such as 0.5", "str": "such as text", "None": "none"}
    lists = {"str": "such as a,b", "int": "such as 1,2", "float": "such as 0.1,0.5", "bool": "such as true,false", "": "such as a,b"}
    said = [examples.get(kind) or lists.get(kind[5:-1], "") for kind in _kinds(annotation)]
    return "give " + ", or ".join(word for word in said if word)


def _default(node: ast.expr) -> tuple[Any, str]:
    """A default and the type that it tells."""
    try:
        default = ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node), "Any"  # computed when the notebook runs
    if isinstance(default, list):
        kinds = {type(item).__name__ for item in default}
        return default, f"list[{kinds.pop()}]" if len(kinds) == 1 and kinds <= set(_SCALARS) else "list"
    return default, type(default).__name__ if type(default).__name__ in _SCALARS else "Any"


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ").rstrip() for token in tokens if token.type == tokenize.COMMENT}
