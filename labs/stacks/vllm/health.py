"""The container's health check: exit code 0 only when vLLM has its model in memory, and the model is still where it was read.

Asked are the engine (/health is 503 once it is dead; /v1/models names what it serves) and the folder: a model that was deleted
from its volume still answers from memory, yet the next start would have none.
"""

import json
import os
import sys
import urllib.request
from pathlib import Path

URL = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
MODEL = Path(os.environ.get("MODEL_PATH", "/models/model"))
NAME = os.environ.get("MODEL_NAME", MODEL.name)


def ask(route):
    with urllib.request.urlopen(URL + route, timeout=3) as reply:  # noqa: S310 - our own address
        return reply.read()


def problem():
    if not (MODEL / "config.json").is_file():
        return f"no model at {MODEL}"
    try:
        ask("/health")
        names = [row["id"] for row in json.loads(ask("/v1/models"))["data"]]
    except OSError as error:
        return f"the server does not answer: {error}"
    return None if NAME in names else f"the server has {names}, not {NAME}"


if __name__ == "__main__":
    found = problem()
    sys.stdout.write(f"{found or 'healthy'}\n")
    sys.exit(1 if found else 0)
