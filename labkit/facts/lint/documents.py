"""From a file's text to documents: one, or for Markdown one a code block, and those that are written by heredocs."""

from __future__ import annotations

import re

from labkit.facts.lint import addresses, containers, dockerfiles, kinds, markdown, shell, yamls
from labkit.facts.lint.model import Address, Document, Image, Setting

_HEREDOC_PROGRAMS = {"sh": "shell", "bash": "shell", "python": "python", "python3": "python"}


def read(path: str, text: str) -> list[Document]:
    """All documents of a file, with the addresses in them told apart; [] where its kind is unknown."""
    kind = kinds.recognise(path, text)
    if kind is None:
        return []
    if kind == "markdown":
        found = [build(block.kind, block.text, block.line, True) for block in markdown.blocks(text)]
    else:
        found = [build(kind, text, 1, False, path)]
    found += [inner for document in found for inner in _inner(document)]
    whole = addresses.Ports()
    whole.learn(found)
    for document in found:
        ports = whole
        if kind == "markdown":  # a page may tell of several programs, one after the other, at one usual port
            ports = addresses.Ports()
            ports.learn([document])
            ports.add(whole)
        _add_addresses(document, ports)
    return found


def build(kind: str, text: str, first: int = 1, fragment: bool = False, name: str = "") -> Document:
    document = Document(kind, text, first, fragment, name)
    readers = {
        "dockerfile": dockerfiles.read, "shell": _shell, "powershell": _shell, "env": _env, "compose": _compose, "kubernetes": _kubernetes,
        "workflow": _workflow, "prometheus": _tree, "prometheus-rules": _tree, "yaml": _tree, "python": _python,
        "foundry-json": _json, "olive-json": _json, "json": _json,
    }  # fmt: skip
    if kind in readers:
        readers[kind](document)
    if kind in {"dockerfile", "compose", "kubernetes"}:
        document.settings += [s for c in document.commands if c.name == "ollama" for s in c.env]
    return document


def _inner(document: Document) -> list[Document]:
    """The heredocs of a document that are of a known kind: by the file's name, or by the program that reads them."""
    out = []
    for raw in document.inner:
        kind = _HEREDOC_PROGRAMS.get(raw.name) or (kinds.recognise(raw.name, raw.text) if raw.name else None)
        if kind and kind != "markdown":
            out.append(build(kind, raw.text, raw.first, True, raw.name))
    return out + [inner for found in out for inner in _inner(found)]


def _shell(document: Document) -> None:
    script = shell.parse(document.text, document.first, escapes=document.kind == "shell")
    document.commands = script.commands
    document.inner += [Document("", here.text, here.line, True, here.target) for here in script.heredocs]
    assigned = {s.name for c in script.commands for s in c.env if not c.words or c.name in {"export", "readonly", "declare", "local"}}
    # a variable that the script itself goes on to use is the script's own
    own = {name for name in assigned if re.search(rf"\$\{{?{name}\b", document.text)}
    document.settings = [s for c in script.commands for s in c.env if s.name not in own]
    if document.kind == "powershell":
        for found in re.finditer(r"\$env:(\w+)\s*=\s*[\"']?([^\"'\n]*)", document.text):
            if len(re.findall(rf"\$env:{found[1]}\b", document.text)) == 1:
                line = document.first + document.text[: found.start()].count("\n")
                document.settings.append(Setting(found[1], found[2], line))
    _docker_run(document)


def _docker_run(document: Document) -> None:
    """`docker run -e NAME=value IMAGE`: the image, and what it is set to."""
    for command in document.commands:
        words = command.words
        plain = [word.text for word in words]
        if command.name not in {"docker", "podman", "nerdctl"} or not {"run", "create", "pull"} & set(plain[1:4]):
            continue
        pull = "pull" in plain[1:4] and "run" not in plain[1:4]
        if pull:
            document.images += [Image(word.text, word.line) for word in words[2:] if not word.text.startswith("-") and not word.open][:1]
            continue
        at = min(plain.index(verb) for verb in ("run", "create") if verb in plain) + 1
        env = []
        while at < len(words) and plain[at].startswith("-"):
            flag, _, value = plain[at].partition("=")
            takes = "=" not in plain[at] and flag in _DOCKER_TAKES
            if flag in {"-e", "--env"}:
                text = value if value and flag == "--env" else plain[at + 1] if at + 1 < len(words) else ""
                env.append((text, words[min(at + 1 if takes else at, len(words) - 1)].line))
            at += 2 if takes else 1
        if at < len(words) and not words[at].open:
            image = plain[at]
            document.images.append(Image(image, words[at].line))
            row = containers.known(image)
            for text, line in env:
                name, equals, value = text.partition("=")
                document.settings.append(Setting(name, value if equals else None, line, row["server"] if row else "other"))


_DOCKER_TAKES = {
    "-e", "--env", "-v", "--volume", "-p", "--publish", "--name", "--network", "--net", "--gpus", "--device", "-m", "--memory",
    "--cpus", "-w", "--workdir", "-u", "--user", "--entrypoint", "--restart", "--shm-size", "--ipc", "--mount", "--env-file", "-h",
    "--hostname", "--add-host", "--cap-add", "--cap-drop", "--security-opt", "--tmpfs", "--pids-limit", "-l", "--label", "--platform",
    "--pull", "--runtime", "--ulimit", "--health-cmd", "--group-add", "--log-opt", "--health-interval", "--health-retries",
    "--cpuset-cpus", "--log-driver", "--expose", "--dns", "--stop-timeout",
}  # fmt: skip


def _env(document: Document) -> None:
    for n, row in enumerate(document.text.splitlines()):
        found = re.match(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)$", row)
        if found:
            value = re.sub(r"\s+#.*$", "", found[2]).strip().strip("\"'")
            if not re.search(rf"\$\{{?{found[1]}\b", document.text):
                document.settings.append(Setting(found[1], value, document.first + n))


def _compose(document: Document) -> None:
    document.trees = yamls.parse(document.text, document.first)
    for tree in document.trees[:1]:
        for container, _ in containers.compose(tree):
            _take(document, container)


def _kubernetes(document: Document) -> None:
    document.trees = yamls.parse(document.text, document.first)
    for tree in document.trees:
        for container, _ in containers.kubernetes(tree):
            _take(document, container)


def _take(document: Document, container: containers.Container) -> None:
    document.containers.append(container)
    document.commands += container.commands
    document.settings += container.settings
    if container.image:
        document.images.append(Image(container.image, container.line))


def _workflow(document: Document) -> None:
    document.trees = yamls.parse(document.text, document.first)
    for tree in document.trees[:1]:
        maps = [tree.get("env")]
        jobs = tree.get("jobs")
        for _, _, job in jobs.items() if jobs else ():
            maps.append(job.get("env"))
            services = job.get("services")
            for _, _, service in services.items() if services else ():
                if image := service.get("image"):
                    document.images.append(Image(image.text or "", image.line))
            steps = job.get("steps")
            for n, step in enumerate(steps.each() if steps else []):
                maps.append(step.get("env"))
                run = step.get("run")
                shell_name = step.string("shell") or "bash"
                if run and run.text and shell_name.split()[0] in {"bash", "sh"}:
                    script = shell.parse(run.text, run.text_line, "script", n)
                    document.commands += script.commands
                    document.inner += [Document("", here.text, here.line, True, here.target) for here in script.heredocs]
                    assigned = {s.name for c in script.commands for s in c.env}
                    own = {name for name in assigned if re.search(rf"\$\{{?{name}\b", run.text)}
                    document.settings += [s for c in script.commands for s in c.env if s.name not in own]
        for found in maps:
            for setting in containers.settings_of(found) if found else []:
                if not re.search(rf"\$\{{?{setting.name}\b|env\.{setting.name}\b", document.text):
                    document.settings.append(setting)
    _docker_run(document)


def _tree(document: Document) -> None:
    document.trees = yamls.parse(document.text, document.first)


def _json(document: Document) -> None:
    document.data = kinds.read_json(document.text)


def _python(document: Document) -> None:
    document.code = [(document.first + n, re.sub(r"(^|\s)#.*$", "", row)) for n, row in enumerate(document.text.splitlines())]


def _add_addresses(document: Document, ports: addresses.Ports) -> None:
    out: list[Address] = []
    for command in document.commands:
        out += addresses.of_command(command, ports)
    seen = {(a.line, a.text) for a in out}
    texts: list[tuple[str, int]] = [(s.value or "", s.line) for s in document.settings]
    if document.kind == "yaml":
        texts += [(node.text or "", node.text_line) for tree in document.trees for node in tree.scalars()]
    texts += [(row, line) for line, row in document.code]
    for text, line in texts:
        for host, port, path, at, whole in addresses.in_text(text, line):
            if (at, whole) not in seen:
                seen.add((at, whole))
                out.append(Address(ports.server(host, port, None, path), host, port, path, at, None, whole))
    document.addresses = out
