"""Requests that go on while something is looked at, and waiting for what is to be seen."""

import contextlib
import threading
import time

from labkit.measure import load
from labkit.measure.load import Plan


def until(ask, seconds=60):
    end = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.3)
    return found


@contextlib.contextmanager
def asked(base_url, model, **plan):
    """Requests one after the other for as long as the block lasts."""
    stop = threading.Event()

    def work():
        while not stop.is_set():
            load.run(
                base_url, model, Plan(**{"concurrency": 2, "requests": 2, "output_tokens": 8, "prompt_tokens": 24, "warmup": 0} | plan)
            )

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
