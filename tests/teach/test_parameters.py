"""The parameters cell is read without a kernel; what does not fit is refused with a sentence."""

import nbformat
import pytest

from labkit.core.errors import BadInput
from labkit.teach.notebooks import build, parameters
from labkit.teach.notebooks.parameters import Parameter

CELL = """\
import os
model: str = "smollm2-135m"  # a name # or a path
threads: int = 0  # "0": choose
rate: float = 0.5
quick: bool = False
engines: list[str] = ["llamacpp"]  # in this order
counts: list[int] = [
    1,
    2,
]  # tokens
url: str | None = None  # where
note: "int | None" = 3
home = os.getcwd()
plain = 2.5
names = ["a"]
mixed = ["a", 1]
thing: dict = {}
"""


def notebook(cell=CELL, tags=("parameters",)):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell, metadata={"tags": list(tags)})])


def test_read():
    found = parameters.read(notebook())
    assert list(found.values()) == [
        Parameter("model", "str", "smollm2-135m", "a name # or a path"),
        Parameter("threads", "int", 0, '"0": choose'),
        Parameter("rate", "float", 0.5),
        Parameter("quick", "bool", False),
        Parameter("engines", "list[str]", ["llamacpp"], "in this order"),
        Parameter("counts", "list[int]", [1, 2], "tokens"),
        Parameter("url", "str | None", None, "where"),
        Parameter("note", "int | None", 3),
        Parameter("home", "Any", "os.getcwd()"),
        Parameter("plain", "float", 2.5),
        Parameter("names", "list[str]", ["a"]),
        Parameter("mixed", "list", ["a", 1]),
        Parameter("thing", "dict", {}),
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("model", "qwen3-0.6b", "qwen3-0.6b"),
        ("threads", 3, 3),
        ("rate", 1, 1.0),
        ("rate", 0.25, 0.25),
        ("quick", True, True),
        ("engines", ("a", "b"), ["a", "b"]),
        ("counts", [], []),
        ("url", None, None),
        ("url", "http://x", "http://x"),
        ("note", None, None),
        ("home", 5, 5),
        ("mixed", [1, "x"], [1, "x"]),
    ],
)
def test_accepted(name, value, expected):
    given = parameters.validate(notebook(), {name: value})
    assert given == {name: expected}
    assert type(given[name]) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("model", 3, "parameter model must be a str, not 3"),
        ("threads", "3", "parameter threads must be an int, not '3'"),
        ("threads", 3.0, "parameter threads must be an int, not 3.0"),
        ("threads", True, "parameter threads must be an int, not True"),
        ("rate", True, "parameter rate must be a float, not True"),
        ("rate", float("nan"), "parameter rate must be a float, not nan"),
        ("rate", float("inf"), "parameter rate must be a float, not inf"),
        ("rate", 10**400, "parameter rate must be a float"),
        ("quick", 1, "parameter quick must be a bool, not 1"),
        ("engines", "llamacpp", "parameter engines must be list[str], not 'llamacpp'"),
        ("counts", [1, "2"], r"parameter counts must be list\[int\]"),
        ("counts", [True], r"parameter counts must be list\[int\]"),
        ("url", 3, r"parameter url must be str \| None, not 3"),
        ("model", None, "parameter model must be a str, not None"),
        ("thing", {}, "a parameter cannot have the type dict"),
        ("modl", "x", "there is no parameter 'modl' — did you mean model\\?"),
    ],
)
def test_refused(name, value, sentence):
    with pytest.raises(BadInput, match=sentence.replace("list[str]", r"list\[str\]")):
        parameters.validate(notebook(), {name: value})


@pytest.mark.parametrize(
    ("text", "annotation", "expected"),
    [
        ("true", "bool", True),
        ("False", "bool", False),
        ("3", "int", 3),
        ("-3", "int", -3),
        ("3", "float", 3.0),
        ("1e-3", "float", 0.001),
        ("3", "str", "3"),
        ("true", "str", "true"),
        ("", "str", ""),
        ("a, b", "list[str]", ["a", "b"]),
        ('["a,b"]', "list[str]", ["a,b"]),
        ("1,2", "list[int]", [1, 2]),
        ("", "list[int]", []),
        ("none", "str | None", None),
        ("x", "str | None", "x"),
        ("null", "Optional[int]", None),
        ("3", "int | str", 3),
        ("x", "str | int", "x"),
        ("[1]", "Any", [1]),
        ("x", "Any", "x"),
    ],
)
def test_parse(text, annotation, expected):
    value = parameters.parse(text, annotation)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "annotation"),
    [("1", "bool"), ("yes", "bool"), ("3.5", "int"), ("three", "int"), ("nan", "float"), ("inf", "float"), ("a", "list[int]"),
     ("[1, true]", "list[int]"), ("[1", "list[int]"), ("x", "int | None"), ("x", "dict[str, int]"), ("x", "set"), ("x", "1 +")],
)  # fmt: skip
def test_parse_refuses(text, annotation):
    with pytest.raises(BadInput):
        parameters.parse(text, annotation)


def test_text_names_the_parameter():
    assert parameters.from_text(notebook(), {"threads": "2", "quick": "true"}) == {"threads": 2, "quick": True}
    with pytest.raises(BadInput, match="parameter threads: 'two' is not an int — give such as 3"):
        parameters.from_text(notebook(), {"threads": "two"})
    with pytest.raises(BadInput, match="did you mean threads"):
        parameters.from_text(notebook(), {"thread": "2"})


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (notebook(tags=()), "no cells tagged `parameters`"),
        (notebook("x = (1"), "not plain Python"),
        (notebook("%matplotlib inline"), "not plain Python"),
    ],
)
def test_notebooks_without_readable_parameters(one, sentence):
    with pytest.raises(BadInput, match=sentence):
        parameters.read(one)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "not json", '{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "\x00\xff"]
)
def test_files_that_are_no_notebooks(tmp_path, text):
    path = tmp_path / "x.ipynb"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadInput, match=r"x\.ipynb"):
        parameters.read(path)
    with pytest.raises(BadInput, match="cannot read"):
        parameters.read(tmp_path / "none.ipynb")


def test_with_values_keeps_the_rest(source):
    changed = parameters.with_values(notebook(), {"counts": [7], "quick": True, "model": "ä"})
    assert parameters.read(changed)["counts"] == Parameter("counts", "list[int]", [7], "tokens")
    assert changed.cells[0].source.replace("[7]", "[\n    1,\n    2,\n]").replace("True", "False").replace("'ä'", '"smollm2-135m"') == CELL
    with pytest.raises(BadInput, match="did you mean quick"):
        parameters.with_values(build(source), {"quik": True})
