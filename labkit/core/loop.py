"""Something that is done again and again beside the rest, and whose errors are not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Loop:
    """`work` at once and then every `every_s` seconds, in a thread of its own. What goes wrong in it ends it, and `check` raises it."""

    def __init__(self, work: Callable[[], object], every_s: float, name: str) -> None:
        self._work, self._every_s = work, every_s
        self._end, self._wrong = threading.Event(), list[Exception]()
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
            while not self._end.wait(self._every_s):
                self._work()
        except Exception as error:  # noqa: BLE001 - `check` raises it, in the thread that asks
            self._wrong.append(error)

    def check(self) -> None:
        if self._wrong:
            raise self._wrong[0]

    def stop(self) -> None:
        """Returns when the work that has begun is done. What went wrong is for `check`, so that it hides no other error."""
        self._end.set()
        self._thread.join()
