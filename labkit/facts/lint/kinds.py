"""What kind of file is it? By name first, by content second; None where it is none that the checker knows."""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import Any

from labkit.facts.lint import dockerfiles, yamls
from labkit.facts.lint.vocabulary import nearest, table

IN_WORDS = "Modelfile, Dockerfile, Compose, Kubernetes, Prometheus, GitHub workflow, shell script, .env, Markdown, Foundry JSON"

_OTHERS = {
    ".py",
    ".toml",
    ".txt",
    ".go",
    ".ts",
    ".js",
    ".rs",
    ".html",
    ".dockerignore",
    ".ipynb",
    ".c",
    ".cpp",
    ".h",
    ".csv",
    ".tpl",
    ".j2",
    ".tmpl",
}
_HELM = re.compile(
    r"\{\{-?\s*(\.Values|\.Release|\.Chart|\.Capabilities|\.Files|include\s|template\s|toYaml|tpl\s|define\s|range\s|if\s|with\s|-?\s*end\b|\$\.Values)"
)
_MODELFILE_ONLY = {"PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES", "RENDERER", "PARSER"}
_COMPOSE_KEYS = {
    "image",
    "build",
    "ports",
    "environment",
    "volumes",
    "depends_on",
    "command",
    "container_name",
    "healthcheck",
    "deploy",
    "extends",
    "networks",
}


def by_name(path: str) -> str | None:
    """The kind that a file's name says."""
    pure = PurePath(path)
    name = pure.name
    low = name.lower()
    if low.endswith((".md", ".markdown", ".mdx")):
        return "markdown"
    if PurePath(low).suffix in _OTHERS:
        return None
    if re.match(r"modelfile([.\-_].*)?$", low) or low.endswith(".modelfile"):
        return "modelfile"
    if re.match(r"(dockerfile|containerfile)([.\-_].*)?$", low) or low.endswith((".dockerfile", ".containerfile")):
        return "dockerfile"
    if low.endswith((".sh", ".bash", ".zsh", ".ksh")):
        return "shell"
    if low.endswith(".ps1"):
        return "powershell"
    if re.match(r"\.env(\..+)?$", low) or low.endswith(".env") or low in {"env.example", "env.sample"}:
        return "env"
    if low.endswith((".yml", ".yaml")):
        return "yaml"
    return "json" if low.endswith(".json") else None


def recognise(path: str, text: str) -> str | None:
    """The kind of a file."""
    named = by_name(path)
    if named == "yaml":
        return of_yaml(text, path)
    if named == "json":
        return of_json(text, path)
    if named:
        return named
    first = text.split("\n", 1)[0]
    if re.match(r"#!.*\b(ba|z|da|a|k)?sh\b", first):
        return "shell"
    if PurePath(path).suffix and not path.endswith("."):
        return None  # .py, .txt, .c …: named as something else
    return of_instructions(text) or of_yaml(text, path)


def of_yaml(text: str, path: str = "") -> str | None:
    """Which kind of YAML; None for a Helm template, a values file, or anything unknown."""
    name = PurePath(path).name.lower()
    if re.match(r"values([.\-_].*)?\.ya?ml$", name) or name == "chart.yaml":
        return None
    workflow = re.search(r"(^|/)\.github/workflows/[^/]+$", path.replace("\\", "/"))
    prom = re.match(r"prom(etheus)?([.\-_].*)?\.ya?ml$", name)
    if _HELM.search(text) and not workflow and not re.search(r"^\s*groups:", text, re.MULTILINE):
        return None
    trees = yamls.parse(text)
    maps = [tree for tree in trees if tree.is_map]
    if not maps:
        if workflow:
            return "workflow"
        if re.match(r"(docker-|podman-)?compose([.\-_].*)?\.ya?ml$", name):
            return "compose"
        if re.search(r"^apiVersion:", text, re.MULTILINE) and re.search(r"^kind:", text, re.MULTILINE):
            return "kubernetes"
        return "prometheus" if prom else None
    if any(tree.string("apiVersion") and tree.string("kind") for tree in maps):
        return "kubernetes"
    keys = {key for tree in maps for key, _, _ in tree.items()}
    if workflow or ("jobs" in keys and keys & {"on", "true", "name"} and isinstance(maps[0].get("jobs"), yamls.Node)):
        return "workflow"
    if re.match(r"(docker-|podman-)?compose([.\-_].*)?\.ya?ml$", name):
        return "compose"
    services = maps[0].get("services")
    if services and services.is_map and any(_COMPOSE_KEYS & {k for k, _, _ in service.items()} for _, _, service in services.items()):
        return "compose"
    groups = maps[0].get("groups")
    if groups and any(group.get("rules") or group.get("name") for group in groups.each()):
        return "prometheus-rules"
    if "scrape_configs" in keys or ("rule_files" in keys and keys <= set(table("prometheus")["top"])):
        return "prometheus"
    interval = maps[0].get("global", "scrape_interval") or maps[0].get("global", "evaluation_interval")
    if prom or interval or (re.search(r"^\s*- job_name:", text, re.MULTILINE) and any(nearest(key, ["scrape_configs"]) for key in keys)):
        return "prometheus"
    return None


def of_json(text: str, path: str = "") -> str | None:
    """Foundry's and Olive's JSON; None for any other."""
    data = read_json(text)
    if not isinstance(data, dict):
        return None
    if "input_model" in data and ({"passes", "engine", "systems", "pass_flows"} & set(data)):
        return "olive-json"
    if "foundry" in PurePath(path).name.lower() or PurePath(path).name == "inference_model.json" or len(invented(data)) >= 2:
        return "foundry-json"
    return None


def invented(data: dict[str, Any]) -> list[str]:
    """The groups of the made-up Foundry files that a JSON object has; none unless one of them says hardware, optimization or batching."""
    rows = table("foundry")
    groups = {_plain(name): {_plain(key) for key in keys} for name, keys in rows["invented"].items()}
    found = [
        name for name, value in data.items() if isinstance(value, dict) and groups.get(_plain(name), set()) & {_plain(key) for key in value}
    ]
    return found if {_plain(name) for name in found} & {_plain(name) for name in rows["telling"]["groups"]} else []


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def of_instructions(text: str) -> str | None:
    """Modelfile or Dockerfile, by the words that lines begin with; None where it is neither."""
    outside = re.sub(r'"""(.|\n)*?"""', '""', text)
    rows = [row.strip() for row in outside.splitlines()]
    rows = [row for row in rows if row and not row.startswith("#")]
    heads = [row.split()[0] for row in rows]
    upper = [head for head in heads if re.fullmatch(r"[A-Z]+", head)]
    if not upper or heads[0] != upper[0]:
        return None
    ours = [head for head in upper if head in _MODELFILE_ONLY]
    docker = [head for head in upper if head in dockerfiles.KNOWN - {"FROM", "LABEL"}]
    if ours and len(docker) <= len(ours) and (heads[0] in _MODELFILE_ONLY | {"FROM"}):
        return "modelfile"
    if docker and heads[0] in {"FROM", "ARG"}:
        return "dockerfile"
    if heads[0] == "FROM" and len(rows[0].split()) == 2 and len(rows) >= 2 and all(re.fullmatch(r"[A-Z]{3,}", head) for head in heads):
        return "modelfile"
    if (
        len(heads) >= 2
        and heads[0] in dockerfiles.KNOWN - {"FROM", "LABEL", "USER", "ADD"}
        and all(head in dockerfiles.KNOWN for head in upper)
    ):
        return "dockerfile"
    return None
