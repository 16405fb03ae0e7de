"""Foundry Local's catalogue: which ONNX models it offers, and their files, over plain HTTP.

Three public steps, as Foundry Local's own open source takes them (github.com/microsoft/Foundry-Local, sdk: catalog and
download): a POST to the catalogue lists models with their asset id; the model registry turns an asset id into a
signed address of a blob container; the container is listed and its blobs are read.
Checksums: the container states an MD5 for most blobs, no sha256; an MD5 finds damage, not forgery.
Limits: read from that source and tested against a stand-in of these services; the real ones were not reached when this was
written. The addresses are undocumented and may change: then use Foundry Local itself (lab 11).

>>> [model.alias for model in models()]  # doctest: +SKIP
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit
from xml.etree import ElementTree

import httpx
from pydantic import Field

from labkit.core.errors import BadInput, MissingPart, RunFailed, nearest
from labkit.core.records import Record
from labkit.models import safety
from labkit.models.sources import Found, RemoteFile, http

CATALOGUE = "https://ai.azure.com/api/eastus/ux/v1.0"
REGISTRY = "https://eastus.api.azureml.ms"
_HEADERS = {"User-Agent": "AzureAiStudio"}  # the services refuse other clients
_PAGE = 50
_MAX_PAGES = 40


class Offer(Record):
    """One model of the catalogue: a variant for one kind of processor."""

    id: str = Field(description="name:version")
    alias: str
    asset_id: str
    device: str
    execution_provider: str
    licence: str | None
    task: str | None
    bytes: int | None


def models(endpoint: str | None = None, device: str = "cpu") -> list[Offer]:
    """What the catalogue offers for a kind of processor: "cpu", "gpu" or "npu"."""
    wanted = {
        "type": ["models"],
        "kind": ["Versioned"],
        "labels": ["latest"],
        "annotations/tags/foundryLocal": [""],
        "properties/variantInfo/variantMetadata/device": [device],
    }
    request: dict[str, Any] = {
        "filters": [{"field": field, "operator": "eq", "values": values} for field, values in wanted.items()],
        "pageSize": _PAGE,
    }
    found: list[Offer] = []
    for _ in range(_MAX_PAGES):
        body = {"resourceIds": [{"resourceId": "azureml", "entityContainerType": "Registry"}], "indexEntitiesRequest": request}
        base = f"{endpoint}/api/eastus/ux/v1.0" if endpoint else CATALOGUE
        page = _json("POST", f"{base}/entities/crossRegion", json=body).get("indexEntitiesResponse") or {}
        found += [offer for entity in page.get("value") or [] if (offer := _offer(entity))]
        more = {"skip": page.get("nextSkip") or None, "continuationToken": page.get("continuationToken") or None}
        if not any(more.values()) or not page.get("value"):
            break
        request |= {key: value for key, value in more.items() if value}
    return found


def look_up(name: str, file: str | None = None, endpoint: str | None = None) -> Found:
    """A model by alias, name or "name:version", for this machine's processor. Raises BadInput with the nearest name."""
    offers = {
        key: offer for offer in models(endpoint) for key in (offer.id.lower(), offer.id.partition(":")[0].lower(), offer.alias.lower())
    }
    offer = offers.get(name.lower())
    if offer is None:
        raise BadInput(f"Foundry Local's catalogue has no model {name!r} ({nearest(name, offers)})", "labkit models pull --help")
    base = endpoint or REGISTRY
    entity = _json("GET", f"{base}/modelregistry/v1.0/registry/models/nonazureaccount?assetId={quote(offer.asset_id, safe='')}")
    if not entity.get("blobSasUri"):
        raise RunFailed(f"the registry gives no address for {offer.id}", "try again later, or use Foundry Local itself")
    files = tuple(one for one in blobs(entity["blobSasUri"]) if safety.judge(one.path) in ("weights", "text"))
    model, _, version = offer.id.rpartition(":")
    where = f"https://ai.azure.com/explore/models/{model}/version/{version}/registry/azureml"
    return Found(name=offer.id, revision=version, licence=offer.licence, licence_url=where, files=files)


def fetch(found: Found, folder: Path, endpoint: str | None = None) -> dict[str, str]:
    """The blobs, each resumed and checked against its size and MD5."""
    return {one.path: http.fetch(one.url, folder / one.path, one.bytes, one.digest, _HEADERS) for one in found.files}


def blobs(signed: str) -> list[RemoteFile]:
    """The blobs of a container, by its signed address: Azure's "List Blobs" (XML), page by page."""
    parts = urlsplit(signed)
    found: list[RemoteFile] = []
    marker = ""
    for _ in range(_MAX_PAGES):
        query = "&".join(filter(None, (parts.query, "restype=container&comp=list", f"marker={quote(marker)}" if marker else "")))
        reply = _ask("GET", urlunsplit(parts._replace(query=query)))
        tree = ElementTree.fromstring(reply.content)  # noqa: S314 - sizes and names only; the standard parser reads no external entity
        for blob in tree.iter("Blob"):
            path = safety.check_name(blob.findtext("Name") or "")
            stated = blob.findtext("Properties/Content-MD5")
            size = blob.findtext("Properties/Content-Length")
            url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(path)}"))
            found.append(RemoteFile(path=path, bytes=int(size) if size else None, digest=_md5(stated), url=url))
        marker = tree.findtext("NextMarker") or ""
        if not marker:
            break
    return found


def _offer(entity: dict[str, Any]) -> Offer | None:
    """None for an entity that lacks its asset id or name, as Foundry Local passes over it too."""
    tags = (entity.get("annotations") or {}).get("tags") or {}
    properties = entity.get("properties") or {}
    about = (properties.get("variantInfo") or {}).get("variantMetadata") or {}
    name, asset = properties.get("name"), entity.get("assetId")
    if not name or not asset:
        return None
    return Offer(
        id=f"{name}:{properties.get('version', 1)}",
        alias=tags.get("alias") or name,
        asset_id=asset,
        device=about.get("device") or "",
        execution_provider=about.get("executionProvider") or "",
        licence=tags.get("license"),
        task=tags.get("task"),
        bytes=about.get("fileSizeBytes"),
    )


def _md5(stated: str | None) -> str | None:
    try:
        return f"md5:{base64.b64decode(stated, validate=True).hex()}" if stated else None
    except binascii.Error:
        return None


def _json(method: str, url: str, **options: Any) -> dict[str, Any]:
    try:
        found = _ask(method, url, **options).json()
    except ValueError:
        raise RunFailed(f"{urlsplit(url).hostname} sent no JSON", "try again later") from None
    return found if isinstance(found, dict) else {}


def _ask(method: str, url: str, **options: Any) -> httpx.Response:
    host = urlsplit(url).hostname
    try:
        reply = httpx.request(method, url, headers=_HEADERS, timeout=30, **options)
    except httpx.TransportError as error:
        raise MissingPart(f"{host} cannot be reached ({type(error).__name__})", "try again with a network") from None
    if reply.status_code >= 400:
        raise RunFailed(f"{host} answers {reply.status_code}", "try again later, or use Foundry Local itself")
    return reply
