"""A model for ONNX Runtime GenAI: GGUF -> Hugging Face folder -> ONNX folder, by the model builder or by Olive.

The **model builder** (part of ONNX Runtime GenAI) writes a graph for a known architecture straight from the weights. **Olive**
is Microsoft's tool that runs *passes* one after another on a model and keeps a record of them, the *footprint*. Its first pass
here is the model builder again. Both run in child processes, offline, with telemetry off, in a temporary folder; the result
goes to the cache whole or not at all, so a second call is instant.

What labkit mends on the way: Olive's exit code is 0 also when no model was made (the file is looked for, and the end of the log
becomes the error); its RTN pass renames the graph's output, which genai_config.json does not notice; its model builder pass
deletes files in the Hub's cache (it gets a cache of its own); its records name the folders of this machine (they are taken out).

Needs the extra `onnx`, whose versions are pinned: Olive 0.13 builds with onnxruntime-genai 0.14.1 and with no later one.

>>> convert(models.resolve("stdlib-10m"), "int4").path
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from labkit.core import extras, paths
from labkit.core.errors import BadInput, RunFailed, nearest
from labkit.core.records import ModelRef
from labkit.models import safety
from labkit.quant import folders, hf

_VERSION = 1  # of what this module writes: a change makes cached folders anew
_FP32, _INT4 = {"type": "ModelBuilder", "precision": "fp32"}, {"type": "ModelBuilder", "precision": "int4"}


class Recipe(NamedTuple):
    """How a folder is made: by the model builder, from a precision and options; or by Olive, from passes."""

    precision: str = ""
    options: tuple[str, ...] = ()
    passes: tuple[dict[str, Any], ...] = ()

    @property
    def tool(self) -> str:
        return "Olive" if self.passes else "model builder"


# the one table of recipes
RECIPES: dict[str, Recipe] = {
    "int4": Recipe("int4"),
    # the output matrix is also the embedding table in many small models; this stores it once instead of twice
    "int4-shared": Recipe("int4", ("int4_algo_config=rtn", "shared_embeddings=true")),
    "int4-mixed": Recipe("int4", ("int4_algo_config=k_quant_mixed",)),
    "fp32": Recipe("fp32"),
    "olive-int4": Recipe(passes=(_INT4,)),
    "olive-fp32": Recipe(passes=(_FP32,)),
    "olive-rtn": Recipe(passes=(_FP32, {"type": "OnnxBlockWiseRtnQuantization"})),
    "olive-int8": Recipe(passes=(_FP32, {"type": "OnnxDynamicQuantization"})),
}


class Ran(NamedTuple):
    """How a child process ended: its exit code, the end of its log, and whether model.onnx is there."""

    code: int
    log: str
    made: bool
    seconds: float


def missing() -> str | None:
    """None, or one sentence that ends with what to do."""
    return extras.missing("onnx")


def recipe(name: str) -> Recipe:
    """A recipe by its name. Raises BadInput with the nearest name."""
    if name not in RECIPES:
        hint = "olive-int8" if "int8" in name else nearest(name, RECIPES)
        raise BadInput(f"no recipe {name!r} for an ONNX model ({hint})", f"take one of: {', '.join(RECIPES)}")
    return RECIPES[name]


def conversion_bytes(parameters: int) -> float:
    """Memory that a conversion takes, about, with the notebook that asks for it: 13.6 bytes a weight and the libraries.

    It counts the whole way from GGUF: the folder in 32 bits is made first, then the builder runs in a process of its own.
    Fitted to the peaks of two models, 1.6 GB for 9.4 million weights and 3.3 GB for 134.5 million; beyond them an extrapolation.
    """
    return 1.47e9 + 13.6 * parameters


def convert(ref: ModelRef, name: str = "int4", out: Path | None = None, progress: bool = True) -> ModelRef:
    """Make an ONNX folder of a GGUF model or a Hugging Face folder, once.

    name: one of RECIPES. out: the folder to make; None: one in the cache, named after what went into it.
    Raises:
        MissingPart: Olive or ONNX Runtime GenAI is not installed.
        BadInput: an unknown recipe, a model that transformers cannot read, or the disk is full.
        RunFailed: the tool made no model; the sentence has the end of its log.
    """
    how = recipe(name)
    extras.require("onnx")
    source = hf.to_hf(ref)
    note = _note(source, name, how)
    target = out or paths.cache("onnx") / f"{ref.name}-{name}-{folders.key_of(note)}"
    size = sum(path.stat().st_size for path in source.path.glob("*.safetensors"))
    with folders.made(target, needed_bytes=3 * size + 20_000_000, note=note, replace=out is None) as folder:
        if folder:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.work.", ignore_cleanup_errors=True) as work:
                ran = run(source, how, folder, Path(work), f"{ref.name} to {name}" if progress else "")
            if not ran.made:
                raise RunFailed(_why(how, source.name, ran), "look at docs/troubleshooting.md, or take another recipe")
            _tidy(folder, source, Path(work))
            _patch_output(folder)
    ref_name = f"{ref.name}-onnx-{name}"
    return ModelRef(name=ref_name, path=target.resolve(), format="onnx-genai", sha256=folders.digest(target), licence=ref.licence)


def run(source: ModelRef, how: Recipe, folder: Path, work: Path, desc: str = "") -> Ran:
    """Run the tool on a Hugging Face folder in a child process: the model goes to `folder`, all else to `work`."""
    if how.passes:
        config = work / "run.json"
        config.write_text(json.dumps(olive_config(source.path, how, folder, work / "cache"), indent=1), encoding="utf-8")
        command = ["-m", "olive", "run", "--config", str(config)]
    else:
        options = ["--extra_options", *how.options, "hf_remote=false"]
        command = ["-m", "onnxruntime_genai.models.builder", "-i", str(source.path), "-o", str(folder)]
        command += ["-p", how.precision, "-e", "cpu", "-c", str(work / "cache"), *options]
    started = time.monotonic()
    code, log = _child([sys.executable, *command], work, desc)
    return Ran(code, log, (folder / "model.onnx").is_file(), time.monotonic() - started)


def olive_config(source: Path, how: Recipe, folder: Path, cache: Path) -> dict[str, Any]:
    """The configuration that `olive run --config` reads; the evaluator notes the bytes on the disk after each pass."""
    target = {"type": "LocalSystem", "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}
    size = {"name": "size", "type": "size_on_disk", "sub_types": [{"name": "bytes"}]}
    return {
        "input_model": {"type": "HfModel", "model_path": str(source)},
        "systems": {"local": target},
        "host": "local",
        "target": "local",
        "evaluators": {"size": {"type": "OnnxEvaluator", "metrics": [size]}},
        "evaluator": "size",
        "evaluate_input_model": False,
        "passes": {f"{n}_{one['type']}": one for n, one in enumerate(how.passes, 1)},
        "cache_dir": str(cache),
        "output_dir": str(folder),
        "log_severity_level": 1,
    }


def history(folder: Path) -> list[dict[str, Any]]:
    """Olive's footprint as rows, in the order of the passes: `step from_pass seconds metrics settings`.

    settings: what the pass was told or took by default; what it left open is left out. A row without a pass is the input.
    Raises BadInput where the folder has no footprint: the model builder alone writes none.
    """
    try:
        nodes = json.loads((folder / "footprint.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder} has no footprint of Olive's", 'make it by Olive: convert(model, "olive-int4")') from error
    rows: list[dict[str, Any]] = []
    after: str | None = None
    for step in range(len(nodes)):
        node = next((n for n in nodes.values() if n["parent_model_id"] == after), None)
        if node is None:
            break
        metrics = {name: one["value"] for name, one in ((node["metrics"] or {}).get("value") or {}).items()}
        settings = {key: value for key, value in (node["pass_run_config"] or {}).items() if value is not None}
        seconds = round(node["end_time"] - node["start_time"], 3)
        rows.append({"step": step, "from_pass": node["from_pass"], "seconds": seconds, "metrics": metrics, "settings": settings})
        after = node["model_id"]
    return rows


def _note(source: ModelRef, name: str, how: Recipe) -> dict[str, Any]:
    names = ("onnxruntime-genai", "olive-ai", "onnxruntime", "onnx", "transformers")
    versions = {one: importlib.metadata.version(one) for one in names}
    came = {"source": source.name, "source_sha256": folders.note_of(source.path).get("source_sha256")}
    came["hf_sha256"] = source.sha256 or folders.digest(source.path)
    parameters = sum(_elements(path) for path in source.path.glob("*.safetensors"))
    told = {"precision": how.precision, "options": list(how.options), "passes": list(how.passes)}
    return {"kind": "onnx", "version": _VERSION, "recipe": name, **told, **came, "parameters": parameters, "versions": versions}


def _elements(path: Path) -> int:
    """Weights in a safetensors file, from its header."""
    count = 0
    for name, entry in safety.read_safetensors(path)[0].items():
        if name != "__metadata__":
            size = 1
            for n in entry["shape"]:
                size *= int(n)
            count += size
    return count


def environment(work: Path) -> dict[str, str]:
    """What a builder's process sees: offline, one thread, its own cache and temporary folder, and CI=true.

    CI=true is what stops Olive's telemetry; its option --disable_telemetry alone does not.
    """
    alone = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"), "1")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    own = {"HF_HOME": str(work / "hub"), "HF_HUB_CACHE": str(work / "hub"), "TMPDIR": str(work), "TEMP": str(work), "TMP": str(work)}
    return os.environ | alone | threads | own | {"CI": "true", "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


def _child(command: list[str], work: Path, desc: str) -> tuple[int, str]:
    """(exit code, log) of a process that is ended with this call, however it ends. The clock runs on stderr meanwhile."""
    log = work / "log.txt"
    with log.open("wb") as file:
        child = subprocess.Popen(command, cwd=work, env=environment(work), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        try:
            with tqdm(desc=desc, bar_format="{desc}: {elapsed}", leave=False, disable=not desc, delay=1) as bar:
                while True:
                    try:
                        code = child.wait(timeout=0.5)
                        break
                    except subprocess.TimeoutExpired:
                        bar.refresh()
        finally:
            child.kill()
            child.wait()
    return code, log.read_text(encoding="utf-8", errors="replace")


def _why(how: Recipe, name: str, ran: Ran) -> str:
    ended = f"exit code {ran.code}" if ran.code >= 0 else f"ended by signal {-ran.code}, as when memory runs out"
    return f"{how.tool} made no model of {name} ({ended}): {error_line(ran.log)}"


def error_line(log: str) -> str:
    """The last line of a log that names an error, else its last line."""
    lines = [line.strip() for line in log.replace("\r", "\n").splitlines() if line.strip()]
    named = [line for line in lines if line.split(":")[0].split(" ")[0].endswith(("Error", "Exception"))]
    return (named or lines or ["it said nothing"])[-1][:200]


def _tidy(folder: Path, source: ModelRef, work: Path) -> None:
    """Drop what says the same twice, and the names of this machine's folders out of Olive's records."""
    (folder / "output_footprint.json").unlink(missing_ok=True)
    for path in [*folder.glob("*.json"), *folder.glob("*.txt")]:
        if path.name not in ("tokenizer.json", "genai_config.json"):
            text = path.read_text(encoding="utf-8")
            for place, said in ((str(work), "work"), (str(folder), "."), (str(source.path), source.name)):
                text = text.replace(json.dumps(place)[1:-1], said)
            path.write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _patch_output(folder: Path) -> None:
    """Let genai_config.json name the graph's real output: quantizing the last matrix may have renamed it."""
    import onnx

    config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    outputs = config["model"]["decoder"]["outputs"]
    names = [one.name for one in onnx.load(str(folder / "model.onnx"), load_external_data=False).graph.output]
    if outputs["logits"] in names:
        return
    renamed = [one for one in names if one.startswith("logits")]
    if len(renamed) != 1:
        raise RunFailed(f"the graph of {folder.name} has no output for the scores", "take another recipe")
    outputs["logits"] = renamed[0]
    (folder / "genai_config.json").write_text(json.dumps(config, indent=4), encoding="utf-8")
