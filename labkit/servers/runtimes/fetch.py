"""Archives by their sha256, unpacked safely; long commands with a line every half minute. A dead network fails over quickly."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import which
from typing import IO, Literal, cast

import httpx

from labkit.core import paths
from labkit.models.sources import http
from labkit.servers.runtimes.base import NotThisWay, Say

CONNECT_S = 5.0
_TICK_S = 30.0


def archive(url: str, sha256: str, size: int | None, folder: Path, wanted: Callable[[str], bool], say: Say) -> None:
    """Fetch a .tar.gz or .tar.zst, compare its sha256, unpack the members whose name is `wanted`.

    Raises NotThisWay: the host cannot be reached, refuses, or no program reads the archive.
    """
    zstd = which("zstd")
    if url.endswith(".zst") and zstd is None:
        raise NotThisWay("the program zstd, which unpacks the archive, is not installed")
    reachable(url)
    name = url.rsplit("/", 1)[1]
    say(f"  fetching {name}{f', {size / 1e6:,.0f} MB' if size else ''}")
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=paths.cache("runtimes")) as temporary:
        target = Path(temporary) / name
        http.fetch(url, target, size, f"sha256:{sha256}")
        if url.endswith(".zst"):
            with subprocess.Popen([str(zstd), "-dc", str(target)], stdout=subprocess.PIPE) as reader:
                unpack(cast(IO[bytes], reader.stdout), folder, wanted)
        else:
            with target.open("rb") as file:
                unpack(file, folder, wanted, "gz")


def unpack(stream: IO[bytes], folder: Path, wanted: Callable[[str], bool], packing: Literal["", "gz"] = "") -> None:
    """The wanted members of a tar stream; nothing outside `folder`, no device, no foreign owner (tarfile's filter "data")."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=stream, mode="r|gz" if packing else "r|") as tar:
            for member in tar:
                if wanted(f"/{member.name}"):
                    tar.extract(member, folder, filter="data")
    except tarfile.TarError as error:
        raise NotThisWay(f"its archive cannot be unpacked: {error}") from error


def reachable(url: str) -> None:
    """Raises NotThisWay where the host gives no good answer within a few seconds."""
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=httpx.Timeout(15, connect=CONNECT_S)) as reply:
            status = reply.status_code
    except httpx.TransportError as error:
        raise NotThisWay(f"{httpx.URL(url).host} cannot be reached ({error or type(error).__name__})") from error
    if status >= 400:
        raise NotThisWay(f"{httpx.URL(url).host} answers {status}")


def run(words: list[str], added: Mapping[str, str], say: Say, meanwhile: str, failed: str) -> None:
    """A long command, its output kept for the case that it fails. Raises NotThisWay with its last line; ends it on Ctrl-C."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | dict(added), start_new_session=True
        )
        start = time.monotonic()
        try:
            while True:
                try:
                    code = process.wait(_TICK_S)
                    break
                except subprocess.TimeoutExpired:
                    seconds = round(time.monotonic() - start)
                    say(f"  {meanwhile}: {seconds // 60} min {seconds % 60} s")
        except BaseException:
            _end(process)
            raise
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    if code:
        raise NotThisWay(f"{failed}: {lines[-1][:200] if lines else f'exit code {code}'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The command and the compilers that it started."""
    if os.name == "posix":
        from labkit.servers import keeper

        keeper.end_group(process.pid, 15)
    else:
        process.terminate()
    process.wait()
