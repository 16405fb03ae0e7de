"""How much `make run SET=all` fetches: the sum of the files in uv.lock that this machine lacks.

Reads uv.lock alone, so it needs no network. What uv already has in its cache is fetched from there, so the figure is an
upper bound. Use: .venv/bin/python scripts/fetch_size.py
"""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from packaging.markers import Marker
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

LOCK = Path(__file__).resolve().parents[1] / "uv.lock"
PROJECT = "labkit"


def holds(dependency: dict) -> bool:
    marker = dependency.get("marker")
    return marker is None or Marker(marker).evaluate()


def closure(packages: list[dict], dependencies: Iterable[dict]) -> list[dict]:
    """The packages that these dependencies pull in on this machine, with the extras they ask for."""
    by_name: dict[str, list[dict]] = {}
    for package in packages:
        by_name.setdefault(package["name"], []).append(package)
    queue = [dependency for dependency in dependencies if holds(dependency)]
    seen: set[tuple[str, str, str]] = set()
    found: dict[tuple[str, str], dict] = {}
    while queue:
        dependency = queue.pop()
        # a name may be locked at several versions; the dependency then says which it means
        versions = by_name[dependency["name"]]
        package = next((p for p in versions if dependency.get("version") in (None, p.get("version"))), versions[0])
        for extra in ("", *dependency.get("extra", [])):
            key = (package["name"], package.get("version", ""), extra)
            if key in seen:
                continue
            seen.add(key)
            found[key[:2]] = package
            wanted = package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])
            queue += [dependency for dependency in wanted if holds(dependency)]
    return list(found.values())


def bytes_to_fetch(package: dict, ranks: dict) -> int:
    """The best wheel for this machine, else the source archive; 0 where the lock gives no size."""
    best: tuple[int, int] | None = None
    for wheel in package.get("wheels", []):
        tags = parse_wheel_filename(unquote(wheel["url"].rsplit("/", 1)[-1]))[3]
        rank = min((ranks[tag] for tag in tags if tag in ranks), default=None)
        if rank is not None and (best is None or rank < best[0]):
            best = (rank, wheel.get("size", 0))
    return best[1] if best else package.get("sdist", {}).get("size", 0)


def installed(package: dict) -> bool:
    try:
        return importlib.metadata.version(package["name"]) == package.get("version")
    except importlib.metadata.PackageNotFoundError:
        return False


def missing(lock: dict) -> list[tuple[str, str, int]]:
    """(name, version, bytes) of every package of all extras that is not installed here."""
    packages = lock["package"]
    project = next(p for p in packages if canonicalize_name(p["name"]) == PROJECT)
    extras = project.get("optional-dependencies", {})
    asked = [*project["dependencies"], *(d for name in extras for d in extras[name])]
    ranks = {tag: rank for rank, tag in enumerate(sys_tags())}
    wanted = [p for p in closure(packages, asked) if not installed(p)]
    return sorted((p["name"], p.get("version", ""), bytes_to_fetch(p, ranks)) for p in wanted)


def main() -> int:
    rows = missing(tomllib.loads(LOCK.read_text(encoding="utf-8")))
    total = sum(size for _, _, size in rows)
    if not rows:
        sys.stdout.write("every heavy part is installed already: nothing to fetch\n")
        return 0
    largest = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, _, size in sorted(rows, key=lambda r: -r[2])[:3] if size >= 1e6)
    sys.stdout.write(f"SET=all fetches at most {total / 1e6:.0f} MB in {len(rows)} packages{f' ({largest})' if largest else ''}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
