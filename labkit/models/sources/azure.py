"""A model registry of Azure Machine Learning (Azure AI Foundry's is named "azureml"), through the official client.

Needs the extra `azure` and a login that azure-identity finds (`az login`). NAME is REGISTRY/MODEL:VERSION, or MODEL:VERSION
of the registry "azureml". The client's telemetry is off.
Limits: the client states no checksum and keeps no half-finished file, so a broken download starts that model again, and
it holds each file in memory while it arrives. Its files are checked by content, and their sha256 is noted here.

>>> look_up("azureml/Phi-4-mini-instruct:1")  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from labkit.core import extras
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.models import safety
from labkit.models.sources import Found

_NAME = re.compile(r"^(?:(?P<registry>[A-Za-z0-9._-]+)/)?(?P<model>[A-Za-z0-9._-]+):(?P<version>[A-Za-z0-9._-]+)$")
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class LoopbackCredential:
    """In place of a login, for an endpoint on this machine: a stand-in takes any token."""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("stand-in", 4102444800)  # the year 2100


def look_up(name: str, file: str | None = None, endpoint: str | None = None) -> Found:
    """Raises BadInput for an unknown name, MissingPart where the client, a login or the network is missing."""
    registry, model, version = split(name)
    entity = _call(name, lambda: client(registry, endpoint).models.get(model, version=version))
    tags = {**(entity.properties or {}), **(entity.tags or {})}
    licence = tags.get("license") or tags.get("licence")
    where = f"https://ai.azure.com/explore/models/{model}/version/{version}/registry/{registry}"
    return Found(name=f"{registry}/{model}:{version}", revision=version, licence=licence, licence_url=where, files=())


def fetch(found: Found, folder: Path, endpoint: str | None = None) -> dict[str, str]:
    """All files of the model. One that is neither weights nor text is deleted again."""
    registry, model, version = split(found.name)
    fresh = folder / ".azure"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        _call(found.name, lambda: client(registry, endpoint).models.download(model, version=version, download_path=str(fresh)))
        arrived = _without_outer_folders(fresh)
        kept = {name: path for name, path in arrived.items() if safety.judge(name) in ("weights", "text")}
        for name, path in kept.items():
            target = folder / safety.check_name(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if not any(safety.judge(name) == "weights" for name in kept):
        raise BadInput(f"{found.name} holds no weights that labkit reads", "labkit takes safetensors, GGUF and ONNX files")
    return dict.fromkeys(kept, "nothing")


def split(name: str) -> tuple[str, str, str]:
    """Registry, model and version of a name."""
    match = _NAME.match(name)
    if match is None:
        raise BadInput(f"{name!r} is no registry model", "labkit models pull azureml/MODEL:VERSION --from azure")
    return match["registry"] or "azureml", match["model"], match["version"]


def client(registry: str, endpoint: str | None = None) -> Any:
    """An `azure.ai.ml.MLClient` on a registry; `endpoint` (loopback only) puts another cloud in the place of Azure's."""
    extras.require("azure")
    from azure.ai.ml import MLClient

    logging.getLogger("azure.ai.ml").setLevel(logging.WARNING)  # its progress lines name local folders

    if endpoint is None:
        from azure.identity import DefaultAzureCredential

        return MLClient(DefaultAzureCredential(), registry_name=registry, enable_telemetry=False, show_progress=False)
    if urlsplit(endpoint).hostname not in _LOOPBACK:
        raise BadInput(f"{endpoint} is not on this machine, and a token must not go to another address", "leave --endpoint out")
    from azure.core.pipeline.policies import HeadersPolicy

    names = ("portal", "resource_manager", "active_directory", "aml_resource_id", "registry_discovery_endpoint")
    keys = {"portal": "azure_portal"}
    cloud = {keys.get(name, name): f"{endpoint}/" for name in names} | {"storage_endpoint": "core.windows.net"}
    return MLClient(
        LoopbackCredential(),
        registry_name=registry,
        enable_telemetry=False,
        show_progress=False,
        cloud=f"loopback-{urlsplit(endpoint).port}",
        cloud_metadata=cloud,
        # the client sends a bearer token over TLS only; in its place a header that opens nothing
        authentication_policy=HeadersPolicy({"Authorization": "Bearer stand-in"}),
    )


def _without_outer_folders(root: Path) -> dict[str, Path]:
    """The files by their place in the model: the client puts MODEL/ in front, and mostly another folder that holds all."""
    while len(inside := list(root.iterdir())) == 1 and inside[0].is_dir():
        root = inside[0]
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def _call(name: str, ask: Any) -> Any:
    """One call of the client, its errors in one sentence each."""
    extras.require("azure")
    from azure.core import exceptions

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):  # stdout is for data
            warnings.simplefilter("ignore")  # the client's warnings are about its own libraries
            return ask()
    except exceptions.ResourceNotFoundError:
        raise BadInput(f"the registry has no model {name}", "look at ai.azure.com/explore/models") from None
    except exceptions.ClientAuthenticationError:
        raise MissingPart("nobody is logged in to Azure here", "az login") from None
    except (exceptions.ServiceRequestError, exceptions.ServiceResponseError) as error:
        raise MissingPart(f"the registry cannot be reached ({type(error).__name__})", "try again with a network") from None
    except exceptions.HttpResponseError as error:
        if error.status_code == 404:
            raise BadInput(f"the registry has no model {name}", "look at ai.azure.com/explore/models") from None
        raise RunFailed(f"the registry answers {error.status_code} for {name}", "try again later") from None
    except (BadInput, MissingPart):
        raise
    except Exception as error:  # noqa: BLE001 - the client wraps what happened to a blob in errors of many kinds
        raise RunFailed(f"the download of {name} failed ({type(error).__name__})", "type the same command again") from None
