"""The ONNX service's small parts, without a model: whole characters, stop strings, limits, settings; and what its image installs."""

import ast
import importlib.util
import itertools
import random
import sys

import pytest

from labkit.core import paths

STACK = paths.labs("stacks", "onnx")


@pytest.fixture(autouse=True)
def service(monkeypatch):
    monkeypatch.syspath_prepend(str(STACK))
    yield
    for name in [one for one in sys.modules if one.split(".")[0] == "service"]:
        del sys.modules[name]


def pieces_of(text, sizes):
    """The bytes of a text as tokens of those sizes, in turn."""
    data, tokens = text.encode(), []
    while data:
        size = sizes[len(tokens) % len(sizes)]
        tokens.append(data[:size])
        data = data[size:]
    return tokens


def detokenizer(tokens):
    from service.decode import Detokenizer

    return Detokenizer(lambda ids: b"".join(tokens[one] for one in ids).decode(errors="replace"))


@pytest.mark.parametrize("sizes", [[1], [2], [3], [1, 2, 5], [7]])
@pytest.mark.parametrize("text", ["Größe 日本 🙂🙃", "plain", "🙂", "e\u0301\u200d👩\u200d🚀!", "\ufffd is itself a character"])
def test_a_text_comes_in_whole_characters_however_its_bytes_are_cut(text, sizes):
    tokens = pieces_of(text, sizes)
    one = detokenizer(tokens)
    pieces = [one.push(n) for n in range(len(tokens))]
    assert "".join(pieces) + one.flush() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_never_become_a_character_are_shown_as_such_and_hold_nothing_back_for_ever():
    tokens = [b"a", b"\xff", *[b"\x80"] * 30, b"z"]
    one = detokenizer(tokens)
    pieces = [one.push(n) for n in range(len(tokens))]
    assert any("\ufffd" in piece for piece in pieces[:12])
    assert ("".join(pieces) + one.flush()).endswith("z")


def test_a_tokenizer_that_writes_the_first_token_of_a_text_differently_is_no_trouble():
    from service.decode import Detokenizer

    words = ["Hello", "world", "again"]
    one = Detokenizer(lambda ids: " ".join(words[n] for n in ids))  # no blank in front of the first
    assert "".join(one.push(n) for n in range(3)) == "Hello world again"


def cut(stops, pieces):
    from service.decode import StopStrings

    one, shown = StopStrings(stops), ""
    for piece in pieces:
        text, ended = one.push(piece)
        shown += text
        if ended:
            return shown, True
    return shown + one.flush(), False


@pytest.mark.parametrize("seed", range(40))
def test_stop_strings_are_found_across_any_border_and_nothing_of_them_is_shown(seed):
    draw = random.Random(seed)
    text = "".join(draw.choice("abc") for _ in range(60))
    stops = ["".join(draw.choice("abc") for _ in range(draw.randint(2, 5))) for _ in range(draw.randint(1, 3))]
    borders = sorted({0, len(text), *(draw.randrange(len(text)) for _ in range(20))})
    pieces = [text[start:end] for start, end in itertools.pairwise(borders)]
    first = min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)
    shown, ended = cut(stops, pieces)
    assert ended == (first is not None)
    if first is None:
        assert shown == text
    else:  # of several stop strings the first one that is complete ends it, which may begin a little later
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
        assert len(shown) - first < 5


def test_what_may_be_a_stop_string_is_held_back_and_given_out_when_it_is_none():
    from service.decode import StopStrings

    one = StopStrings(["END"])
    assert one.push("the E") == ("the ", False)
    assert one.push("N") == ("", False)
    assert one.push("ough") == ("ENough", False)
    assert one.push(" E") == (" ", False)
    assert one.flush() == "E"


def test_a_temperature_that_would_overflow_means_greedy():
    from service.decode import Asked

    assert Asked([1], 4, temperature=1e-300).search_options() == {"max_length": 5, "do_sample": False}
    assert Asked([1], 4, temperature=1, top_p=1e-9).search_options()["do_sample"] is False
    assert Asked([1], 4, seed=2**40 + 7).search_options()["random_seed"] == 7
    assert Asked([1], 4).search_options()["random_seed"] != Asked([1], 4).search_options()["random_seed"]


def test_settings_come_from_the_command_line_then_the_environment(monkeypatch):
    from service.settings import parse

    monkeypatch.setenv("SERVICE_QUEUE_LENGTH", "3")
    monkeypatch.setenv("SERVICE_DRAIN_SECONDS", "1.5")
    found = parse(["--queue-length", "5", "--model", "x/y"])
    assert (found.queue_length, found.drain_seconds, found.served_name) == (5, 1.5, "y")
    for wrong in (["--parallel", "0"], ["--port", "-1"], ["--body-seconds", "0"], ["--parallel", "x"]):
        with pytest.raises(SystemExit):
            parse(wrong)


def test_the_service_knows_nothing_of_labkit_and_its_image_has_what_it_imports():
    known = {"fastapi", "starlette", "uvicorn", "h11", "pydantic", "prometheus_client", "numpy", "onnxruntime_genai", "service"}
    for file in STACK.joinpath("service").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = (
                [one.name for one in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for name in names:
                top = name.split(".")[0]
                assert top in known or top in sys.stdlib_module_names, f"{file.name} imports {name}"


def test_the_images_requirements_are_those_of_the_lock():
    place = paths.home() / "scripts" / "stack_requirements.py"
    spec = importlib.util.spec_from_file_location("stack_requirements", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (STACK / "requirements.txt").read_text(encoding="utf-8")
    assert written == module.text(), "uv.lock has changed: .venv/bin/python scripts/stack_requirements.py"
    assert all(line.startswith(("#", "    --hash=sha256:")) or "==" in line for line in written.splitlines())
    assert {f"{name}==" for name in module.WANTED} <= {line.partition("==")[0] + "==" for line in written.splitlines()}
