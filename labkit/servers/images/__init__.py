"""Containers, through podman or Docker, whichever is here: images built, hardened containers run, stacks started.

All that a process makes carries its label, and is gone when the process is, however it ends.

>>> image = images.build(paths.labs("stacks", "llama"), "llama")  # doctest: +SKIP
>>> with images.run(image, port=8080, memory_mb=600) as running:
...     running.wait()
...     print(running.base_url, images.hardening(running)["uid"])
"""

from __future__ import annotations

from labkit.servers.images.bases import ensure, stand_in
from labkit.servers.images.build import Image, build, inspect
from labkit.servers.images.cgroups import hardening
from labkit.servers.images.compose import Stack, compose, missing_compose
from labkit.servers.images.container import Container, run
from labkit.servers.images.runs import leftovers
from labkit.servers.images.tool import Tool, missing, tool, version
from labkit.servers.images.volumes import Network, Volume, folder, network, volume

__all__ = [
    "Container",
    "Image",
    "Network",
    "Stack",
    "Tool",
    "Volume",
    "build",
    "compose",
    "ensure",
    "folder",
    "hardening",
    "inspect",
    "leftovers",
    "missing",
    "missing_compose",
    "network",
    "run",
    "stand_in",
    "tool",
    "version",
    "volume",
]
