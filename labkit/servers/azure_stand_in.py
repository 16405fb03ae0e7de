"""A stand-in, on this machine, of three services of Azure: Foundry Local's catalogue, a model registry and its blob store.

In as much of their APIs as Foundry Local's way to a model and the official azure-ai-ml client ask for. It is not Azure:
it takes any token, and its blob addresses are signed with the word "stand-in".

>>> with AzureStandIn({"tiny-generic-cpu": Model({"model.onnx": path}, alias="tiny")}) as azure:
...     foundry.models(azure.url)
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from labkit.servers.stand_in import Asked, Content, Reply, StandIn, sha256

_SUBSCRIPTION, _GROUP = "00000000-0000-0000-0000-000000000000", "stand-in"
_VERSION = re.compile(r"/registries/(?P<registry>[^/]+)/(?P<kind>models|datarefs)/(?P<name>[^/]+)/versions/(?P<version>[^/]+)$")
_DISCOVERY = re.compile(r"^/registrymanagement/v1\.0/registries/(?P<registry>[^/]+)/discovery$")
_ASSET = re.compile(r"^azureml://registries/(?P<registry>[^/]+)/models/(?P<name>[^/]+)/versions/(?P<version>[^/]+)$")
GALLERY = "/asset-gallery/v1.0/models"  # where Foundry Local's SDK (2.2) asks a catalogue
_DATE = "Sun, 22 Nov 2026 00:00:00 GMT"


@dataclass
class Model:
    """A model of the registry. `alias` and `device` are what Foundry Local's catalogue says of it; no alias: not in it."""

    files: dict[str, Content]
    version: str = "1"
    licence: str | None = "MIT"
    alias: str = ""
    device: str = "cpu"


class AzureStandIn(StandIn):
    """Models by name, in a registry named `registry`."""

    def __init__(self, models: dict[str, Model], registry: str = "azureml", page: int = 50) -> None:
        super().__init__()
        self.models, self.registry, self.page = models, registry, page
        self.gallery_asked: list[dict[str, Any]] = []  # what Foundry Local's SDK asked so far

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/api/eastus/ux/v1.0/entities/crossRegion":
            return self._catalogue(json.loads(asked.body))
        if asked.path == GALLERY:
            return self._gallery(json.loads(asked.body))
        if asked.path == "/modelregistry/v1.0/registry/models/nonazureaccount":
            return self._address(asked.query.get("assetId", ""))
        if match := _DISCOVERY.match(asked.path):
            return self._discovery() if match["registry"] == self.registry else _missing(f"registry {match['registry']}")
        if match := _VERSION.search(asked.path):
            model = self.models.get(match["name"])
            if match["registry"] != self.registry or model is None or model.version != match["version"]:
                return _missing(f"{match['name']}:{match['version']}")
            return self._model(match["name"]) if match["kind"] == "models" else self._data_reference(match["name"])
        parts = asked.path.strip("/").split("/", 2)
        if parts[0] == "account" and len(parts) > 1 and parts[1] in self.models:
            return self._blob(asked, parts[1], parts[2] if len(parts) > 2 else "")
        return _missing(asked.path)

    # -- Foundry Local's catalogue

    def _catalogue(self, body: dict[str, Any]) -> Reply:
        asked = body["indexEntitiesRequest"]
        filters = {one["field"].rpartition("/")[2]: one["values"] for one in asked["filters"]}
        fitting = [name for name, m in sorted(self.models.items()) if m.alias and m.device in filters.get("device", [m.device])]
        start = int(asked.get("skip") or 0)
        more = start + self.page if start + self.page < len(fitting) else 0
        value = [self._entity(name) for name in fitting[start : start + self.page]]
        return Reply.of_json(
            {"indexEntitiesResponse": {"totalCount": len(fitting), "value": value, "nextSkip": more, "continuationToken": ""}}
        )

    def _gallery(self, body: dict[str, Any]) -> Reply:
        """The same entities in the form that the SDK asks for, on one page."""
        self.gallery_asked.append(body)
        wanted = {one["field"].rpartition("/")[2]: one["values"] for one in body["filters"]}
        fitting = [name for name, m in sorted(self.models.items()) if m.alias and m.device in wanted.get("device", [m.device])]
        return Reply.of_json({"totalCount": len(fitting), "value": [self._entity(name) for name in fitting]})

    def _entity(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        size = sum(len(c) if isinstance(c, bytes) else c.stat().st_size for c in model.files.values())
        about = {"modelType": "ONNX", "device": model.device, "executionProvider": "CPUExecutionProvider", "fileSizeBytes": size}
        tags = {"alias": model.alias, "foundryLocal": "", "task": "chat-completion"} | ({"license": model.licence} if model.licence else {})
        return {
            "assetId": self._asset(name), "entityId": f"{name}:{model.version}", "annotations": {"tags": tags},
            "properties": {"name": name, "version": int(model.version), "variantInfo": {"parents": [], "variantMetadata": about}},
        }  # fmt: skip

    def _address(self, asset: str) -> Reply:
        match = _ASSET.match(asset)
        if match is None or match["name"] not in self.models:
            return _missing(asset)
        return Reply.of_json({"blobSasUri": self._signed(match["name"]), "modelEntity": {"name": match["name"]}})

    # -- the registry, as azure-ai-ml asks it

    def _discovery(self) -> Reply:
        told = {
            "registryName": self.registry, "tenantId": _SUBSCRIPTION, "primaryRegion": "local", "regions": ["local"],
            "subscriptionId": _SUBSCRIPTION, "resourceGroup": _GROUP, "primaryRegionResourceProviderUri": f"{self.url}/",
        }  # fmt: skip
        return Reply.of_json(told)

    def _model(self, name: str) -> Reply:
        model = self.models[name]
        properties = {
            # the real service names its own blob store here; the client takes only the last part, the folder, from it
            "modelUri": f"https://standin.blob.core.windows.net/{name}/{name}",
            "modelType": "custom_model", "isArchived": False, "isAnonymous": False, "description": "", "flavors": {},
            "tags": {"license": model.licence} if model.licence else {}, "properties": {},
        }  # fmt: skip
        at = {"createdAt": "2026-11-22T00:00:00Z", "createdBy": "stand-in", "createdByType": "User"}
        return Reply.of_json(
            {
                "id": self._asset(name),
                "name": model.version,
                "type": "Microsoft.MachineLearningServices/registries/models/versions",
                "systemData": at,
                "properties": properties,
            }
        )

    def _data_reference(self, name: str) -> Reply:
        credential = {"credentialType": "SAS", "sasUri": self._signed(name)}
        return Reply.of_json({"blobReferenceForConsumption": {"blobUri": self._signed(name), "credential": credential}})

    # -- the blob store

    def _blob(self, asked: Asked, name: str, path: str) -> Reply:
        if asked.query.get("sig") != "stand-in":
            return _blob_error(403, "AuthenticationFailed")
        if asked.query.get("comp") == "list":
            return self._listing(name, asked.query.get("prefix", ""))
        content = self.models[name].files.get(path.removeprefix(f"{name}/"))
        if content is None:
            return _blob_error(404, "BlobNotFound")
        headers = {
            "ETag": f'"{sha256(content)[:16]}"', "Last-Modified": _DATE, "Content-MD5": _md5(content),
            "x-ms-blob-type": "BlockBlob", "x-ms-creation-time": _DATE, "Content-Type": "application/octet-stream",
        }  # fmt: skip
        return Reply(200, content, headers)

    def _listing(self, name: str, prefix: str) -> Reply:
        """The blobs lie under a folder named as the model, for azure-ai-ml, which asks for that prefix; and at the top."""
        blobs = []
        for path, content in sorted(self.models[name].files.items()):
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            at = f"{name}/{path}" if prefix else path
            if at.startswith(prefix):
                blobs.append(
                    f"<Blob><Name>{escape(at)}</Name><Properties><Creation-Time>{_DATE}</Creation-Time><Last-Modified>{_DATE}</Last-Modified>"
                    f"<Etag>{sha256(content)[:16]}</Etag><Content-Length>{size}</Content-Length><Content-Type>application/octet-stream"
                    f"</Content-Type><Content-MD5>{_md5(content)}</Content-MD5><BlobType>BlockBlob</BlobType></Properties></Blob>"
                )
        head = f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{self.url}/account" ContainerName="{name}">'
        text = f"{head}<Prefix>{escape(prefix)}</Prefix><Blobs>{''.join(blobs)}</Blobs><NextMarker /></EnumerationResults>"
        return Reply(200, text.encode(), {"Content-Type": "application/xml"})

    def _asset(self, name: str) -> str:
        return f"azureml://registries/{self.registry}/models/{name}/versions/{self.models[name].version}"

    def _signed(self, name: str) -> str:
        return f"{self.url}/account/{name}?sv=2024-11-04&sr=c&sp=rl&sig=stand-in"


def _missing(what: str) -> Reply:
    return Reply.of_json({"error": {"code": "UserError", "message": f"{what} was not found"}}, 404)


def _blob_error(status: int, code: str) -> Reply:
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return Reply(status, text.encode(), {"Content-Type": "application/xml", "x-ms-error-code": code})


def _md5(content: Content) -> str:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
