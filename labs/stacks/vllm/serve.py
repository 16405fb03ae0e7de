"""The container's one process: waits until there is a model, then becomes vLLM's server, which hears SIGTERM and drains by itself.

All settings come from the environment; README.md lists them. Words given to the container go on to `vllm serve`.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

MODEL = Path(os.environ.get("MODEL_PATH", "/models/model"))


def setting(name, default):
    return os.environ.get(name, default)


def command():
    """`vllm serve` and its words. 0.0.0.0 is this container's own network: what reaches it is decided where its port is published."""
    told = {
        "served-model-name": setting("MODEL_NAME", MODEL.name),
        "host": "0.0.0.0",  # noqa: S104
        "port": setting("PORT", "8000"),
        "dtype": setting("DTYPE", "bfloat16"),
        "max-model-len": setting("CONTEXT", "2048"),
        "max-num-seqs": setting("MAX_NUM_SEQS", "16"),
        "kv-cache-memory-bytes": str(int(setting("KV_MIB", "512")) << 20),
        "shutdown-timeout": setting("DRAIN_SECONDS", "3"),
    }
    words = [word for name, value in told.items() for word in (f"--{name}", value)]
    return ["vllm", "serve", str(MODEL), *words, "--enforce-eager", "--enable-prompt-tokens-details", *sys.argv[1:]]


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if not (MODEL / "config.json").is_file():
        sys.stderr.write(f"no model at {MODEL} yet: waiting for one\n")
    while not (MODEL / "config.json").is_file():
        time.sleep(0.5)
    program = shutil.which("vllm")
    if program is None:
        sys.exit("the program vllm is not in this image")
    os.environ["OMP_NUM_THREADS"] = setting("THREADS", "2")
    # a program that takes this one's place starts with the usual SIGTERM, which ends it, until vLLM sets its own
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.execv(program, command())  # noqa: S606 - our own words


if __name__ == "__main__":
    main()
