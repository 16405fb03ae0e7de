"""The event loop of the load generator: it wakes on time, and it runs beside a notebook's own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import select
import selectors
import threading
from collections.abc import Coroutine
from typing import Any

_MOST_FD = 1024  # of select(2)

if hasattr(selectors, "EpollSelector"):

    class _Punctual(selectors.EpollSelector):
        """epoll whose waits end to the microsecond. Python rounds epoll's own up to whole milliseconds, which would make every request
        half a millisecond late; select(2) has no such unit, and can wait for an epoll as for any file."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout and timeout > 0 and self.fileno() < _MOST_FD:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)


def new() -> asyncio.AbstractEventLoop:
    """Linux: a punctual one. Elsewhere asyncio's own: macOS's kqueue counts in nanoseconds anyway."""
    return asyncio.SelectorEventLoop(_Punctual()) if hasattr(selectors, "EpollSelector") else asyncio.new_event_loop()


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run it on an event loop of its own, in a thread: a notebook has one that is running already. Ctrl-C ends it in good order."""
    loop, failed = new(), []
    ended = threading.Event()  # a Thread's own join, interrupted, takes a running thread for one that has ended (Python 3.11)
    task = loop.create_task(work)

    def main() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass  # Ctrl-C: the caller raises
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failed.append(error)
        finally:
            loop.close()
            ended.set()

    # what is there already is left out of collections: one that walks a notebook's heap would stop the clock for long
    gc.collect()
    gc.freeze()
    threading.Thread(target=main, name="labkit-load", daemon=True).start()
    try:
        while not ended.wait(0.5):
            pass
    except BaseException:
        with contextlib.suppress(RuntimeError):  # the loop has just been closed
            loop.call_soon_threadsafe(task.cancel)
        ended.wait()
        raise
    finally:
        gc.unfreeze()
    if failed:
        raise failed[0]
