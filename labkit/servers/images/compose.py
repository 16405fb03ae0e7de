"""A Compose stack, started for real: by podman-compose, or by `docker compose`. Its project is this run's, and goes with it.

>>> with images.compose(folder, project="chat", env={"PORT": "8443"}) as stack:  # doctest: +SKIP
...     stack.up()
...     print(stack.url("proxy", 8443, scheme="https"))
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from labkit.core import extras
from labkit.core.errors import BadInput, MissingPart, RunFailed, nearest
from labkit.servers.images import bases, long, runs
from labkit.servers.images.build import command as build_words
from labkit.servers.images.build import public
from labkit.servers.images.container import Container
from labkit.servers.images.tool import call, tool
from labkit.servers.runtimes.base import Say, to_stderr

_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"  # both tools set these


class Stack:
    """The services of a Compose file. Nothing runs before `up`; `down` removes containers, networks and named volumes."""

    def __init__(self, folder: Path, project: str, env: Mapping[str, str], files: Sequence[str]) -> None:
        self._run = runs.current()
        self.folder, self.files, self.env = folder, [folder / file for file in files], dict(env)
        self._notes = self._run.folder("stack")
        self.project = f"labkit-{self._run.id}-{project}"
        if gone := [path for path in self.files if not path.is_file()]:
            raise BadInput(f"there is no {gone[0].name} in {folder}", "files=… names another one")
        self._words = _program(self._run.tool.name)

    def config(self) -> dict[str, Any]:
        """The file as the tool understands it, variables filled in."""
        return dict(yaml.safe_load(self._tool("config")))

    def up(self, services: Sequence[str] = (), *, options: Sequence[str] = (), say: Say = to_stderr) -> dict[str, list[Container]]:
        """Build what is to be built, start, and return the services' containers. It does not wait: `wait` does. Raises RunFailed."""
        self._run.project(self.project)
        wanted = self.config()["services"]
        try:
            for name, service in wanted.items():
                if not services or name in services:
                    self._bases(service, say)
            if any("build" in service for service in wanted.values()):
                self._long(["build", *services], f"building the images of {self.folder.name}", say)
            self._long(["up", "--detach", *options, *services], f"starting {self.folder.name}", say)
        except BaseException:
            self.down()
            raise
        return self.services

    @property
    def services(self) -> dict[str, list[Container]]:
        """Service -> its containers, ended ones too."""
        listing = ["ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={_PROJECT}={self.project}"]
        out: dict[str, list[Container]] = {}
        ids = self._run.tool.run(listing).stdout.split()
        for about in json.loads(self._run.tool.run(["container", "inspect", *ids]).stdout) if ids else ():
            published = (about["NetworkSettings"].get("Ports") or {}).items()
            ports = {int(inside.split("/")[0]): int(host[0]["HostPort"]) for inside, host in published if host}
            container = Container(self._run, about["Name"].lstrip("/"), about["Id"], ports, self._notes)
            out.setdefault(about["Config"]["Labels"][_SERVICE], []).append(container)
        return out

    def container(self, service: str) -> Container:
        """A service's first container. Raises BadInput: no such service, or it is not up."""
        found = self.services
        if service not in found:
            raise BadInput(f"{self.folder.name} runs no service {service!r} ({nearest(service, found)})", "up() first")
        return found[service][0]

    def url(self, service: str, port: int, scheme: str = "http") -> str:
        """Where the service's port is on this machine. Raises BadInput where it publishes none."""
        ports = self.container(service).ports
        if port not in ports:
            raise BadInput(f"service {service} does not publish port {port}", f"published: {ports}")
        return f"{scheme}://127.0.0.1:{ports[port]}"

    def wait(self, *services: str, seconds: float = 60) -> None:
        """Until the health checks of these services pass, of all that have one where none is named. Raises RunFailed."""
        for name, containers in self.services.items():
            for one in containers:
                if name in services or (not services and one.inspect()["Config"].get("Healthcheck")):
                    one.wait(seconds=seconds)

    def logs(self, service: str | None = None) -> str:
        """What they wrote, each line with its service's name in front."""
        found = self.services
        chosen = {service: found.get(service, [])} if service else found
        return "\n".join(f"{name} | {line}" for name, rows in chosen.items() for one in rows for line in one.logs().splitlines())

    def peak_memory_bytes(self) -> int:
        """The sum of its containers' peaks."""
        return sum(one.peak_memory_bytes for containers in self.services.values() for one in containers)

    def down(self, seconds: int = 10) -> None:
        """Stop and remove its containers, networks and named volumes."""
        self._tool("down", "--volumes", "--timeout", str(seconds), check=False)

    def _bases(self, service: dict[str, Any], say: Say) -> None:
        """The public images that a service runs on or is built from."""
        if "build" not in service:
            bases.ensure(service["image"], say)
            return
        given = service["build"]
        given = {"context": given} if isinstance(given, str) else given
        folder = self.folder / given.get("context", ".")
        names = [given["dockerfile"]] if "dockerfile" in given else ["Containerfile", "Dockerfile"]
        recipe = next((folder / name for name in names if (folder / name).is_file()), None)
        if recipe is None:
            raise BadInput(f"there is no {' or '.join(names)} in {folder}", "its build: section names one")
        args = given.get("args") or {}
        args = dict(one.partition("=")[::2] for one in args) if isinstance(args, list) else args
        for ref in public(recipe.read_text(encoding="utf-8"), {name: str(value) for name, value in args.items()}):
            bases.ensure(ref, say)

    def _command(self, words: Sequence[str]) -> list[str]:
        files = [word for path in self.files for word in ("--file", str(path))]
        command = [*self._words, "--project-name", self.project, *files]
        if self._run.tool.name == "podman":
            made = build_words(self._run.tool, self._run.label, Path(), {}, ())
            # without "build" and "--file": podman-compose says these itself
            command += ["--in-pod", "false", f"--podman-build-args={' '.join(_without(made, '--file')[1:])} --label {self._run.label}"]
            command += [f"--podman-run-args=--label {self._run.label} --pull=never"]
        return [*command, *words]

    def _long(self, words: Sequence[str], what: str, say: Say) -> None:
        long.run(self._command(words), what, say, f"its file is {self.files[0]}", added=self.env, folder=self._notes)

    def _tool(self, *words: str, check: bool = True) -> str:
        done = call(self._command(words), added=self.env, folder=self._notes)
        if check and done.returncode:
            raise RunFailed(f"{self.files[0]}: {long.error_line(done.stderr.splitlines())}", "docs/how-to/containers.md")
        return done.stdout

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()


def compose(folder: Path | str, *, project: str, env: Mapping[str, str] | None = None, files: Sequence[str] = ("compose.yaml",)) -> Stack:
    """A stack of FOLDER's Compose files. `env` fills their variables. Raises MissingPart, BadInput."""
    return Stack(Path(folder).resolve(), project, env or {}, files)


def missing_compose() -> str | None:
    """None, or one sentence that ends with the install command."""
    try:
        _program(tool().name)
    except MissingPart as error:
        return f"{error.cause}; install it: {error.next}"
    return None


def _program(name: str) -> list[str]:
    if name == "docker":
        return ["docker", "compose"]
    extras.require("compose")
    return [sys.executable, "-m", "podman_compose"]


def _without(words: Sequence[str], option: str) -> list[str]:
    at = list(words).index(option)
    return [*words[:at], *words[at + 2 :]]
