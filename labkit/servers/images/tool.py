"""Podman or Docker: which one is here, and its command line. Arguments are lists; nothing passes through a shell.

LABKIT_WITHOUT=containers (or podman, or docker) treats them as not installed, to see a lab as it looks without them.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.core import paths
from labkit.core.errors import MissingPart, RunFailed

NAMES = ("podman", "docker")
_HELPERS = ("/usr/lib/podman", "/usr/libexec/podman", "/usr/local/lib/podman", "/usr/local/libexec/podman")
# 4096 is below any hard limit that we met; podman asks for 1,048,576, which a user or a sandbox may not be allowed to set
_LIMITS = {"nofile": 4096, "nproc": 4096}


@dataclass(frozen=True)
class Tool:
    """The program that builds and runs containers here."""

    name: str
    path: str
    version: str

    def run(
        self, words: Sequence[str], *, check: bool = True, stdin: str | None = None, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One short command of it, both streams kept. Raises RunFailed with the last line of its errors.

        Ctrl-C waits until it has ended: one that is cut in the middle leaves a half-made container.
        """
        done = call([self.path, *map(str, words)], stdin=stdin, folder=folder)
        if check and done.returncode:
            said = last_line(done.stderr or done.stdout)
            raise RunFailed(f"{self.name} {' '.join(map(str, words[:2]))} failed: {said}", "labkit doctor")
        return done


def call(
    command: Sequence[str], *, stdin: str | None = None, added: Mapping[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A short command with the tool's environment. Ctrl-C lets it end first."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment() | dict(added or {}),
        cwd=folder,
        start_new_session=os.name == "posix",
    ) as process:
        try:
            out, errors = process.communicate(stdin)
        except BaseException:
            end(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def end(process: subprocess.Popen[str], patience_s: float = 15) -> None:
    """Let it finish; then SIGTERM, then SIGKILL."""
    for signal_it in (lambda: None, process.terminate, process.kill):
        signal_it()
        try:
            process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            continue
        return


def last_line(text: str) -> str:
    """The last line that says something, without the word "Error:"."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ").removeprefix("error: ")[:300] if lines else "it said nothing"


def missing() -> str | None:
    """None, or one sentence that ends with the install command. A Docker client without its engine does not count."""
    try:
        tool()
    except MissingPart as error:
        return f"{error.cause}; install it: {error.next}"
    return None


def version() -> str:
    """Such as "podman 4.3.1". Raises MissingPart."""
    found = tool()
    return f"{found.name} {found.version}"


def tool() -> Tool:
    """Podman, or Docker whose engine answers; podman first. Raises MissingPart where there is neither."""
    hidden = os.environ.get("LABKIT_WITHOUT", "").split(",")
    silent = []
    for name in NAMES:
        path = shutil.which(name)
        if path is None or {name, "containers"} & set(hidden):
            continue
        version = _version(name, path)
        if version:
            return Tool(name, path, version)
        silent.append(name)
    if "containers" in hidden:
        raise MissingPart("podman and Docker are hidden by LABKIT_WITHOUT", _install())
    if silent == ["docker"]:
        raise MissingPart("Docker's client is here, but its engine does not answer, and podman is not installed", _install())
    if silent:
        raise MissingPart(f"{' and '.join(silent)} cannot run containers here (`podman info` says why)", _install())
    raise MissingPart("neither podman nor Docker is installed", _install())


def environment() -> dict[str, str]:
    """What the tool has in its environment: this process's, and labkit's containers.conf where podman's defaults fail."""
    if os.environ.get("CONTAINERS_CONF") or not needs_conf():
        return dict(os.environ)
    return os.environ | {"CONTAINERS_CONF": str(_conf())}


def needs_conf() -> bool:
    """On Linux without systemd: podman would ask it for control groups, a log and timers."""
    return sys.platform == "linux" and not Path("/run/systemd/system").is_dir()


def conf_text() -> str:
    """The containers.conf for such a machine. The user's own files stay as they are."""
    limits = ", ".join(f'"{name}={value}:{value}"' for name, value in _LIMITS.items())
    runtime = next((name for name in ("crun", "runc") if shutil.which(name)), None)
    lines = ["# made by labkit for a machine without systemd", "[containers]", f"default_ulimits = [{limits}]", "[engine]"]
    lines += [f'runtime = "{runtime}"'] if runtime else []
    lines += ['cgroup_manager = "cgroupfs"', 'events_logger = "file"']
    if any((Path(folder) / "netavark").is_file() for folder in _HELPERS):
        lines += ["[network]", 'network_backend = "netavark"']
    return "\n".join(lines) + "\n"


def _conf() -> Path:
    path = paths.cache("images") / "containers.conf"
    text = conf_text()
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with paths.atomic(path, "w") as file:
            file.write(text)
    return path


def _version(name: str, path: str) -> str | None:
    return _answered(name, path, str(environment().get("CONTAINERS_CONF", "")))


@functools.lru_cache
def _asked(name: str, path: str, _conf: str) -> str:
    """The version of what runs containers: podman's own, Docker's engine. Raises OSError where it does not answer."""
    words = ["info", "--format", "{{.Version.Version}}"] if name == "podman" else ["version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run([path, *words], capture_output=True, text=True, timeout=60, check=False, env=environment())
    except subprocess.TimeoutExpired as error:
        raise OSError("no answer within a minute") from error
    version = done.stdout.strip()
    if done.returncode or not version:
        raise OSError(last_line(done.stderr))
    return version


def _answered(name: str, path: str, conf: str) -> str | None:
    """Only an answer is remembered: an engine that is started later is found."""
    try:
        return _asked(name, path, conf)
    except OSError:
        return None


def _install() -> str:
    if sys.platform == "darwin":
        return "brew install podman && podman machine init --now"
    if os.name == "nt":
        return "winget install RedHat.Podman, then: podman machine init --now"
    if shutil.which("apt-get"):
        return "sudo apt-get install podman"
    return "sudo dnf install podman" if shutil.which("dnf") else "your system's package podman"
