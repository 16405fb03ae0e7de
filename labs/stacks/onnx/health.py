"""The container's health check: exit code 0 only when the service says that it would answer a request now, and has its model's files.

A model that was deleted from its volume still answers from memory, yet the next start would have none.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

MODEL = Path(os.environ.get("SERVICE_MODEL", "/models/model"))
URL = f"http://127.0.0.1:{os.environ.get('SERVICE_PORT', '8080')}/health/ready"


def problem():
    if not (MODEL / "genai_config.json").is_file():
        return f"no model at {MODEL}"
    try:
        with urllib.request.urlopen(URL, timeout=3):
            return None
    except urllib.error.HTTPError as error:
        return json.load(error)["why"]
    except OSError as error:
        return f"the service does not answer: {error}"


if __name__ == "__main__":
    found = problem()
    sys.stdout.write(f"{found or 'healthy'}\n")
    sys.exit(1 if found else 0)
