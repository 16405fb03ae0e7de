"""The steps of lab 11 that use Foundry Local's SDK itself, each in a process of its own.

Why not in the notebook's process: the SDK loads its own onnxruntime-genai for the whole process (labkit/engines/foundry.py), and
what it registers lies in a folder, which must go also when a cell fails or is interrupted. So `run` starts a child, gives it a
temporary folder, and removes the folder whatever happens; a child whose parent was killed removes it itself.

Run as a module it is that child: `python -m labkit.learn.foundry_child '{"step": "register", …}'`.

>>> run("register", folder=path, name="smollm2-135m")
[{'asked': 'register smollm2-135m-generic-cpu:1', 'done': True, 'said': 'its alias is smollm2-135m'}, …]
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labkit.core import extras
from labkit.core.errors import RunFailed
from labkit.servers import foundry
from labkit.servers.azure_stand_in import GALLERY, AzureStandIn, Model
from labkit.servers.base import HOST, free_port

Row = dict[str, Any]


def run(step: str, **given: Any) -> list[Row]:
    """The rows of a step. Raises MissingPart without the SDK, RunFailed with the child's last words."""
    extras.require("foundry")
    with tempfile.TemporaryDirectory(prefix="labkit-foundry-", ignore_cleanup_errors=True) as folder:
        task = {"step": step, "data": folder, "parent": os.getpid()} | {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
        words = [sys.executable, "-m", "labkit.learn.foundry_child", json.dumps(task)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"CI": "true"})
        rows = Path(folder, "rows.json")
        if done.returncode or not rows.is_file():
            said = (done.stderr or done.stdout).strip().splitlines()
            raise RunFailed(f"Foundry Local's SDK failed: {said[-1][:300] if said else done.returncode}", "run this cell again")
        found: list[Row] = json.loads(rows.read_text(encoding="utf-8"))
    return found


def told(error: Exception | str) -> str:
    """What the SDK's error says, without the place in its source code that stands before it."""
    return " ".join(str(error).rsplit(") ", 1)[-1].split())[:300]


# -- the steps


def register(data: Path, folder: str, name: str) -> list[Row]:
    """Ids that the local catalogue takes and does not take, and what is there after the manager was closed and opened again."""
    first = foundry.model_id(name)
    plain, _, _ = first.rpartition(":")
    rows = []
    with foundry.manager(data, catalogues=(_nowhere(),)) as manager:
        for id in (first, first, f"{plain}:2", plain, f"{plain}:02", f"{plain}:-3", f"{plain}:latest", f"my/{name}:1"):
            rows.append(_tried(f"register {id}", functools.partial(_registered, manager, folder, id)))
    with foundry.manager(data, catalogues=(_nowhere(),)) as manager:
        local = _local(manager)
        model = local.list_models()[0]
        there = ", ".join(variant.id for variant in model.variants)
        rows.append({"asked": "close it, open it again, list", "done": True, "said": there})
        rows.append(_tried(f"look up {model.alias}", lambda: local.get_model(model.alias).id))
        for variant in model.variants:
            rows.append(_tried(f"unregister {variant.id}", functools.partial(local.unregister_model, variant.id)))
        rows.append({"asked": "list", "done": True, "said": ", ".join(m.id for m in local.list_models()) or "nothing is registered"})
    return rows


def session(data: Path, folder: str, name: str, turns: list[str], cut: int) -> list[Row]:
    """A conversation in three ways: in one ChatSession, in one whose answers are cut off, and with all of it sent anew each turn."""
    rows = []
    with foundry.manager(data, catalogues=(_nowhere(),)) as manager:
        model = foundry.register(manager, Path(folder), foundry.model_id(name))
        model.load()
        _warm(model)
        kept = list(_talk(model, turns, 200))
        cut_off = list(_talk(model, turns, cut))
        anew = list(_sent_anew(model, turns, [row["text"] for row in kept], cut))
        for way, some in (("one session", kept), ("one session, answers cut off", cut_off), ("sent anew", anew)):
            rows += [{"way": way, "turn": turn, **row} for turn, row in enumerate(some, 1)]
    return rows


def catalogue(data: Path, folder: str) -> list[Row]:
    """A private catalogue (a stand-in of one): what it lists here, and what the SDK asked it. Nothing is downloaded."""
    files: dict[str, Any] = {file.name: file for file in Path(folder).iterdir() if file.is_file()}
    models = {
        "our-assistant-generic-cpu": Model(files, "3", "Apache-2.0", alias="our-assistant"),
        "our-assistant-qnn-npu": Model(files, "3", "Apache-2.0", alias="our-assistant", device="npu"),
        "our-coder-generic-cpu": Model(files, "1", "MIT", alias="our-coder"),
    }
    rows: list[Row] = []
    with AzureStandIn(models) as service, foundry.manager(data, catalogues=(service.url + GALLERY,)) as manager:
        for model in manager.catalog.list_models():
            for variant in model.variants:
                about = variant.info
                device = about.runtime.device_type if about.runtime else None
                rows.append({"alias": variant.alias, "id": variant.id, "device": str(device or ""), "uri": about.uri})
        rows.append({"asked": [f for body in service.gallery_asked for f in body["filters"]]})
    return rows


def look_up(data: Path, alias: str, online: bool) -> list[Row]:
    """A model of the public catalogue by its alias. Not online: at an address where nobody answers, as without a network."""
    started = time.perf_counter()
    with foundry.manager(data, catalogues=() if online else (_nowhere(),)) as manager:
        found = manager.catalog.get_model(alias)
        seconds, id = time.perf_counter() - started, found.id if found else None
    return [{"asked": f"get_model({alias!r})", "done": bool(id), "said": id or _last_error(data), "seconds": seconds}]


def providers(data: Path) -> list[Row]:
    """Execution providers of the ONNX Runtime that the SDK uses, and those that it could fetch for this machine."""
    onnxruntime: Any = importlib.import_module("onnxruntime")  # it has no types
    with foundry.manager(data, catalogues=(_nowhere(),)) as manager:
        more = {one.name: one.is_registered for one in manager.discover_eps()}
    rows: list[Row] = [{"provider": name, "where": "built in", "ready": True} for name in onnxruntime.get_available_providers()]
    return rows + [{"provider": name, "where": "can be fetched", "ready": ready} for name, ready in more.items()]


STEPS: dict[str, Callable[..., list[Row]]] = {
    "register": register,
    "session": session,
    "catalogue": catalogue,
    "look_up": look_up,
    "providers": providers,
}


def _registered(manager: Any, folder: str, id: str) -> str:
    return f"its alias is {foundry.register(manager, Path(folder), id).alias}"


def _tried(asked: str, act: Callable[[], Any]) -> Row:
    from foundry_local_sdk.exception import FoundryLocalException

    try:
        return {"asked": asked, "done": True, "said": str(act() or "gone")}
    except FoundryLocalException as error:
        return {"asked": asked, "done": False, "said": told(error)}


def _local(manager: Any) -> Any:
    import foundry_local_sdk as sdk

    return manager.get_catalog(sdk.CatalogType.LOCAL)


def _nowhere() -> str:
    """The address of a catalogue that nobody answers for, so that nothing here asks the real one."""
    return f"http://{HOST}:{free_port()}{GALLERY}"


def _last_error(data: Path) -> str:
    lines = [line for log in sorted(data.glob("logs/*.log")) for line in log.read_text(errors="replace").splitlines() if "[error]" in line]
    return told(lines[-1]) if lines else "not found"


# -- a conversation


def _warm(model: Any) -> None:
    import foundry_local_sdk as sdk

    with sdk.ChatSession(model) as chat:
        _turn(chat, [("user", "Hello")], 2)


def _talk(model: Any, turns: list[str], limit: int) -> Iterator[Row]:
    """In one session, which remembers."""
    import foundry_local_sdk as sdk

    with sdk.ChatSession(model) as chat:
        for question in turns:
            yield _turn(chat, [("user", question)], limit)


def _sent_anew(model: Any, turns: list[str], answers: list[str], limit: int) -> Iterator[Row]:
    """The same conversation, with a session for each turn: every message is sent again, as over HTTP."""
    import foundry_local_sdk as sdk

    history: list[tuple[str, str]] = []
    for question, answer in zip(turns, answers, strict=True):
        with sdk.ChatSession(model) as chat:
            yield _turn(chat, [*history, ("user", question)], limit)
        history += [("user", question), ("assistant", answer)]


def _turn(chat: Any, messages: list[tuple[str, str]], limit: int) -> Row:
    """One streamed answer: pieces, times, and the counts that the SDK gives."""
    import foundry_local_sdk as sdk

    chat.set_streaming(True)
    with sdk.Request() as request:
        for role, text in messages:
            request.add_item(getattr(sdk.MessageItem, role)(text))
        request.set_options(sdk.RequestOptions(search=sdk.SearchOptions(temperature=0.0, max_output_tokens=limit)))
        started, first, pieces = time.perf_counter_ns(), None, []
        with chat.process_streaming_request(request) as stream:
            for item in stream:
                first = first or time.perf_counter_ns()
                pieces.append(item.text)
            with stream.final_response as final:
                usage, reason = final.get_usage(), final.finish_reason.name.lower()
    return {
        "prompt_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens, "finish_reason": reason, "pieces": len(pieces),
        "ttft_s": ((first or started) - started) / 1e9, "seconds": (time.perf_counter_ns() - started) / 1e9, "text": "".join(pieces),
    }  # fmt: skip


def main(task: Row) -> None:
    data, parent = Path(task.pop("data")), task.pop("parent")
    rows = STEPS[task.pop("step")](data / "foundry", **task)
    (data / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    if os.getppid() != parent:  # killed meanwhile: nobody else removes it
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
