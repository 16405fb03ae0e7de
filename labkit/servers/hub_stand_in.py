"""A stand-in of the Hugging Face Hub on this machine, in as much of its API as huggingface_hub asks for a model.

It is not the Hub: it holds the repositories that it was given, and says what the Hub would say of them.

>>> with HubStandIn({"course/tiny": Repo({"model.gguf": path}, licence="mit")}) as hub:
...     HfApi(endpoint=hub.url).model_info("course/tiny").sha
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from labkit.servers.stand_in import Asked, Content, Reply, StandIn, sha256

_LARGE = (".gguf", ".safetensors", ".onnx", ".bin", ".pt")  # what a repository keeps in Git LFS
_API = re.compile(r"^/api/models/(?P<repo>[^/]+/[^/]+)(?P<rest>/.*)?$")
_FILE = re.compile(r"^/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")


@dataclass
class Repo:
    """A model's repository: its files, its licence as its card has it, and whether its owner must let one in."""

    files: dict[str, Content]
    licence: str | None = "apache-2.0"
    gated: bool = False
    tags: tuple[str, ...] = ()

    @property
    def revision(self) -> str:
        """As long as a commit's id, and another one with every change."""
        told = "".join(f"{path}:{sha256(content)}" for path, content in sorted(self.files.items()))
        return hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()


class HubStandIn(StandIn):
    """Repositories by name ("owner/name"), served as the Hub serves them."""

    def __init__(self, repos: dict[str, Repo]) -> None:
        super().__init__()
        self.repos = repos

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/api/models":
            words = asked.query.get("search", "").lower()
            return Reply.of_json([self._info(name) for name in sorted(self.repos) if words in name.lower()])
        match = _API.match(asked.path) or _FILE.match(asked.path)
        if match is None:
            return _refusal(404, "EntryNotFound", "not found")
        name = match["repo"]
        if name not in self.repos:
            return _refusal(404, "RepoNotFound", "Repository not found")
        if "path" in match.groupdict():
            return self._file(name, match["path"])
        rest = match["rest"] or ""
        if rest == "/auth-check":
            return self._gate(name) or Reply.of_json({})
        if rest.startswith("/tree/"):
            return Reply.of_json([self._entry(path, content) for path, content in sorted(self.repos[name].files.items())])
        return Reply.of_json(self._info(name))

    def _gate(self, name: str) -> Reply | None:
        if self.repos[name].gated:
            return _refusal(403, "GatedRepo", f"Access to model {name} is restricted and you are not in the authorized list.")
        return None

    def _file(self, name: str, path: str) -> Reply:
        repo = self.repos[name]
        if path not in repo.files:
            return _refusal(404, "EntryNotFound", "Entry not found")
        content = repo.files[path]
        etag = sha256(content) if path.endswith(_LARGE) else _git_id(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repo.revision, "X-Linked-Etag": f'"{etag}"'}
        return self._gate(name) or Reply(200, content, {**headers, "Content-Type": "application/octet-stream"})

    def _info(self, name: str) -> dict[str, Any]:
        repo = self.repos[name]
        siblings = []
        for path, content in sorted(repo.files.items()):
            entry = self._entry(path, content)
            lfs = entry.get("lfs")
            stored = {"lfs": {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}} if lfs else {}
            siblings.append({"rfilename": path, "size": entry["size"], "blobId": entry["oid"], **stored})
        tags = [*repo.tags, *([f"license:{repo.licence}"] if repo.licence else [])]
        card = {"license": repo.licence} if repo.licence else {}
        return {
            "_id": hashlib.sha256(name.encode()).hexdigest()[:24], "id": name, "modelId": name, "author": name.partition("/")[0],
            "sha": repo.revision, "gated": "manual" if repo.gated else False, "private": False, "disabled": False,
            "downloads": 0, "likes": 0, "tags": tags, "cardData": card, "siblings": siblings,
        }  # fmt: skip

    def _entry(self, path: str, content: Content) -> dict[str, Any]:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if path.endswith(_LARGE):
            oid = sha256(content)
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()
            lfs = {"oid": oid, "size": size, "pointerSize": len(pointer)}
            return {"type": "file", "path": path, "size": size, "oid": _git_id(pointer), "lfs": lfs}
        return {"type": "file", "path": path, "size": size, "oid": _git_id(content)}


def _refusal(status: int, code: str, told: str) -> Reply:
    return Reply.of_json({"error": told}, status, **{"X-Error-Code": code, "X-Error-Message": told})


def _git_id(content: Content) -> str:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
