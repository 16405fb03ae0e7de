"""The container's health check: exit code 0 only when this server has its model and takes new requests.

Asked are the server itself (/health is 503 while it loads; /v1/models names what it serves) and the file: a model that was
deleted from its volume still answers from memory, yet the next start would have none.
"""

import json
import os
import sys
import urllib.request
from pathlib import Path

URL = f"http://127.0.0.1:{os.environ.get('PORT', '8080')}"
MODEL = Path(os.environ.get("MODEL_PATH", "/models/model.gguf"))
NAME = os.environ.get("MODEL_NAME", MODEL.stem)


def ask(route):
    with urllib.request.urlopen(URL + route, timeout=3) as reply:  # noqa: S310 - our own address
        return json.load(reply)


def problem():
    if Path("/tmp/draining").exists():  # noqa: S108 - the container's own /tmp
        return "it was told to stop"
    if not MODEL.is_file():
        return f"no model at {MODEL}"
    try:
        ask("/health")
        names = [row["id"] for row in ask("/v1/models")["data"]]
    except OSError as error:
        return f"the server does not answer: {error}"
    return None if NAME in names else f"the server has {names}, not {NAME}"


if __name__ == "__main__":
    found = problem()
    sys.stdout.write(f"{found or 'healthy'}\n")
    sys.exit(1 if found else 0)
