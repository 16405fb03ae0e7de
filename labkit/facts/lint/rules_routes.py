"""Rules for addresses: routes that a server does not have, methods it does not take, names of metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from labkit.facts.lint import addresses, kinds
from labkit.facts.lint.model import Address, Document, Edit, Hit
from labkit.facts.lint.vocabulary import near_route, nearest, route, routes, table

TITLES = {"ollama": "Ollama", "vllm": "vLLM", "llamacpp": "llama-server", "foundry": "Foundry Local"}
_OPEN = re.compile(r"[$<>{}*%…]|\.\.\.|\[")
_LONG = ["/v1/chat/completions", "/v1/completions"]


def unknown(document: Document, server: str) -> Iterator[Hit]:
    """Routes of that server that it has not."""
    for address in document.addresses:
        if address.server == server and (fix := wrong(server, address.path)):
            yield _hit(address, server, fix)


def wrong(server: str, path: str) -> str | None:
    """What to write in place of a path that the server does not have; None where it has it, or where parts are filled in later."""
    if not path or _OPEN.search(path) or route(server, path):
        return None
    near = near_route(server, path)
    if near or server == "ollama":
        return near or "one of: " + " ".join(name for name in routes(server) if "{" not in name)
    return None


def _hit(address: Address, server: str, fix: str) -> Hit:
    edit = Edit(address.line, address.path, fix) if fix in routes(server) else None
    return Hit(address.line, {"path": address.path, "program": TITLES[server], "fix": fix}, edit)


def ollama(document: Document) -> Iterator[Hit]:
    yield from unknown(document, "ollama")


def others(document: Document) -> Iterator[Hit]:
    for server in ("vllm", "llamacpp"):
        yield from unknown(document, server)


def foundry(document: Document) -> Iterator[Hit]:
    """Foundry Local's port is configured; 5273 and 5272 are those of its documentation. Only what is surely wrong is said."""
    for address in document.addresses:
        if (
            address.server is None
            and address.port in (5272, 5273)
            and address.host in addresses.LOCAL
            and not route("foundry", address.path)
        ) and (
            not _OPEN.search(address.path) and not address.path.startswith("/catalogs/") and (fix := near_route("foundry", address.path))
        ):
            yield _hit(address, "foundry", fix)


def openai(document: Document) -> Iterator[Hit]:
    """A slip in one of the long routes that every OpenAI-compatible server has."""
    for address in document.addresses:
        path = address.path.rstrip("/")
        if address.server is None and address.host in addresses.LOCAL and address.port and not _OPEN.search(path) and path not in _LONG:
            if address.port in (5272, 5273) and near_route("foundry", path):
                continue
            if path.startswith("/v") and not any(route(name, path) for name in TITLES) and (near := nearest(path, _LONG, 2)):
                yield Hit(address.line, {"path": path, "fix": near}, Edit(address.line, path, near))


def method(document: Document) -> Iterator[Hit]:
    for address in document.addresses:
        if address.server is None or address.method is None or _OPEN.search(address.path):
            continue
        name = route(address.server, address.path or "/")
        allowed = routes(address.server).get(name or "")
        if not allowed or "{" in (name or "") or address.method in allowed or address.method == "OPTIONS":
            continue
        if address.method == "HEAD" and "GET" in allowed and address.server != "ollama":
            continue
        fix = f"curl -X {allowed[0]}" + (" with -d '{…}'" if allowed[0] == "POST" else "")
        words = {
            "path": address.path,
            "method": address.method,
            "allowed": " or ".join(allowed),
            "program": TITLES[address.server],
            "fix": fix,
        }
        yield Hit(address.line, words)


def body(document: Document) -> Iterator[Hit]:
    """Options in a request's JSON that Ollama does not know, and /api/embed and /api/embeddings asked in each other's way."""
    rows = table("ollama")["modelfile"]
    for address in document.addresses:
        if address.server != "ollama" or not address.path.startswith("/api/"):
            continue
        for word in address.words:
            data = kinds.read_json(word.text.lstrip("@")) if word.text.lstrip().startswith("{") else None
            if not isinstance(data, dict):
                continue
            options = data.get("options")
            for name in options if isinstance(options, dict) else ():
                if name in rows["parameters"] or name in rows["retired_parameters"] or name == "numa":
                    continue
                meant = rows["meant"].get(name) or nearest(name, rows["parameters"], 2)
                line = word.line + max(word.text[: word.text.find(f'"{name}"')].count("\n"), 0)
                yield Hit(
                    line,
                    {"what": f"the option {name!r} is not known to Ollama, which goes on without it", "fix": meant or "leave it out"},
                    Edit(line, f'"{name}"', f'"{meant}"') if meant else None,
                )
            model = str(data.get("model", ""))
            if address.path == "/api/embed" and "prompt" in data and "input" not in data:
                yield Hit(word.line, {"what": "/api/embed reads `input`; `prompt` is for /api/embeddings", "fix": '"input"'})
            if address.path == "/api/embeddings":
                if "input" in data and "prompt" not in data:
                    yield Hit(address.line, {"what": "/api/embeddings reads `prompt`; `input` is for /api/embed", "fix": "/api/embed"})
                elif model and not _OPEN.search(model) and not any(part in model.lower() for part in table("ollama")["embedding"]["parts"]):
                    told = "/api/embeddings is superseded by /api/embed, and releases from 0.30 refuse to embed with a chat model (501)"
                    yield Hit(address.line, {"what": told, "fix": "/api/embed with `input` and an embedding model"})


def metric(document: Document) -> Iterator[Hit]:
    """Names of vLLM's and llama-server's metrics in rules."""
    for tree in document.trees:
        for node in tree.scalars():
            text = node.text or ""
            for found in re.finditer(r"\b(vllm|llamacpp):([a-z0-9_]+)", text):
                hit = _metric(found[0], node.text_line + text[: found.start()].count("\n"))
                if hit:
                    yield hit


def _metric(name: str, line: int) -> Hit | None:
    rows = table(name.split(":")[0])
    known = [*rows["metrics"], *rows["older_metrics"]] if name.startswith("vllm") else [f"llamacpp:{metric}" for metric in rows["metrics"]]
    bare = re.sub(r"_(total|bucket|sum|count|created|info)$", "", name)
    if name in known or bare in known or f"{bare}_total" in known:
        return None
    meant = rows.get("metrics_meant", {}).get(bare) or rows.get("metrics_meant", {}).get(name)
    near = meant or nearest(bare, known, 2) or nearest(name, known, 2)
    if not near:
        return None
    ending = "" if near.endswith(name[len(bare) :]) else name[len(bare) :]
    whole = re.fullmatch(r"[\w:]+", near) is not None
    edit = Edit(line, name, near + ending) if whole and not meant else None
    return Hit(line, {"name": name, "program": TITLES[name.split(":")[0]], "fix": near + (ending if whole else "")}, edit)


def shims(document: Document) -> Iterator[Hit]:
    """Request bodies on disk are not read; this rule only keeps JSON blocks honest about model options."""
    if (
        document.kind == "json"
        and isinstance(document.data, dict)
        and isinstance(document.data.get("options"), dict)
        and "model" in document.data
    ):
        rows = table("ollama")["modelfile"]
        for name in document.data["options"]:
            meant = rows["meant"].get(name) or nearest(name, rows["parameters"], 1)
            if name not in rows["parameters"] and meant:
                line = document.first + document.text[: document.text.find(json.dumps(name))].count("\n")
                yield Hit(line, {"what": f"the option {name!r} is not known to Ollama, which goes on without it", "fix": meant})
