"""Rules for images, Dockerfiles and Compose files."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.facts.lint import containers
from labkit.facts.lint.model import Container, Document, Edit, Hit
from labkit.facts.lint.rules_engines import serving
from labkit.facts.lint.vocabulary import nearest, table
from labkit.facts.lint.yamls import Node


def image(document: Document) -> Iterator[Hit]:
    rows = table("images")
    for found in document.images:
        name = containers.repository(found.name)
        if name in rows["wrong"]:
            yield Hit(found.line, {"word": found.name, "fix": rows["wrong"][name]})
        elif (
            "/" in name
            and "$" not in found.name
            and name not in rows["known"]
            and (near := nearest(name, ["ollama/ollama", "vllm/vllm-openai"], 1))
        ):
            yield Hit(found.line, {"word": found.name, "fix": near}, Edit(found.line, name, near) if name in found.name else None)


def curl_in_ollama(document: Document) -> Iterator[Hit]:
    """The official image has neither curl nor wget."""
    for command in document.commands:
        inside = command.container
        if command.where != "probe" or command.name not in {"curl", "wget"} or inside is None or inside.built:
            continue
        row = containers.known(inside.image)
        if row and row["server"] == "ollama" and not _installs(inside, command.name):
            yield Hit(command.line, {"word": command.name})


def _installs(container: Container, program: str) -> bool:
    return any(program in [word.text for word in command.words] and command.where in {"run", "start"} for command in container.commands)


def run_without_server(document: Document) -> Iterator[Hit]:
    """RUN ollama pull: no server runs while an image is built, unless the same RUN starts one."""
    needs = set(table("ollama")["commands"]) - {"serve", "start", "help", "completion", "runner", "launch", "signin", "login"}
    for container in document.containers:
        started = {
            c.group
            for c in container.commands
            if c.where == "run" and c.name == "ollama" and [w.text for w in c.words[1:2]] in (["serve"], ["start"])
        }
        started |= {
            c.group
            for c in container.commands
            if c.where == "run"
            and re.search(r"\.sh$|systemctl|service|supervisord|start-stop-daemon|s6-", " ".join(w.text for w in c.words[:2]))
        }
        told: set[int] = set()
        for command in container.commands:
            words = [word.text for word in command.words]
            ran = (
                command.where == "run"
                and command.name == "ollama"
                and len(words) > 1
                and words[1] in needs
                and not {"--help", "-h"} & set(words)
            )
            elsewhere = any(setting.name == "OLLAMA_HOST" for setting in [*command.env, *container.settings])
            if ran and command.group not in started | told and not (elsewhere and _remote(container, command.env)):
                told.add(command.group)
                yield Hit(command.line, {"command": " ".join(words[:3])})


def _remote(container: Container, env: list) -> bool:
    value = next((s.value or "" for s in [*env, *container.settings] if s.name == "OLLAMA_HOST"), "")
    return not re.match(r"(https?://)?(0\.0\.0\.0|127\.|localhost|:|$)", value)


def vllm_on_cpu(document: Document) -> Iterator[Hit]:
    for container in document.containers:
        row = containers.known(container.image)
        if not row or row["server"] != "vllm" or container.built or "cpu" in (container.image or ""):
            continue
        words = container.args or [word for command in container.commands if command.where == "start" for word in command.words]
        text = " ".join(word.text for word in words)
        device = next((n for n, word in enumerate(words) if re.fullmatch(r"--device([= ]cpu)?", word.text)), None)
        if device is not None and re.search(r"--device[= ]cpu\b", text):
            yield Hit(words[device].line, {"why": "--device cpu"})
            continue
        for setting in container.settings:
            if setting.name.startswith("VLLM_CPU_") or (setting.name == "VLLM_TARGET_DEVICE" and setting.value == "cpu"):
                yield Hit(setting.line, {"why": setting.name})
                break
    for command, words in serving(document):
        text = " ".join(word.text for word in command.words)
        ours = "vllm/vllm-openai" in text and not re.search(r"vllm-openai[-\w]*:?\S*cpu", text)
        on_cpu = "VLLM_TARGET_DEVICE=cpu" in text or re.search(r"--device[= ]cpu\b", " ".join(word.text for word in words))
        if command.name in {"docker", "podman"} and ours and on_cpu:
            yield Hit(command.line, {"why": "a CPU device"})


def port(document: Document) -> Iterator[Hit]:
    """A published container port at which the image does not listen."""
    for container in document.containers:
        if document.kind == "compose" and container.server and container.port and not container.built:
            for number, line in container.ports:
                if number.isdigit() and int(number) != container.port and len(container.ports) == 1:
                    yield Hit(line, {"image": container.image, "port": container.port, "given": number})


def _services(document: Document) -> list[tuple[str, Node, Node]]:
    services = document.trees[0].get("services") if document.trees else None
    return [(name, at, service) for name, at, service in (services.items() if services else ()) if service.is_map]


def _partial(document: Document) -> bool:
    """A file that is merged over another: an override, or one that includes or extends."""
    name = document.name.rsplit("/", 1)[-1]
    if document.fragment and not all(s.get("image") or s.get("build") for _, _, s in _services(document)):
        return True
    tree = document.trees[0] if document.trees else None
    extends = any(service.get("extends") for _, _, service in _services(document))
    bare = any(not (s.get("image") or s.get("build")) for _, _, s in _services(document))
    merged = re.search(r"override|compose[.\-_][^.]+\.ya?ml$", name)
    return bool(merged) or bool(tree and tree.get("include")) or extends or bare


def name_and_scale(document: Document) -> Iterator[Hit]:
    for name, _, service in _services(document):
        fixed = service.key("container_name")
        for path in (("scale",), ("deploy", "replicas")):
            count = service.string(*path)
            if fixed and count and count.isdigit() and int(count) > 1:
                yield Hit(fixed.line, {"service": name, "count": count})


def depends(document: Document) -> Iterator[Hit]:
    """service_healthy of a service that has no health check."""
    services = {name: service for name, _, service in _services(document)}
    quiet = set(table("images")["no_healthcheck"]["names"])
    for name, _, service in _services(document):
        needed = service.get("depends_on")
        for other, at, how in needed.items() if needed and needed.is_map else ():
            target = services.get(other)
            if target is None or how.string("condition") != "service_healthy" or how.string("required") == "false" or _partial(document):
                continue
            check = target.get("healthcheck")
            off = check is not None and (
                check.string("disable") == "true" or check.string("test") == "NONE" or [n.text for n in (check.each("test"))] == ["NONE"]
            )
            plain = target.string("image") and not target.get("build") and containers.repository(target.string("image") or "") in quiet
            if off or (check is None and plain):
                condition = how.get("condition")
                yield Hit(condition.line if condition else at.line, {"service": name, "other": other})


def undefined(document: Document) -> Iterator[Hit]:
    """Services, volumes, networks, secrets and configs that are used and not declared."""
    if not document.trees or _partial(document) or document.fragment:
        return
    tree = document.trees[0]
    services = {name for name, _, _ in _services(document)}
    for _name, _, service in _services(document):
        needed = service.get("depends_on")
        if needed:
            used = [(key, at.line) for key, at, how in needed.items() if how.string("required") != "false"] + [
                (n.text or "", n.line) for n in needed.each()
            ]
            for other, line in used:
                if other not in services and "$" not in other:
                    yield from _missing("service", other, line, services)
        for kind in ("networks", "secrets", "configs"):
            whole = tree.get(kind)
            if whole is not None and not whole.is_map:
                continue  # filled in by a variable
            declared = {key for key, _, _ in tree.items(kind)}
            used_node = service.get(kind)
            used = [(key, at.line) for key, at, _ in used_node.items()] if used_node and used_node.is_map else []
            used += [((n.text or n.string("source") or ""), n.line) for n in (used_node.each() if used_node else [])]
            for other, line in used:
                if other and other not in declared and not (kind == "networks" and other == "default") and "$" not in other:
                    yield from _missing(kind[:-1], other, line, declared)
        volumes = service.get("volumes")
        declared = {key for key, _, _ in tree.items("volumes")}
        for volume in volumes.each() if volumes else []:
            source = volume.string("source") if volume.is_map and volume.string("type") == "volume" else None
            if volume.text and ":" in volume.text:
                source = volume.text.split(":")[0]
            if (
                source
                and re.fullmatch(r"[a-zA-Z0-9][\w-]+", source)
                and source not in declared
                and not re.match(r"^[A-Za-z]:\\", volume.text or "")
            ):
                yield from _missing("volume", source, volume.line, declared)


def _missing(kind: str, name: str, line: int, declared: set[str]) -> Iterator[Hit]:
    near = nearest(name, declared, 2)
    yield Hit(
        line, {"kind": kind, "name": name, "fix": near or f"declare it: {kind}s: {{{name}: }}"}, Edit(line, name, near) if near else None
    )
