"""Does Loki take the log lines of a busy day in, and find one request among them? Held against grep over the same lines in a file."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from labkit.servers import loki

LINES, WITHIN_S, REPEATS = 100_000, 1.0, 5


def logs_find() -> str:
    """Seconds until a request is found by its id among 100,000 lines, over those of grep; target: under a second."""
    ids = [str(uuid.uuid4()) for _ in range(LINES)]
    begin = time.time_ns() - 60 * 10**9
    lines = [
        (begin + n * 10**5, json.dumps({"request_id": one, "server": f"r{n % 4}", "status": 200, "total_ms": n % 997}))
        for n, one in enumerate(ids)
    ]
    with loki.start() as running, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "log"
        file.write_text("\n".join(text for _, text in lines), encoding="utf-8")
        start = time.perf_counter()
        loki.push(running.url, {"job": "haproxy"}, lines)
        took_in = time.perf_counter() - start
        found_s, grep_s = [], []
        for n in range(REPEATS):
            wanted = ids[(n + 1) * LINES // (REPEATS + 2)]
            start = time.perf_counter()
            rows = loki.search(running.url, f'{{job="haproxy"}} | json | request_id="{wanted}"')
            found_s.append(time.perf_counter() - start)
            assert [json.loads(row["line"])["request_id"] for row in rows] == [wanted]
            start = time.perf_counter()
            subprocess.run(["grep", "-c", wanted, str(file)], check=True, capture_output=True)
            grep_s.append(time.perf_counter() - start)
    ours, bare = statistics.median(found_s), statistics.median(grep_s)
    line = f"logs_find ratio={ours / bare:.0f} (labkit {ours:.3f} / bare {bare:.3f} s, n={REPEATS})"
    assert max(found_s) < WITHIN_S, line
    return f"{line} [one of {LINES:,} lines by its id, slowest {max(found_s):.2f} s; taken in within {took_in:.1f} s; bare is grep]"
