"""Images: built from a folder with its Containerfile as a user wrote it, tagged for this run, removed with it.

What this machine needs beside the file is mounted while it is built, and is in no layer: pip's configuration and the
bundle of certificates that the environment names (PIP_…, SSL_CERT_FILE), and a cache folder for pip's downloads.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.core import paths
from labkit.core.errors import BadInput
from labkit.servers.images import bases, long, runs, sweep
from labkit.servers.images.tool import Tool
from labkit.servers.runtimes.base import Say, to_stderr

CONFIG = "/etc/xdg/pip"  # one of the places where pip looks; a mounted folder hides nothing of an image there


@dataclass(frozen=True)
class Image:
    """A built image. `layers` newest first: (bytes, the command that made it)."""

    ref: str
    id: str
    bytes: int
    layers: list[tuple[int, str]]

    def inspect(self) -> dict:
        return _inspected(runs.current().tool, self.ref)

    def remove(self) -> None:
        """Its tag, now; the layers stay for the next build."""
        words = ["rmi", "--no-prune", self.ref]
        runs.current().tool.run(words, check=False)


def inspect(ref: str) -> Image:
    """An image that is here, by its tag or id. Raises RunFailed where it is not."""
    tool = runs.current().tool
    about = _inspected(tool, ref)
    return Image(ref, str(about["Id"]).removeprefix("sha256:"), int(about["Size"]), _layers(tool, ref))


def build(
    folder: Path | str,
    tag: str,
    *,
    args: Mapping[str, str] | None = None,
    file: str = "Containerfile",
    target: str | None = None,
    contexts: Mapping[str, Path | str] | None = None,
    volumes: Sequence[tuple[Path | str, str, str]] = (),
    cache: bool = True,
    labels: Mapping[str, str] | None = None,
    say: Say = to_stderr,
) -> Image:
    """Build FOLDER/FILE. The tag gets this run's id, so that no other run or image of the user's has it: use Image.ref.

    `contexts`: further folders, for `COPY --from=NAME`. `volumes`: (folder here, path, "ro" or "rw"), there while it is
    built and in no layer (podman only). Says a line every quarter of a minute. Raises BadInput (no such file), RunFailed with
    the last error line of the build; Ctrl-C leaves no container of it.
    """
    folder = Path(folder)
    recipe = folder / file
    if not recipe.is_file():
        raise BadInput(f"there is no {file} in {folder}", "file=… names another one")
    words = [word for name, value in (args or {}).items() for word in ("--build-arg", f"{name}={value}")]
    words += [word for name, value in {**(labels or {}), **runs.current().labels}.items() for word in ("--label", f"{name}={value}")]
    words += ["--target", target] if target else []
    words += [] if cache else ["--no-cache"]
    return made(folder, recipe, run_tag(tag), words, say, args=args or {}, contexts=contexts or {}, volumes=volumes)


def made(
    folder: Path,
    recipe: Path,
    ref: str,
    words: Sequence[str],
    say: Say,
    *,
    args: Mapping[str, str] | None = None,
    contexts: Mapping[str, Path | str] | None = None,
    volumes: Sequence[tuple[Path | str, str, str]] = (),
) -> Image:
    """Build what RECIPE says under this very name, its base images first."""
    run = runs.current()
    for base in public(recipe.read_text(encoding="utf-8"), args or {}):
        bases.ensure(base, say)
    first = command(run.tool, run.label, recipe, contexts or {}, volumes)
    title = ref.rsplit("/", 1)[1].removesuffix(f"-{run.id}").removesuffix(f":{run.id}").removeprefix("labkit-")
    long.run([run.tool.path, *first, *words, "--tag", ref, str(folder)], f"building {title}", say, f"its lines are in {recipe}")
    return inspect(ref)


def run_tag(tag: str) -> str:
    """ "llama:q8" -> "localhost/labkit-llama:q8-12-ab" in run 12-ab."""
    name, _, version = tag.removeprefix("localhost/").partition(":")
    return f"localhost/labkit-{name}:{f'{version}-' if version else ''}{runs.current().id}"


def command(
    tool: Tool,
    label: str,
    recipe: Path,
    contexts: Mapping[str, Path | str],
    volumes: Sequence[tuple[Path | str, str, str]],
) -> list[str]:
    """The words of a build, without its arguments, labels, tag and folder."""
    words = ["build", "--network", "host", "--file", str(recipe)]
    words += [word for name, path in contexts.items() for word in ("--build-context", f"{name}={path}")]
    if tool.name != "podman":
        if volumes:
            raise BadInput("Docker mounts no folder while it builds", "a build argument or a context instead, or podman")
        return [*words, "--progress", "plain"]
    mounts = [*machine_volumes(), *volumes]
    words += ["--format", "docker", "--add-host", f"{sweep.mark(label)}:127.0.0.1"]
    return words + [word for host, path, mode in mounts for word in ("--volume", f"{host}:{path}:{mode}")]


def machine_volumes() -> list[tuple[Path | str, str, str]]:
    """What a download needs on this machine: pip's settings and certificates as the environment names them, and pip's cache."""
    mounts: list[tuple[Path | str, str, str]] = [(paths.cache("images", "pip"), "/root/.cache/pip", "rw")]
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_") and value}
    bundle = next((os.environ[name] for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if os.environ.get(name)), None)
    wanted = {"index_url", "extra_index_url", "trusted_host", "proxy", "timeout"}
    lines = ["[global]", "disable-pip-version-check = true", "root-user-action = ignore"]
    lines += [
        f"{name.replace('_', '-')} = {settings[f'PIP_{name.upper()}']}" for name in sorted(wanted) if f"PIP_{name.upper()}" in settings
    ]
    if "PIP_DEFAULT_TIMEOUT" in settings:
        lines.append(f"timeout = {settings['PIP_DEFAULT_TIMEOUT']}")
    folder = paths.cache("images", "build")
    (folder / "wheels").mkdir(exist_ok=True)  # where the next one is mounted
    wheels = Path(settings.get("PIP_FIND_LINKS", ""))
    if settings.get("PIP_FIND_LINKS") and wheels.is_dir():
        mounts.append((wheels, f"{CONFIG}/wheels", "ro"))
        lines.append(f"find-links = {CONFIG}/wheels")
    if bundle and Path(bundle).is_file():
        lines.append(f"cert = {CONFIG}/certificates.pem")
        _same(folder / "certificates.pem", Path(bundle).read_text(encoding="utf-8"))
    _same(folder / "pip.conf", "\n".join(lines) + "\n")
    return [(folder, CONFIG, "ro"), *mounts]


def _same(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with paths.atomic(path, "w") as file:
            file.write(text)


def public(recipe: str, args: Mapping[str, str]) -> list[str]:
    """The images that a Containerfile builds on, with its ARG defaults or these values; not its own stages."""
    known: dict[str, str] = {}
    stages: set[str] = {"scratch"}
    found = []
    for line in recipe.replace("\\\n", " ").splitlines():
        word, *rest = line.split() or [""]
        if word.upper() == "ARG" and rest:
            name, _, default = rest[0].partition("=")
            known[name] = args.get(name, default.strip("\"'"))
        if word.upper() == "FROM":
            rest = [one for one in rest if not one.startswith("--")]
            ref = re.sub(r"\$\{?(\w+)(?::-([^}]*))?\}?", lambda m: known.get(m[1]) or m[2] or "", rest[0])
            if ref not in stages and ref not in found:
                found.append(ref)
            if len(rest) == 3:
                stages.add(rest[2])
        for ref in re.findall(r"--from=(\S+)", line) if word.upper() in {"COPY", "ADD"} else ():
            if ("/" in ref or ":" in ref) and ref not in found:
                found.append(ref)
    return found


def _inspected(tool: Tool, ref: str) -> dict:
    found = json.loads(tool.run(["image", "inspect", ref]).stdout)
    return dict(found[0])


def _layers(tool: Tool, ref: str) -> list[tuple[int, str]]:
    """Size and command of each layer, newest first."""
    if tool.name == "podman":  # its template gives "2.1 MB", its JSON bytes
        rows = json.loads(tool.run(["history", "--no-trunc", "--format", "json", ref]).stdout)
        return [(int(row["size"]), str(row.get("CreatedBy") or row.get("comment") or "").strip()) for row in rows]
    words = ["history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", ref]
    pairs = (line.split("\t", 1) for line in tool.run(words).stdout.splitlines() if line.strip())
    return [(int(size), made.strip()) for size, made in pairs]
