"""An expected error becomes a sentence; a missing or another one fails."""

import pytest

from labkit.core.errors import BadInput, MissingPart
from labkit.learn.expect import expect_error


def test_prints_the_error_as_one_sentence(capsys):
    with expect_error(BadInput):
        raise BadInput("there is no model x", "did you mean y?")
    assert capsys.readouterr().out == "BadInput: there is no model x — did you mean y?\n"


def test_one_line_even_for_errors_of_many(capsys):
    with expect_error(ValueError, KeyError):
        raise ValueError("first\n  second")
    assert capsys.readouterr().out == "ValueError: first second\n"


def test_without_kinds_labkits_own_errors_are_meant(capsys):
    with expect_error():
        raise MissingPart("no engine")
    with pytest.raises(ZeroDivisionError), expect_error():
        1 / 0  # noqa: B018


def test_another_error_passes():
    with pytest.raises(KeyError), expect_error(ValueError):
        raise KeyError("x")


def test_no_error_is_a_failure():
    with pytest.raises(AssertionError, match="expected BadInput or ValueError, and nothing was raised"), expect_error(BadInput, ValueError):
        pass
