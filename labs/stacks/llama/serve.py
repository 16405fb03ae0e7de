"""llama.cpp's HTTP server as the one process of a container: it waits for its model, serves, and ends what it began.

It is set by environment variables: MODEL_PATH, MODEL_NAME, THREADS, CONTEXT (tokens for each answer), PARALLEL (answers
at once), PORT. Without a model file it waits for one, unhealthy, so that a volume may be filled while it runs.

On SIGTERM the health check fails at once, running answers go on for up to DRAIN_SECONDS, then it exits: with code 0 when
they all came whole, with 1 when the time was up and some were cut. Left to itself, llama.cpp cuts them all.
"""

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import xllamacpp

DRAINING = Path("/tmp/draining")  # noqa: S108 - the container's own /tmp, which goes with it
stop = threading.Event()


def say(text):
    sys.stderr.write(f"serve: {text}\n")


def there(model):
    """Is the file there? A folder or file that this user may not read ends the container: waiting would not help."""
    try:
        with model.open("rb"):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        say(f"user {os.getuid()} cannot read {model}: {error.strerror}")
        end(1)


def start(model):
    setting = os.environ.get
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = str(model), {setting("MODEL_NAME", model.stem)}
    params.hostnames, params.port = ["0.0.0.0"], int(setting("PORT", "8080"))  # noqa: S104 - inside; only what -p publishes is reached
    params.n_parallel = int(setting("PARALLEL", "4"))
    params.n_ctx = int(setting("CONTEXT", "2048")) * params.n_parallel
    params.kv_unified = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(setting("THREADS", "2"))
    params.endpoint_metrics = params.endpoint_slots = True
    params.n_gpu_layers, params.ui, params.cache_ram_mib = 0, False, 0
    return xllamacpp.Server(params)  # returns when the model is loaded


def running(server):
    """How many requests are being answered or wait for it, by the server's own count."""
    return sum(int(n) for n in re.findall(r"^llamacpp:requests_(?:processing|deferred) (\d+)", server.handle_metrics(), re.MULTILINE))


def drain(server, seconds):
    """Wait until nothing runs. The last words of an answer leave just after it stops counting: so twice in a row."""
    quiet, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        quiet = quiet + 1 if running(server) == 0 else 0
        if quiet == 3:
            return True
        time.sleep(0.1)
    return False


def main():
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    DRAINING.unlink(missing_ok=True)
    model = Path(os.environ.get("MODEL_PATH", "/models/model.gguf"))
    if not there(model):
        say(f"no model at {model} yet: waiting for one")
        while not (there(model) or stop.wait(0.5)):
            pass
    if stop.is_set():
        end(0)
    server = start(model)
    say(f"{model} is loaded, serving at {server.listening_address}")
    while not stop.wait(3600):
        pass
    DRAINING.touch()
    left = running(server)
    whole = drain(server, float(os.environ.get("DRAIN_SECONDS", "4")))
    say(f"told to stop with {left} running: " + ("all answered" if whole else "out of time, some were cut"))
    end(0 if whole else 1)


def end(code):
    """Leave at once: taking llama.cpp down piece by piece has nothing to save, and takes seconds while it computes."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
