"""What installed tools and libraries say of themselves: names of programs, of classes and of parameters, and llama-server's routes."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np

from labkit.facts import claims
from labkit.facts.live.world import Seen, World, ask

_OLD_HANDLERS = ("PyTorchModel", "ONNXModel")
_PASSES = ("OnnxDynamicQuantization", "OnnxStaticQuantization", "OnnxBlockWiseRtnQuantization")


def of_row(row: dict) -> Seen:
    """What a lab's own function said of a claim, as a check says it."""
    return {"confirmed": True, "refuted": False, "not-run": None}[row["shown"]], row["why"]


def shims(world: World) -> Seen:
    """`llamacpp-api-shims`: Ollama's routes on llama-server."""
    root = world.url("llama")
    real = ask(root + "/v1/models").status_code
    codes = {path: ask(root + path, body).status_code for path, body in (("/api/tags", None), ("/api/show", {}), ("/api/chat", {}))}
    why = ", ".join(f"{path} gives {code}" for path, code in codes.items())
    return (None if real != 200 else set(codes.values()) == {404}), f"{why}; /v1/models gives {real}"


def llamacpp_names(world: World) -> Seen:
    """`llamacpp-tools`: the programs of an installed llama.cpp, by name, in the folder that holds llama-cli."""
    new = [name for name in ("llama-cli", "llama-quantize") if world.program(name)]
    beside = Path(str(world.program("llama-cli"))).parent
    old = [name for name in ("main", "quantize") if (beside / name).is_file()]
    return bool(new) and not old, f"here are {', '.join(new) or 'none of the new names'}; of main and quantize {', '.join(old) or 'none'}"


def olive_names(world: World) -> Seen:
    """`olive-classes`: the classes that Olive's own files define, and the passes that its configuration lists."""
    folder = Path(str(world.folder("olive")))
    defined = {
        node.name
        for file in (folder / "model").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    passes = json.loads((folder / "olive_config.json").read_text(encoding="utf-8"))["passes"]
    old = [name for name in _OLD_HANDLERS if name in defined] + [name for name in passes if name == "OrtQuantization"]
    new = [f"{name}Handler" for name in _OLD_HANDLERS if f"{name}Handler" in defined] + [name for name in _PASSES if name in passes]
    return not old and bool(new), f"Olive has {', '.join(new) or 'none of the new names'}; of the old names {', '.join(old) or 'none'}"


def mlx_temperature(world: World) -> Seen:
    """`mlx-generate-temperature`: the parameters of the function that mlx_lm.generate hands its keywords to."""
    folder = Path(str(world.folder("mlx_lm")))
    tree = ast.parse((folder / "generate.py").read_text(encoding="utf-8"))
    step = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "generate_step")
    names = [argument.arg for argument in (*step.args.args, *step.args.kwonlyargs)]
    taken = bool({"temperature", "temp"} & set(names)) or step.args.kwarg is not None
    return not taken and "sampler" in names, f"generate_step takes {', '.join(names[2:8])} and more; temperature: {taken}"


def mlx_bits(world: World) -> Seen:
    """`mlx-4-bits-are-4-bits`: bytes of a matrix that MLX itself quantized, from 16-bit weights."""
    mx = world.module("mlx.core")
    weights = mx.array(np.random.default_rng(1).normal(size=(64, 256)).astype(np.float16))
    parts = mx.quantize(weights, group_size=64, bits=4)
    bits = 8 * sum(part.nbytes for part in parts) / weights.size
    return bits > 4.1, f"64 x 256 weights that MLX quantized to 4 bits take {bits:g} bits each"


def mlx_elsewhere(world: World) -> Seen:
    """`mlx-only-on-macs`: one sum on this machine's MLX."""
    if world.system == "Darwin":
        return None, "this is a Mac; it takes another system to see it"
    mx = world.module("mlx.core")
    done = mx.sum(mx.array([1.0, 2.0])).item() == 3.0
    return done, f"MLX adds 1 and 2 on {world.system}, on {mx.default_device()}: {'right' if done else 'wrong'}"


def phi(world: World) -> Seen:
    """`phi4-mini-vram`"""
    return of_row(claims.phi_on_a_small_gpu(world.gpu_gigabytes))
