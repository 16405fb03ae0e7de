"""Make a recording from a run, and refuse one that lacks what a reader needs to trust it.

>>> record(run_record, Path("runs/0c2f/results.jsonl"), Path("labs/sources/01_first_model.py"))
PosixPath('data/recordings/01_first_model.jsonl')
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import tempfile
from pathlib import Path
from typing import Any

import labkit
from labkit.core import paths, recordings, results
from labkit.core.errors import BadInput
from labkit.core.records import RunRecord
from labkit.teach.batch.task import content_sha256

# what decides a lab's figures
_PACKAGES = (
    "llama-cpp-python",
    "xllamacpp",
    "numpy",
    "matplotlib",
    "ipykernel",
    "papermill",
    "huggingface-hub",
    "azure-ai-ml",
    "transformers",
    "torch",
    "mlx",
    "olive-ai",
    "onnxruntime-genai",
    "onnxruntime",
    "foundry-local-sdk",
    "ollama",
    "podman-compose",
)
_RECIPE = "/bin/sh -c "  # what made a layer of an image, as its history says: the folders in it are the image's
_LOCAL = re.compile(r"(?:^|[\s\"'=(])(?:/(?:home|Users|root|tmp|mnt|srv|opt|var|private)/|~/|[A-Za-z]:[\\/])")


def record(run: RunRecord, results_path: Path, source_path: Path) -> Path:
    """Write data/recordings/<lab>.jsonl from a finished run; returns its path.

    Raises:
        BadInput: the run was not ok and measured, is of another notebook, or its lines are not fit to be shown.
    """
    if run.status not in ("ok", "cached") or run.source != "measured":
        raise BadInput(f"run {run.run_id} of {run.lab} is {run.status} and {run.source}: only a measured run becomes a recording")
    if source_path.stem != run.lab:
        raise BadInput(f"run {run.run_id} is of {run.lab}, not of {source_path.stem}")
    lines = [_portable(line) for line in results.read(results_path)]
    if not lines:
        raise BadInput(f"{results_path} has no result lines", f"labkit run {run.lab} --record")
    header = {
        "recording": recordings.FORMAT,
        "date": str(lines[-1].get("timestamp", ""))[:10],
        "machine": lines[-1].get("machine"),
        "versions": versions(),
        "run": _portable(run.model_copy(update={"notebook": None, "status": "ok"}).model_dump(mode="json")),
        "notebook_sha256": content_sha256(source_path),
    }
    text = "".join(results.dumps(line) + "\n" for line in (header, *lines))
    target = recordings.path_of(run.lab)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / target.name
        draft.write_text(text, encoding="utf-8")
        check(draft)
    with paths.atomic(target, "w") as file:
        file.write(text)
    return target


def check(path: Path) -> None:
    """Refuse a recording that lacks its date, machine, versions, run record, notebook hash or lines, or names a local path.

    Raises:
        BadInput: one sentence that says what is wrong.
    """
    recordings.read(path)
    for number, line in enumerate(results.read(path), 1):
        # what a model wrote may look like anything; the rest must not name the machine's folders
        for text in recordings.strings(_without_texts(line)):
            named = None if text.startswith(_RECIPE) else _LOCAL.search(text)
            if named or str(paths.home()) in text or str(Path.home()) + "/" in text:
                raise BadInput(f"recording {path.name}: line {number} names a local path: {text[:80]}", "labkit run LAB --record")


def versions() -> dict[str, str]:
    """labkit, Python and the packages that decide figures, as installed."""
    found = {"labkit": labkit.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not installed, so it took no part
    return found


def _portable(value: Any) -> Any:
    """Paths of this machine become file names: where the files were means nothing elsewhere. A route such as /api/chat stays."""
    if isinstance(value, dict):
        return {key: item if key == "text" else _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, str) and _is_path(value):
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return value


def _is_path(text: str) -> bool:
    """A path of this machine: in a folder that only it has, or there now."""
    if "\n" in text or len(text) > 250:
        return False
    return bool(_LOCAL.match(text)) or text.startswith(str(paths.home())) or (text.startswith("/") and Path(text).exists())


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_texts(item) for key, item in value.items() if key != "text"}
    return [_without_texts(item) for item in value] if isinstance(value, list) else value
