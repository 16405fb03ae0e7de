"""An error that is the lesson: shown as one sentence, not as a stack trace.

A notebook that leaves an error in its outputs counts as failed when it runs unattended, even where a tag allows the
error. So a lab catches what it expects, and fails where the error does not come.

>>> with expect_error(ValueError):
...     int("forty")
ValueError: invalid literal for int() with base 10: 'forty'
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from labkit.core.errors import LabkitError


@contextmanager
def expect_error(*kinds: type[Exception]) -> Iterator[None]:
    """Print an error of one of `kinds` (labkit's own, where none is named) and go on; let every other one pass.

    Raises:
        AssertionError: nothing was raised.
    """
    expected = kinds or (LabkitError,)
    try:
        yield
    except expected as error:
        text = " ".join(str(error).split())
        print(f"{type(error).__name__}: {text}" if text else type(error).__name__)  # noqa: T201 - the learner reads it
    else:
        names = " or ".join(kind.__name__ for kind in expected)
        raise AssertionError(f"expected {names}, and nothing was raised")
