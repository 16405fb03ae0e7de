"""Write the files of labs/stacks/monitoring that labkit makes: rules, dashboard, HAProxy's and Loki's configuration.

--check: change nothing, and say which file is not what labkit makes (exit code 1).
"""

from __future__ import annotations

import argparse
import sys

import yaml

from labkit.core import paths
from labkit.scale import dashboards, rules
from labkit.servers import haproxy, loki

FOLDER = paths.labs("stacks", "monitoring")
MODELS = ("model-a", "model-b")
NOTE = "# made by scripts/monitoring_stack.py: change labkit, not this file\n"


def files() -> dict[str, str]:
    """Name -> text."""
    balancer = haproxy.container_text([f"{name}:8080" for name in MODELS], port=8080)
    keeper = loki.config(3100, 9095, host="0.0.0.0", folder="/data")  # noqa: S104 - inside its container
    return {
        "prometheus/rules.yml": NOTE + rules.text(rules.Limits(replicas=len(MODELS))),
        "dashboard.json": dashboards.text(("haproxy", "llama_server")),
        "haproxy/haproxy.cfg": NOTE + balancer,
        "loki/loki.yml": NOTE + yaml.safe_dump(keeper, sort_keys=False),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [name for name, text in files().items() if not (FOLDER / name).exists() or (FOLDER / name).read_text(encoding="utf-8") != text]
    for name in stale:
        if not check:
            (FOLDER / name).write_text(files()[name], encoding="utf-8")
        print(f"{FOLDER / name}: {'not what labkit makes' if check else 'written'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
