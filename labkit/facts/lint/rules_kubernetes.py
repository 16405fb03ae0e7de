"""Rules for Kubernetes manifests: parts of one file that have to fit, and probes of images that are known."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.facts.lint import containers
from labkit.facts.lint.model import Document, Edit, Hit
from labkit.facts.lint.rules_routes import TITLES, wrong
from labkit.facts.lint.vocabulary import nearest, table
from labkit.facts.lint.yamls import Node

_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?$")
_SCALE = {"": 1, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
          "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}  # fmt: skip


def _name(tree: Node) -> str:
    return tree.string("metadata", "name") or ""


def _space(tree: Node) -> str:
    return tree.string("metadata", "namespace") or "default"


def _workloads(document: Document) -> list[Node]:
    return [tree for tree in document.trees if tree.string("kind") in containers.WORKLOADS and tree.get("spec", "template")]


def _labels(tree: Node) -> dict[str, str]:
    found = tree.get("spec", "template", "metadata", "labels")
    return found.mapping() if found else {}


def _open(text: str) -> bool:
    return bool(re.search(r"[$<>{}]", text))


def selector(document: Document) -> Iterator[Hit]:
    """A workload's selector must match its own template."""
    for tree in _workloads(document):
        wanted = tree.get("spec", "selector", "matchLabels")
        if tree.string("kind") == "Job" or wanted is None or tree.get("spec", "template", "metadata") is None:
            continue
        have = _labels(tree)
        for key, at, value in wanted.items():
            if value.text is not None and have.get(key) != value.text and not _open(value.text + have.get(key, "")):
                yield Hit(at.line, {"what": f"{tree.string('kind')} {_name(tree)}", "label": f"{key}: {value.text}", "have": _say(have)})
                break


def _say(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in labels.items()) or "none"


def service_selector(document: Document) -> Iterator[Hit]:
    """A Service or PodDisruptionBudget that belongs to a workload of the same file, and selects none of its pods."""
    workloads = _workloads(document) + [tree for tree in document.trees if tree.string("kind") == "Pod"]
    for kind, path in (("Service", ("spec", "selector")), ("PodDisruptionBudget", ("spec", "selector", "matchLabels"))):
        these = [tree for tree in document.trees if tree.string("kind") == kind]
        for tree in these:
            wanted = tree.get(*path)
            pairs = wanted.mapping() if wanted else {}
            near = [w for w in workloads if _space(w) == _space(tree)]
            if (
                not wanted
                or not pairs
                or not near
                or any(map(_open, pairs.values()))
                or any(_pod_labels(w).items() >= pairs.items() for w in near)
            ):
                continue
            named = [w for w in near if _name(w) == _name(tree) or set(pairs.values()) & {_name(w)}]
            alone = len(near) == 1 and len(these) == 1 and bool(pairs.keys() & _pod_labels(near[0]).keys())
            slip = any(nearest(value, _pod_labels(w).values()) for w in near for value in pairs.values())
            if named or alone or slip:
                target = (named or near)[0]
                yield Hit(
                    next(wanted.items())[1].line, {"what": f"{kind} {_name(tree)}", "label": _say(pairs), "have": _say(_pod_labels(target))}
                )


def _pod_labels(tree: Node) -> dict[str, str]:
    if tree.string("kind") == "Pod":
        found = tree.get("metadata", "labels")
        return found.mapping() if found else {}
    return _labels(tree)


def named_port(document: Document) -> Iterator[Hit]:
    """Ports that are named and that no container has."""
    for tree in document.trees:
        for container, _ in containers.kubernetes(tree):
            for probe in container.probes:
                if probe.port and not probe.port.isdigit() and probe.port not in container.port_names and not _open(probe.port):
                    yield Hit(
                        probe.port_line,
                        {
                            "what": f"the probe of container {container.name}",
                            "port": probe.port,
                            "have": ", ".join(sorted(container.port_names)) or "none",
                        },
                    )
        if tree.string("kind") != "Service":
            continue
        pairs = (tree.get("spec", "selector") or tree).mapping() if tree.get("spec", "selector") else {}
        matched = [w for w in _workloads(document) if pairs and _labels(w).items() >= pairs.items() and _space(w) == _space(tree)]
        ports = tree.get("spec", "ports")
        for port in ports.each() if ports and matched else []:
            target = port.get("targetPort")
            have = {name for w in matched for container, _ in containers.kubernetes(w) for name in container.port_names}
            if target and target.text and not target.text.isdigit() and target.text not in have and not _open(target.text):
                yield Hit(target.line, {"what": f"Service {_name(tree)}", "port": target.text, "have": ", ".join(sorted(have)) or "none"})


def probe_path(document: Document) -> Iterator[Hit]:
    for container in document.containers:
        for probe in container.probes:
            if container.server and probe.path and (fix := wrong(container.server, probe.path)) and len(container.port_names | {""}) >= 0:
                if probe.port and probe.port.isdigit() and container.port and int(probe.port) != container.port:
                    continue  # the port rule says it
                edit = Edit(probe.line, probe.path, fix) if fix.startswith("/") else None
                yield Hit(probe.line, {"path": probe.path, "program": TITLES[container.server], "fix": fix}, edit)


def probe_port(document: Document) -> Iterator[Hit]:
    one = len(document.containers)
    for container in document.containers:
        if not container.server or not container.port:
            continue
        for probe in container.probes:
            other = (
                any(probe.port in [number for number, _ in c.ports] for c in document.containers if c is not container)
                if one > 1
                else False
            )
            if probe.port and probe.port.isdigit() and int(probe.port) != container.port and not other:
                edit = Edit(probe.port_line, probe.port, str(container.port))
                yield Hit(probe.port_line, {"image": container.image, "port": container.port, "given": probe.port}, edit)
    for tree in document.trees:
        if tree.string("kind") != "Service" or not tree.get("spec", "selector"):
            continue
        pairs = tree.get("spec", "selector").mapping()
        for workload in _workloads(document):
            inside = [container for container, _ in containers.kubernetes(workload)]
            if (
                not pairs
                or not _labels(workload).items() >= pairs.items()
                or len(inside) != 1
                or not inside[0].port
                or not inside[0].server
            ):
                continue
            ports = tree.get("spec", "ports")
            listed = ports.each() if ports else []
            for port in listed if len(listed) == 1 else []:
                target = port.get("targetPort") or port.get("port")
                if target and target.text and target.text.isdigit() and int(target.text) != inside[0].port:
                    yield Hit(
                        target.line,
                        {"image": inside[0].image, "port": inside[0].port, "given": target.text},
                        Edit(target.line, target.text, str(inside[0].port)) if port.get("targetPort") else None,
                    )


def scale_target(document: Document) -> Iterator[Hit]:
    for tree in document.trees:
        if tree.string("kind") not in {"HorizontalPodAutoscaler", "ScaledObject"}:
            continue
        target = tree.get("spec", "scaleTargetRef")
        name, kind = (target.get("name"), target.string("kind") or "Deployment") if target else (None, "")
        there = [
            w for w in _workloads(document) if w.string("kind") in {"Deployment", "StatefulSet", "ReplicaSet"} and _space(w) == _space(tree)
        ]
        if name is None or not name.text or _open(name.text) or not there or kind not in {"Deployment", "StatefulSet", "ReplicaSet"}:
            continue
        if not any(_name(w) == name.text and w.string("kind") == kind for w in there):
            same = [_name(w) for w in there if w.string("kind") == kind]
            near = nearest(name.text, same, 3) or (same[0] if len(same) == 1 else None)
            fix = near or ", ".join(f"{w.string('kind')} {_name(w)}" for w in there)
            yield Hit(
                name.line,
                {"what": f"{tree.string('kind')} {_name(tree)}", "target": f"{kind} {name.text}", "fix": fix},
                Edit(name.line, name.text, near) if near else None,
            )


def replicas(document: Document) -> Iterator[Hit]:
    for tree in document.trees:
        low, high = {"HorizontalPodAutoscaler": ("minReplicas", "maxReplicas"), "ScaledObject": ("minReplicaCount", "maxReplicaCount")}.get(
            tree.string("kind") or "", ("", "")
        )
        least, most = (tree.get("spec", low), tree.get("spec", high)) if low else (None, None)
        if least and most and (least.text or "").isdigit() and (most.text or "").isdigit() and int(least.text or 0) > int(most.text or 0):
            yield Hit(least.line, {"low": f"{low} {least.text}", "high": f"{high} {most.text}"})


def version(document: Document) -> Iterator[Hit]:
    rows = table("kubernetes")["removed"]
    for tree in document.trees:
        at = tree.get("apiVersion")
        new = rows.get(f"{tree.string('apiVersion')} {tree.string('kind')}")
        if at and new:
            yield Hit(
                at.line,
                {"version": at.text, "kind": tree.string("kind"), "fix": new},
                Edit(at.line, str(at.text), new) if "beta" not in str(at.text) else None,
            )


def mounts(document: Document) -> Iterator[Hit]:
    for tree in document.trees:
        spec = containers.pod_of(tree)
        if spec is None:
            continue
        listed = [n.string("name") for n in (spec.each("volumes"))]
        claims = tree.get("spec", "volumeClaimTemplates")
        listed += [n.string("metadata", "name") for n in (claims.each() if claims else [])]
        for _, node in containers.kubernetes(tree):
            for mount in node.each("volumeMounts"):
                name = mount.get("name")
                if name and name.text and name.text not in listed and not _open(name.text):
                    near = nearest(name.text, [n for n in listed if n])
                    yield Hit(
                        name.line,
                        {"name": name.text, "fix": near or "add it to the pod's volumes"},
                        Edit(name.line, name.text, near) if near else None,
                    )


def quantities(document: Document) -> Iterator[Hit]:
    for tree in document.trees:
        for _, node in containers.kubernetes(tree):
            for part in ("requests", "limits"):
                found = node.get("resources", part)
                for key, _, value in found.items() if found else ():
                    if value.text and not _open(value.text) and not _QUANTITY.match(value.text):
                        slip = re.match(r"([\d.]+)\s*([kKMGT])i?[bB]$", value.text)
                        near = f"{slip[1]}{slip[2].upper()}i" if slip else None
                        yield Hit(
                            value.line,
                            {"key": key, "value": value.text, "fix": near or "such as 500m, 2, 512Mi or 4Gi"},
                            Edit(value.line, value.text, near) if near else None,
                        )


def _number(text: str | None) -> float | None:
    found = _QUANTITY.match(text or "")
    if not found:
        return None
    suffix = found[3] or ""
    return float(found[1]) * (_SCALE[suffix] if suffix in _SCALE else 10 ** int(suffix[1:]))


def requests(document: Document) -> Iterator[Hit]:
    for tree in document.trees:
        for _, node in containers.kubernetes(tree):
            asked, limits = node.get("resources", "requests"), node.get("resources", "limits")
            for key, _, value in asked.items() if asked and limits else ():
                most = limits.string(key) if limits else None
                a, b = _number(value.text), _number(most)
                if a is not None and b is not None and a > b:
                    yield Hit(value.line, {"key": key, "asked": value.text, "limit": most})
