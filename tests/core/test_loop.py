"""Work that is done again and again beside the rest."""

import threading
import time

import pytest

from labkit.core.loop import Loop


def test_it_works_at_once_and_again_and_not_after_its_end():
    times, third = [], threading.Event()

    def work():
        times.append(time.monotonic())
        if len(times) == 3:
            third.set()

    loop = Loop(work, 0.01, "test")
    assert third.wait(10)
    loop.stop()
    count = len(times)
    time.sleep(0.05)
    assert len(times) == count
    loop.check()


def test_what_goes_wrong_ends_it_and_is_raised_by_check():
    calls = []

    def work():
        calls.append(None)
        raise ValueError("broken")

    loop = Loop(work, 0.001, "test")
    loop._thread.join(10)
    loop.stop()
    assert len(calls) == 1
    with pytest.raises(ValueError, match="broken"):
        loop.check()
