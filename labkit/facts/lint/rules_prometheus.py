"""Rules for Prometheus: fields that do not exist, targets that have no metrics, and what it refuses at start."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.facts.lint.model import Document, Edit, Hit
from labkit.facts.lint.rules_routes import TITLES
from labkit.facts.lint.vocabulary import nearest, route, table
from labkit.facts.lint.yamls import Node

_DURATION = re.compile(r"((\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?|0)$")
_SECONDS = {"y": 31536000.0, "w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def _levels(document: Document) -> Iterator[tuple[str, Node]]:
    """(level of the table, a map at that level)."""
    for tree in document.trees:
        if document.kind == "prometheus-rules":
            yield "groups", tree
            for group in _each(tree, "groups"):
                yield "group", group
                for rule in _each(group, "rules"):
                    yield "rule", rule
            continue
        yield "top", tree
        for name in ("global", "alerting"):
            if found := tree.get(name):
                yield name, found
        for job in _each(tree, "scrape_configs"):
            yield "scrape", job
            for static in _each(job, "static_configs"):
                yield "static", static
            for name in ("relabel_configs", "metric_relabel_configs"):
                for relabel in _each(job, name):
                    yield "relabel", relabel


def _each(node: Node, name: str) -> list[Node]:
    found = node.get(name)
    return [child for child in found.each() if child.is_map] if found else []


def field(document: Document) -> Iterator[Hit]:
    rows = table("prometheus")
    everywhere = {name for level in ("top", "global", "scrape", "alerting", "rule", "group") for name in rows[level]}
    for level, node in _levels(document):
        for key, at, _ in node.items():
            if key in rows[level] or re.search(r"[$<{]", key) or key.startswith("x-"):
                continue
            near = nearest(key, rows[level], 2 if len(key) > 6 else 1)
            # other unknown fields may be of a later release: only known ones in the wrong place are said
            if near or key in everywhere:
                fix = near or f"it belongs into {_home(key, rows)}"
                yield Hit(
                    at.line,
                    {"field": key, "where": {"top": "the configuration", "scrape": "a scrape configuration"}.get(level, level), "fix": fix},
                    Edit(at.line, key, near) if near else None,
                )


def _home(key: str, rows: dict) -> str:
    return next(
        (
            {"scrape": "an entry of scrape_configs", "top": "the top level"}.get(level, level)
            for level in ("global", "scrape", "top", "alerting", "rule", "group")
            if key in rows[level]
        ),
        "",
    )


def target(document: Document) -> Iterator[Hit]:
    """Servers that have no metrics route: Ollama and Foundry Local; and misspelt paths of those that have."""
    if document.kind != "prometheus":
        return
    for tree in document.trees:
        for job in _each(tree, "scrape_configs"):
            path = job.get("metrics_path")
            where = path.text if path and path.text else "/metrics"
            name = (job.string("job_name") or "").lower()
            moved = any(node.text == "__address__" for relabel in job.each("relabel_configs") for node in relabel.scalars())
            if where == "/probe" or job.get("params", "module") or moved:
                continue
            for static in _each(job, "static_configs"):
                for one in static.each("targets"):
                    port = re.search(r":(\d+)$", one.text or "")
                    host = (one.text or "").partition(":")[0]
                    if port and port[1] == "11434" and not route("ollama", where):
                        yield Hit(
                            one.line,
                            {
                                "program": "Ollama",
                                "target": one.text,
                                "path": where,
                                "fix": "export metrics from the client's side or from a proxy in front",
                            },
                        )
                    elif (
                        (re.search("foundry[-_.]?local", f"{name} {host}") or ("foundry" in name + host and where == "/api/metrics"))
                        and not re.search("exporter|proxy|gateway|node", name + host)
                        and where in {"/metrics", "/api/metrics"}
                    ):
                        line = path.line if path else one.line
                        yield Hit(
                            line,
                            {
                                "program": "Foundry Local",
                                "target": one.text,
                                "path": where,
                                "fix": "it has none; measure from the client's side",
                            },
                        )
                        break
                    else:
                        server = next(
                            (s for s, word in (("vllm", "vllm"), ("llamacpp", "llama")) if word in host.lower() or word in name), None
                        )
                        if (
                            server
                            and path
                            and where != "/metrics"
                            and nearest(where, ["/metrics"], 2)
                            and not re.search("exporter|proxy|ollama", name + host)
                        ):
                            yield Hit(
                                path.line,
                                {"program": TITLES[server], "target": one.text, "path": where, "fix": "/metrics"},
                                Edit(path.line, where, "/metrics"),
                            )
                            break


def jobs(document: Document) -> Iterator[Hit]:
    for tree in document.trees:
        seen: set[str] = set()
        for job in _each(tree, "scrape_configs"):
            name = job.get("job_name")
            if name is None and document.kind == "prometheus" and not any(nearest(key, ["job_name"], 2) for key, _, _ in job.items()):
                yield Hit(job.line, {"what": "a scrape configuration has no job_name", "fix": "job_name: NAME"})
            elif name and name.text in seen:
                yield Hit(name.line, {"what": f"two scrape configurations are named {name.text}", "fix": "one name each"})
            elif name and name.text:
                seen.add(name.text)
            if job.get("relabel_configs") or job.get("params") or document.kind != "prometheus":
                continue  # a target that is made into a parameter may hold a path
            for one in (one for static in job.each("static_configs") for one in static.each("targets")):
                if "/" in (one.text or "") and not re.search(r"[$<{]", one.text or ""):
                    yield Hit(
                        one.line, {"what": f"{one.text} is no target: it has a path", "fix": "host:port here, the path as metrics_path"}
                    )


def duration(document: Document) -> Iterator[Hit]:
    names = set(table("prometheus")["durations"])
    for level, node in _levels(document):
        if level not in {"global", "scrape", "group", "rule"}:
            continue
        for key, _, value in node.items():
            text = value.text
            if key in names and text is not None and "$" not in text and (not text or not _DURATION.match(text)):
                slip = re.fullmatch(r"(\d+)\s*(s|m|h|d)(ec|econds?|in|inutes?|ours?|ays?)?", text)
                near = f"{slip[1]}{slip[2]}" if slip else f"{text}s" if text.isdigit() else None
                yield Hit(
                    value.line,
                    {"field": key, "value": text, "fix": near or "such as 15s, 1m, 1h30m"},
                    Edit(value.line, text, near) if near else None,
                )
        wait, every = _seconds(node.string("scrape_timeout")), _seconds(node.string("scrape_interval"))
        if wait is not None and every is not None and wait > every:
            found = node.get("scrape_timeout")
            yield Hit(
                found.line if found else node.line,
                {"field": "scrape_timeout", "value": f"{wait:g} s, longer than the interval", "fix": f"at most {every:g}s"},
            )


def _seconds(text: str | None) -> float | None:
    if not text or not _DURATION.match(text):
        return None
    return sum(int(n) * _SECONDS[unit] for n, unit in re.findall(r"(\d+)(ms|[ywdhms])", text))


def rule(document: Document) -> Iterator[Hit]:
    for level, node in _levels(document):
        if level == "group" and document.kind == "prometheus-rules" and node.get("name") is None and node.get("rules"):
            yield Hit(node.line, {"what": "a group of rules has no name", "fix": "name: NAME"})
        if level != "rule":
            continue
        record, alert = node.get("record"), node.get("alert")
        slip = any(nearest(key, ["record", "alert", "expr"], 1) for key, _, _ in node.items() if key not in {"record", "alert", "expr"})
        if record and alert:
            yield Hit(record.line, {"what": "a rule has both record and alert", "fix": "one of them"})
        elif not record and not alert and not slip:
            yield Hit(node.line, {"what": "a rule has neither record nor alert", "fix": "alert: NAME, or record: NAME"})
        if record and record.text and not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", record.text) and not re.search(r"[${]", record.text):
            new = re.sub(r"[^a-zA-Z0-9_:]", "_", record.text)
            yield Hit(record.line, {"what": f"{record.text} is no name of a metric", "fix": new}, Edit(record.line, record.text, new))
        if record:
            for name in ("for", "keep_firing_for", "annotations"):
                if found := node.key(name):
                    yield Hit(found.line, {"what": f"a recording rule has no {name}", "fix": "leave it out"})
        expr = node.get("expr")
        if expr is None and not slip:
            yield Hit(node.line, {"what": "a rule has no expr", "fix": "expr: QUERY"})
        elif expr and expr.text and _unbalanced(expr.text):
            yield Hit(expr.line, {"what": "the query's brackets do not close", "fix": "close each ( [ {"})


def _unbalanced(query: str) -> bool:
    bare = re.sub(r"\"(\\.|[^\"\\])*\"|'(\\.|[^'\\])*'|`[^`]*`|#.*", "", query)
    stack = []
    for char in bare:
        if char in "([{":
            stack.append(char)
        elif char in ")]}" and (not stack or stack.pop() != {")": "(", "]": "[", "}": "{"}[char]):
            return True
    return bool(stack)
