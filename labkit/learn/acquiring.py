"""What lab 03 does: find, fetch, verify, look into, convert and bundle a model.

The services are stand-ins on this machine unless the reader asks for the real Hub; every label says which. What is fetched goes
into a temporary cache, so that runs side by side do not meet and the reader's own cache stays as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labkit import models
from labkit.core.errors import LabkitError
from labkit.core.records import ModelRef
from labkit.learn.acquiring_services import STAND_IN, Service, azure_registry, gguf_of, listing, open_hub, pickle_bytes
from labkit.models import acquire, bundle, inspect, safety
from labkit.models.sources import foundry
from labkit.servers.hub_stand_in import HubStandIn, Repo

__all__ = ["STAND_IN", "listing", "open_hub", "pickle_bytes"]  # for the notebook, beside what is defined here

_HASHED = 32 << 20  # bytes of the file that the flipped bits are tried on


@contextlib.contextmanager
def own_cache() -> Iterator[Path]:
    """A cache that is deleted afterwards, in the place of the reader's."""
    before = os.environ.get("LABKIT_CACHE")
    with tempfile.TemporaryDirectory(prefix="labkit-acquire-") as folder:
        os.environ["LABKIT_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["LABKIT_CACHE"]
            else:
                os.environ["LABKIT_CACHE"] = before


# -- fetching


def pull_rows(service: Service, repos: Sequence[str]) -> list[dict[str, Any]]:
    """What `labkit models pull` says to each repository: fetched with its checksum, or refused with the reason."""
    rows = []
    with own_cache():
        for repo in repos:
            try:
                done = acquire.pull(repo, endpoint=service.endpoint, accept_licence=True)
                rows.append(
                    {
                        "repository": repo,
                        "result": "fetched",
                        "bytes": done.bytes,
                        "licence": done.licence or "none stated",
                        "why": done.verified_by,
                    }
                )
            except LabkitError as error:
                rows.append({"repository": repo, "result": "refused", "bytes": 0, "licence": "", "why": error.cause})
    return rows


def cut_rows(ref: ModelRef | None, shares: Sequence[float]) -> list[dict[str, Any]]:
    """One download that breaks at each share of the file: the bytes of each request. Always on the stand-in: it can be broken."""
    path = gguf_of(ref)
    size = path.stat().st_size
    with own_cache(), HubStandIn({"course/cut": Repo({path.name: path}, "mit")}) as hub:
        hub.cuts[path.name] = [int(size * share) for share in shares]
        done = acquire.pull("course/cut", endpoint=hub.url, accept_licence=True)
        starts = _starts(hub.asked, path.name)
    ends = [*starts[1:], size]
    verified = done.sha256 == models.sha256_of(path)
    return [
        {"request": n, "from_byte": start, "to_byte": end, "file_bytes": size, "verified": verified}
        for n, (start, end) in enumerate(zip(starts, ends, strict=True), 1)
    ]


def official_rows(share: float = 0.6) -> list[dict[str, Any]]:
    """The official client, whose download breaks for good at a share of a file of 30 MB, and then is called again.

    A row a call: where its first request began, where each of them began (as text), and whether it ended well.
    """
    import huggingface_hub
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    content = b"GGUF" + bytes(30_000_000)  # the client writes pieces of 10 MiB: of a smaller file nothing is kept
    cut, rows = int(len(content) * share), []
    try:
        with tempfile.TemporaryDirectory() as folder, HubStandIn({"course/cut": Repo({"small.gguf": content})}) as hub:
            hub.cuts["small.gguf"] = [cut] * 7  # one more than the client tries without getting a byte
            for call in (1, 2):
                hub.asked.clear()
                try:
                    hf_hub_download("course/cut", "small.gguf", local_dir=folder, endpoint=hub.url)
                    ended = "complete"
                except Exception as error:  # noqa: BLE001 - which error it is belongs into the row
                    ended = type(error).__name__
                starts = _starts([line for line in hub.asked if line.startswith("GET")], "small.gguf")
                common = {"file_bytes": len(content), "version": huggingface_hub.__version__}
                first = {"call": call, "requests": len(starts), "first_from_byte": starts[0]}
                rows.append(first | {"start_bytes": ", ".join(f"{start:,}" for start in starts), "ended": ended, **common})
                hub.cuts["small.gguf"] = []
    finally:
        logging.set_verbosity(before)
    return rows


def _starts(asked: Sequence[str], name: str) -> list[int]:
    """First byte of each request for a file."""
    return [int(line.partition("bytes=")[2].partition("-")[0] or 0) for line in asked if f"/{name}" in line]


# -- verifying


def flip_rows(ref: ModelRef | None, seed: int, count: int) -> list[dict[str, Any]]:
    """Flip one bit of the file (of its first 32 MB), `count` times: how many of the 64 hex digits of sha256 stay as they were."""
    with gguf_of(ref).open("rb") as file:
        data = bytearray(file.read(_HASHED))
    whole = hashlib.sha256(data).hexdigest()
    rng = np.random.default_rng(seed)
    rows = []
    for at, bit in zip(rng.integers(len(data), size=count), rng.integers(8, size=count), strict=True):
        data[at] ^= 1 << int(bit)
        changed = hashlib.sha256(data).hexdigest()
        data[at] ^= 1 << int(bit)
        same = sum(a == b for a, b in zip(whole, changed, strict=True))
        rows.append({"at_byte": int(at), "bit": int(bit), "same_digits": same, "equal": whole == changed})
    return rows


def opcodes(data: bytes) -> list[str]:
    """A pickle's program, one opcode a line, read and not run."""
    import pickletools

    out = io.StringIO()
    pickletools.dis(data, out)
    return out.getvalue().splitlines()


# -- Foundry Local's catalogue, Azure's registry


def foundry_rows() -> list[dict[str, Any]]:
    """What Foundry Local's catalogue (a stand-in of it) offers by kind of processor, and one model pulled from it."""
    with own_cache(), azure_registry() as service:
        rows = [
            {"alias": offer.alias, "id": offer.id, "device": offer.device, "licence": offer.licence, "bytes": offer.bytes, "pulled": ""}
            for device in ("cpu", "gpu", "npu")
            for offer in foundry.models(service.url, device)
        ]
        done = acquire.pull("tiny-instruct", source="foundry", endpoint=service.url, accept_licence=True)
        rows[0 if rows[0]["alias"] == "tiny-instruct" else 1]["pulled"] = f"verified by {done.verified_by}"
    return rows


def azure_rows() -> list[dict[str, Any]]:
    """The requests that the official client sends to pull a model from a registry (a stand-in of it)."""
    with own_cache(), azure_registry() as service:
        done = acquire.pull("azureml/tiny-instruct-generic-cpu:2", source="azure", endpoint=service.url, accept_licence=True)
        asked = list(dict.fromkeys(line.replace("00000000-0000-0000-0000-000000000000", "…") for line in service.asked))
    stages = {"registrymanagement": "where is the registry?", "/models/": "what is the model?", "/datarefs/": "may I read its files?"}
    rows = []
    for line in asked:
        method, path, *_ = line.split()
        stage = next((told for part, told in stages.items() if part in path), "its files")
        rows.append({"asks": stage, "request": f"{method} …/{'/'.join(path.split('/')[-4:])}", "bytes": done.bytes})
    return rows


# -- what is in a file, converting


def convert_rows(ref: ModelRef) -> list[dict[str, Any]]:
    """The GGUF file, and the files of the Hugging Face folder made of it. Needs the extra `hf`."""
    from labkit.quant import hf

    header = inspect.read(ref.path)
    folder = hf.to_hf(ref)
    known = {"parameters": header.parameters}
    rows = [{"format": "GGUF", "file": "model.gguf", "bytes": header.file_bytes, "tensors": len(header.tensors), **known}]
    for path in sorted(folder.path.iterdir()):
        tensors = len(safety.safetensors_header(path)) - 1 if path.suffix == ".safetensors" else 0
        if safety.judge(path.name) in ("weights", "text") and path.name != "labkit.json":
            rows.append({"format": "Hugging Face", "file": path.name, "bytes": path.stat().st_size, "tensors": tensors, **known})
    return rows


# -- the bundle


def bundle_rows(ref: ModelRef | None, seed: int, count: int) -> list[dict[str, Any]]:
    """Pack the model and a wheel, unpack them elsewhere, then flip one bit at `count` places of the bundle: what is said of each.

    The first row is the whole bundle. The model is cut to a megabyte, so that many tries are quick.
    """
    rng = np.random.default_rng(seed)
    with own_cache(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wheels").mkdir()
        (folder / "wheels" / "tool-1.0-py3-none-any.whl").write_bytes(rng.bytes(50_000))
        with gguf_of(ref).open("rb") as file:
            (folder / "model.gguf").write_bytes(file.read(1 << 20))
        packed = folder / "course.tar"
        bundle.pack([str(_whole(folder / "model.gguf"))], packed, folder / "wheels")
        rows = [_tried(packed, folder / "into", -1)]
        whole = packed.read_bytes()
        for at in sorted(int(at) for at in rng.integers(2048, len(whole) - 20_000, size=count)):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << int(rng.integers(8))
            packed.write_bytes(damaged)
            rows.append(_tried(packed, folder / "into", at))
    return rows


def _whole(path: Path) -> Path:
    """A GGUF file that says it holds no tensors: what was cut off is not missed."""
    data = bytearray(path.read_bytes())
    data[8:24] = bytes(16)
    path.write_bytes(data)
    return path


def _tried(packed: Path, into: Path, at: int) -> dict[str, Any]:
    try:
        placed = bundle.unpack(packed, into)
        return {"at_byte": at, "refused": False, "why": f"{len(placed)} parts in place"}
    except LabkitError as error:
        return {"at_byte": at, "refused": True, "why": error.cause}
