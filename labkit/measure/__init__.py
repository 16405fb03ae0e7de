"""How fast, how big, how good?

>>> measure.run(session, Request.chat("Why is the sky blue?"), repeats=5)
"""

from __future__ import annotations

from labkit.measure.clock import ab, best_threads, one, run, spread, sweep_threads, tell

__all__ = ["ab", "best_threads", "one", "run", "spread", "sweep_threads", "tell"]
