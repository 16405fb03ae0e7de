"""Parts that a machine may lack: programs, and a network with nothing in it but loopback."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# what a part may be called on the path, and how to get it; any other name is looked up as it is
PROGRAMS = {
    "chromium": ["chromium", "chromium-browser", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"],
    "uv": [str(ROOT / ".tools" / "uv" / "bin" / "uv"), "uv"],
    "c++": ["c++", "g++", "clang++"],
}
LOOPBACK_ONLY = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def network_namespace() -> list[str] | None:
    """The words in front of a command that give it a network of its own; None where the system does not allow it."""
    for prefix in (LOOPBACK_ONLY, ["unshare", "--map-root-user", *LOOPBACK_ONLY[1:]]):
        if shutil.which("unshare") and shutil.which("ip"):
            done = subprocess.run([*prefix, "true"], capture_output=True, check=False)
            if done.returncode == 0:
                return prefix
    return None


def find_program(name: str) -> str | None:
    return next((path for candidate in PROGRAMS.get(name, [name]) if (path := shutil.which(candidate))), None)
