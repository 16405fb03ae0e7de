"""Services of Compose and pods of Kubernetes as containers, with commands, settings, ports and probes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.facts.lint import shell
from labkit.facts.lint.model import Command, Container, Image, Probe, Setting, Word
from labkit.facts.lint.vocabulary import table
from labkit.facts.lint.yamls import Node

WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "ReplicationController"}


def repository(image: str) -> str:
    """An image's name without registry alias, tag and digest: docker.io/ollama/ollama:0.24 is ollama/ollama."""
    name = image.split("@")[0]
    head, _, last = name.rpartition("/")
    name = (head + "/" if head else "") + last.split(":")[0]
    return re.sub(r"^(docker\.io/|index\.docker\.io/)(library/)?", "", name).lower()


def known(image: str | None) -> dict | None:
    """What the table says of an image: its server and port."""
    if not image:
        return None
    found = table("images")["known"].get(repository(image))
    if found and found["server"] == "llamacpp" and ":" in image.rsplit("/", 1)[-1] and "server" not in image.rsplit(":", 1)[-1]:
        return None  # the full and light images start other programs
    return found


def settle(container: Container) -> None:
    """Which known server is in it, and at which port."""
    found = known(container.image)
    words = [word.text for command in container.commands if command.where == "start" for word in command.words]
    words += [word.text for word in container.args]
    if not found or container.built:
        return
    program = {
        "ollama": {"ollama"},
        "vllm": {"vllm", "python", "python3"},
        "llamacpp": {"llama-server", "/app/llama-server", "./llama-server"},
    }[found["server"]]
    if container.own_command and not any(word.rsplit("/", 1)[-1] in program or word in program for word in words):
        container.server = None
        return
    container.server, container.port = found["server"], found["port"]
    if found["server"] == "ollama":
        for setting in container.settings:
            if setting.name == "OLLAMA_HOST":
                port = re.search(r":(\d+)/?$", setting.value or "")
                container.port = int(port[1]) if port else None if "$" in (setting.value or "$") else 11434
    else:
        text = " ".join(words)
        port = re.search(r"--port[ =](\S+)", text)
        if port or any(setting.name in {"LLAMA_ARG_PORT", "PORT", "VLLM_PORT"} for setting in container.settings):
            container.port = int(port[1]) if port and port[1].isdigit() else None
        if "$" in text and not port:
            container.port = None


def reader(container: Container) -> str:
    """Who reads a container's settings: a known server, 'other' where the image is some other program, else 'any'."""
    found = known(container.image)
    if found:
        return found["server"]
    name = f"{container.image or ''} {container.name}".lower()
    for server in ("ollama", "vllm"):
        if server in (
            repository(container.image).split("/")[-1] if container.image and not container.built else name if container.built else ""
        ):
            return server
    return "other"


def words_of(node: Node | None) -> list[Word]:
    """A command's words from a list."""
    return [
        Word(child.text or "", child.text_line, not child.plain and " " in (child.text or "")) for child in (node.each() if node else [])
    ]


def commands_of(node: Node | None, where: str, group: int = 0) -> list[Command]:
    """A command as a list or as one string."""
    if node is None:
        return []
    if node.is_list:
        return shell.from_words(words_of(node), where, group).commands
    return shell.parse(node.text or "", node.text_line, where, group).commands if node.text else []


def settings_of(node: Node | None) -> list[Setting]:
    """`environment` of Compose: a map, or a list of NAME=value."""
    if node is None:
        return []
    if node.is_map:
        return [Setting(key, value.text, at.line) for key, at, value in node.items()]
    pairs = [(child, *(child.text or "").partition("=")[::2]) for child in node.each()]
    return [Setting(name, value if "=" in (child.text or "") else None, child.line) for child, name, value in pairs]


def compose(tree: Node) -> Iterator[tuple[Container, Node]]:
    """The services of a Compose file."""
    services = tree.get("services")
    for n, (name, at, service) in enumerate(services.items() if services else ()):
        if not service.is_map:
            continue
        image = service.get("image")
        container = Container(name, image.text if image else None, image.line if image else at.line, built=service.get("build") is not None)
        container.settings = settings_of(service.get("environment"))
        entry, command = service.get("entrypoint"), service.get("command")
        container.own_command = entry is not None
        started = words_of(command) if command and command.is_list else [word for c in commands_of(command, "start", n) for word in c.words]
        container.args = started
        if entry is not None and entry.is_list and started:
            container.commands += shell.from_words(words_of(entry) + started, "start", n).commands
        else:
            container.commands += commands_of(entry, "start", n)
        if started and entry is None and not known(container.image):
            container.commands += commands_of(command, "start", n)
        container.commands += _entry(container, started, n)
        test = service.get("healthcheck", "test")
        if test is not None and test.is_list:
            words = words_of(test)
            if words and words[0].text == "CMD-SHELL" and len(words) > 1:
                container.commands += shell.parse(words[1].text, words[1].line, "probe", n).commands
            elif words and words[0].text == "CMD":
                container.commands += shell.from_words(words[1:], "probe", n).commands
        elif test is not None and test.text:
            container.commands += commands_of(test, "probe", n)
        for port in service.each("ports"):
            target = port.get("target") if port.is_map else None
            plain = target.text if target else (port.text or "")
            inner = re.search(r"(?:^|:)(\d+)(?:/\w+)?$", plain or "")
            if inner:
                container.ports.append((inner[1], port.line))
        _finish(container)
        yield container, service


def _entry(container: Container, words: list[Word], group: int) -> list[Command]:
    """Arguments of a known image as the command that it makes of them."""
    found = known(container.image)
    if not found or not words or container.own_command:
        return []
    first = {"ollama": ["ollama"], "vllm": ["vllm", "serve"], "llamacpp": ["llama-server"]}[found["server"]]
    if found["server"] == "vllm" and words[0].text in {"vllm", "serve"}:
        first = [] if words[0].text == "vllm" else ["vllm"]
    if words[0].text in {"sh", "bash", "/bin/sh", "/bin/bash", "-c", "python", "python3"}:
        return []
    return [Command([Word(word, words[0].line) for word in first] + words, [], "start", group)]


def _finish(container: Container) -> None:
    settle(container)
    who = reader(container)
    container.settings = [Setting(s.name, s.value, s.line, who) for s in container.settings]
    for command in container.commands:
        command.container = container


def pod_of(tree: Node) -> Node | None:
    """The pod's spec in a workload."""
    kind = tree.string("kind")
    if kind == "Pod":
        return tree.get("spec")
    if kind == "CronJob":
        return tree.get("spec", "jobTemplate", "spec", "template", "spec")
    return tree.get("spec", "template", "spec") if kind in WORKLOADS else None


def kubernetes(tree: Node) -> Iterator[tuple[Container, Node]]:
    """The containers of a workload, init containers included."""
    spec = pod_of(tree)
    if spec is None:
        return
    for group in ("initContainers", "containers"):
        listed = spec.get(group)
        for n, node in enumerate(listed.each() if listed else []):
            image = node.get("image")
            container = Container(node.string("name") or "", image.text if image else None, image.line if image else node.line)
            env = node.get("env")
            container.settings = [
                Setting(item.string("name") or "", item.string("value"), item.line)
                for item in (env.each() if env else [])
                if item.string("name")
            ]
            command, args = node.get("command"), node.get("args")
            container.own_command = command is not None
            container.args = words_of(args)
            if command is not None:
                container.commands += shell.from_words(words_of(command) + words_of(args), "start", n).commands
            container.commands += _entry(container, words_of(args), n)
            ports = node.get("ports")
            for port in ports.each() if ports else []:
                if number := port.get("containerPort"):
                    container.ports.append((number.text or "", number.line))
                if name := port.string("name"):
                    container.port_names.add(name)
            for name in ("livenessProbe", "readinessProbe", "startupProbe"):
                if probe := node.get(name):
                    container.commands += commands_of(probe.get("exec", "command"), "probe", n)
                    for way in ("httpGet", "tcpSocket"):
                        if get := probe.get(way):
                            path, port_node = get.get("path"), get.get("port")
                            where = path.line if path else get.line
                            container.probes.append(
                                Probe(
                                    path.text if path else "/" if way == "httpGet" else None,
                                    port_node.text if port_node else None,
                                    where,
                                    port_node.line if port_node else get.line,
                                )
                            )
            for name in ("postStart", "preStop"):
                container.commands += commands_of(node.get("lifecycle", name, "exec", "command"), "start", n)
            _finish(container)
            yield container, node


def images_of(containers: list[Container]) -> list[Image]:
    return [Image(container.image, container.line) for container in containers if container.image]
