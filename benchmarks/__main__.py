"""Run the named benchmarks, or all of them: `python -m benchmarks [NAME…]`."""

from __future__ import annotations

import importlib
import sys

# name -> module:function that returns the line
NAMES = {
    "import_cost": "benchmarks.import_cost:import_cost",
    "decode": "benchmarks.engines:decode",
    "prefill": "benchmarks.engines:prefill",
    "threads_auto": "benchmarks.engines:threads_auto",
    "batch_rerun": "benchmarks.batch_rerun:batch_rerun",
    "batch_parallel": "benchmarks.batch_parallel:batch_parallel",
    "ladder": "benchmarks.ladder:ladder",
    "blocks_encode": "benchmarks.blocks:blocks_encode",
    "lint": "benchmarks.lint:check_files",
    "load_overhead": "benchmarks.load:load_overhead",
    "load_schedule": "benchmarks.load:load_schedule",
    "logs_find": "benchmarks.logs:logs_find",
    "queue_model": "benchmarks.queue_model:queue_model",
}


def main(chosen: list[str]) -> int:
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        print(f"no benchmark {unknown[0]}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in chosen or NAMES:
        module, _, function = NAMES[name].partition(":")
        print(getattr(importlib.import_module(module), function)(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
