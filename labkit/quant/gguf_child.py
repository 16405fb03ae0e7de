"""The child process of `labkit.quant.gguf`: it quantizes one file and prints a JSON object a line.

`need_bytes` (the plan; it then waits for a line on stdin), `at` and `of` (the tensor it is at), `error`, `missing` (the
library cannot be loaded) or `done`. It ends, and takes its unfinished file along, when its stdin is closed: so it cannot
outlive a parent that was killed.

    python -m labkit.quant.gguf_child '{"source": "in.gguf", "out": "out.gguf", "ftype": 2, "threads": 2}'
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from labkit.models import inspect

_STEP = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")
_SIZE = re.compile(r"quant size\s*=\s*([\d.]+) MiB")
_BUFFER_BYTES = 256 << 20  # rows of one matrix held in memory at once


def main(task: dict[str, Any]) -> int:
    """Two passes over the tensors: the first only plans, and says how large the file will be."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, who ends this process
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        return _tell(2, missing=str(error))
    log: list[str] = []

    def heard(level: int, text: bytes, _: Any) -> None:
        log.append(text.decode(errors="replace"))
        step = _STEP.match(log[-1])
        if step and not params.dry_run:
            _tell(at=int(step[1]), of=int(step[2]))

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = task["ftype"], task["threads"], True
    params.max_buf_size = _BUFFER_BYTES
    callback = llama_cpp.llama_log_callback(heard)
    llama_cpp.llama_log_set(callback, None)
    names = task["source"].encode(), task["out"].encode()
    for dry in (True, False):
        params.dry_run = dry
        if llama_cpp.llama_model_quantize(*names, ctypes.byref(params)):
            failures = [line.strip() for line in log if "failed" in line or "error" in line.lower()]
            return _tell(1, error=failures[-1].rpartition("failed to quantize: ")[2] if failures else "it gave no reason")
        if dry:
            found, source = _SIZE.search("".join(log)), inspect.read(task["source"])
            _tell(need_bytes=round(float(found[1]) * 2**20 if found else 0) + source.file_bytes - source.tensor_bytes)
            if not sys.stdin.readline():
                return 1
            threading.Thread(target=_end_with_parent, args=(Path(task["out"]),), daemon=True).start()
    return _tell(0, done=True)


def _tell(code: int = 0, **fields: Any) -> int:
    print(json.dumps(fields), flush=True)  # noqa: T201 - this is the child's answer
    return code


def _end_with_parent(out: Path) -> None:
    os.read(0, 1)  # returns when the other end is closed; the interpreter's own lock on stdin is left alone
    out.unlink(missing_ok=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
