"""URLs in commands and values: which known server answers there, by which method they are asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from labkit.facts.lint.model import Address, Command, Container, Document, Word
from labkit.facts.lint.vocabulary import nearest, table

_URL = re.compile(
    r"(?P<scheme>https?://)?(?P<host>\$\{?\w+\}?|\[::1?\]|[A-Za-z][\w.-]*|\d{1,3}(?:\.\d{1,3}){3})(?::(?P<port>\d{2,5}|\$\{?\w+\}?))?(?P<path>/[^\s\"'<>|\\)`,;]*)?"
)
_USUAL = {80, 443, 3000, 5000, 8000, 8080, 8081, 8888, 9000}
LOCAL = {"localhost", "127.0.0.1", "0.0.0.0", "[::1]", "host.docker.internal", "host.containers.internal"}  # noqa: S104 - names, not a binding
_BODY = {"-d", "--data", "--data-raw", "--data-binary", "--data-ascii", "--data-urlencode", "--json", "-F", "--form"}
_TAKES = {
    "-H",
    "-o",
    "-w",
    "-u",
    "-A",
    "-e",
    "-m",
    "--header",
    "--output",
    "--max-time",
    "--connect-timeout",
    "--retry",
    "--retry-delay",
    "-b",
    "-c",
    "--user",
    "-x",
    "-X",
    "--request",
}


class Ports:
    """Which server listens where, as far as a whole file says it; two servers at one port cancel out."""

    def __init__(self) -> None:
        self.ports: dict[int, str | None] = {}
        self.hosts: dict[str, Container] = {}
        self.paths_in: set[str] = set()  # variables whose value already has a path

    def put(self, port: int | None, server: str) -> None:
        if port is not None:
            self.ports[port] = server if self.ports.get(port, server) == server else None

    def add(self, others: Ports) -> None:
        """What the rest of a page says, but for the ports that everything uses."""
        self.ports = {**{port: server for port, server in others.ports.items() if port not in _USUAL}, **self.ports}
        self.hosts = {**others.hosts, **self.hosts}
        self.paths_in |= others.paths_in

    def learn(self, documents: Iterable[Document]) -> None:
        for document in documents:
            for container in document.containers:
                if container.name:
                    self.hosts[container.name] = container
                    self.hosts[container.name.lower()] = container
            for command in document.commands:
                self._command(command)
            for setting in [*document.settings, *(s for c in document.commands for s in c.env)]:
                if re.search(r"//[^/]+/\w", setting.value or ""):
                    self.paths_in.add(setting.name)

    def _command(self, command: Command) -> None:
        words = [word.text for word in command.words]
        text = " ".join(words)
        host = next((setting.value or "" for setting in command.env if setting.name == "OLLAMA_HOST"), "")
        if command.where in {"start", "probe"} and command.container is not None and command.container.name:
            return
        if command.name == "ollama" and words[1:2] in (["serve"], ["start"]):
            port = re.search(r":(\d+)", host)
            self.put(int(port[1]) if port else 11434, "ollama")
        elif (command.name == "vllm" and words[1:2] == ["serve"]) or "vllm.entrypoints.openai.api_server" in words:
            self.put(_port(text, 8000), "vllm")
        elif command.name == "llama-server":
            self.put(_port(text, 8080), "llamacpp")
        elif command.name in {"docker", "podman"} and "run" in words:
            for image, row in table("images")["known"].items():
                if re.search(rf"(^|[ /]){re.escape(image)}(:|@| |$)", text) and not (row["server"] == "llamacpp" and ":server" not in text):
                    published = re.search(rf"(?:-p|--publish)[ =](?:[\d.]+:)?(\d+):{row['port']}\b", text)
                    if published:
                        self.put(int(published[1]), row["server"])

    def server(self, host: str, port: int | None, container: Container | None, path: str) -> str | None:
        """Who answers at an address that is written in that container, or outside of any."""
        if container is not None and container.name and host in LOCAL - {"host.docker.internal", "host.containers.internal"}:
            if container.server and (port == container.port):
                return container.server
            return None if container.image and not container.built else "ollama" if port == 11434 else None
        if host in self.hosts:
            there = self.hosts[host]
            return there.server if there.port == (port or 80) else None
        if host.startswith("$"):
            name = host.strip("${}")
            ours = name == "OLLAMA_HOST" or re.fullmatch(r"OLLAMA_(BASE_)?URL|OLLAMA_API_BASE|OLLAMA_ENDPOINT|OLLAMA_ADDR(ESS)?", name)
            if port == 11434 or (ours and port is None and name not in self.paths_in and (_api(path) or name == "OLLAMA_HOST")):
                return self.ports.get(11434, "ollama")
            return None
        if port == 11434:
            return self.ports.get(11434, "ollama")
        return self.ports.get(port) if port is not None and host in LOCAL else None


def _api(path: str) -> bool:
    """Does a path begin as a full one does, give or take a slip? What follows a base address that may end in /v1 is not ours to judge."""
    first = "/" + path.lstrip("/").split("/")[0]
    return first in {"/api", "/v1"} or nearest(first, ["/api", "/v1"], 1) is not None


def _port(text: str, usual: int) -> int | None:
    found = re.search(r"--port[ =](\S+)", text)
    return usual if not found else int(found[1]) if found[1].isdigit() else None


def in_text(text: str, line: int) -> Iterator[tuple[str, int | None, str, int, str]]:
    """(host, port, path, line, whole) of every address in a text."""
    for found in _URL.finditer(text):
        port = found["port"]
        if not found["scheme"] and not port and not found["host"].startswith("$"):
            continue
        if (
            not found["scheme"]
            and not (port and port.isdigit())
            and not ((found["path"] or "").startswith(("/api/", "/v1/", "/metrics")) or "OLLAMA" in found["host"])
        ):
            continue
        path = re.split(r"[?#]", found["path"] or "")[0].rstrip(".,:!")
        yield found["host"], int(port) if port and port.isdigit() else None, path, line + text[: found.start()].count("\n"), found[0]


def of_command(command: Command, ports: Ports) -> Iterator[Address]:
    """The addresses that a command asks."""
    method = _method(command) if command.name == "curl" else "GET" if command.name in {"wget", "http"} and len(command.words) == 2 else None
    data, takes = False, False
    for word in command.rest:
        body, data = data, word.text in _BODY
        header, takes = takes, word.text in _TAKES
        if body or header:
            continue  # a URL in a request's body is not asked
        for host, port, path, line, whole in in_text(word.text, word.line):
            yield Address(ports.server(host, port, command.container, path), host, port, path, line, method, whole, tuple(command.words))
    for setting in command.env:
        for host, port, path, line, whole in in_text(setting.value or "", setting.line):
            yield Address(ports.server(host, port, command.container, path), host, port, path, line, None, whole)


def _method(command: Command) -> str | None:
    """The method that curl uses; None where its options are not all written out."""
    words: list[Word] = command.rest
    method, get = "GET", False
    for n, word in enumerate(words):
        text = word.text
        if text.startswith("$") and "/" not in text and not (n and words[n - 1].text.startswith("-") and "[" not in text):
            return None
        if text in {"-X", "--request"} and n + 1 < len(words):
            return words[n + 1].text.upper() if words[n + 1].text.isalpha() else None
        if found := re.fullmatch(r"-[a-zA-Z]*X([A-Z]+)|--request=(\w+)", text):
            return (found[1] or found[2]).upper()
        if (
            text in _BODY
            or text.startswith(tuple(f"{flag}=" for flag in _BODY if flag.startswith("--")))
            or re.fullmatch(r"-[a-zA-Z]*[dF]([{@'].*)?", text)
        ):
            method = "POST"
        elif text in {"-I", "--head"} or re.fullmatch(r"-[sSfLvki]*I[sSfLvki]*", text):
            method = "HEAD"
        elif text in {"-T", "--upload-file"}:
            method = "PUT"
        elif text in {"-K", "--config", "--next", "-:"}:
            return None
        get = get or text in {"-G", "--get"}
    return "GET" if get else method
