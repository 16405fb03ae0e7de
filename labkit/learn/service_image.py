"""The last part of lab 17: the correct service as an image, run hardened, looked at from inside, measured, and stopped in an answer.

A Box builds the image when it is first needed (its layers stay for the next time) and runs one container of it. What it makes
goes with it, and with this process, however that ends (labkit.servers.images).

>>> with Desk(ref) as desk, Box(desk) as box:
...     hardening_rows(box)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from labkit.core import paths
from labkit.core.errors import RunFailed
from labkit.learn.containers_limits import oom_kills
from labkit.learn.service_asking import HEALTH, Site, at_once
from labkit.learn.service_looks import STORY, long_prompt
from labkit.learn.service_view import Desk
from labkit.servers import images

Rows = list[dict[str, Any]]
PORT, PLACE = 8080, "/models/model"  # inside
CPUS, PIDS = 2.0, 64
MIB = 1 << 20
# what the two programs have in memory beside the weights: run inside the container, each in a process of its own. The engine's
# opens graph and tokenizer without packing the weights: they stay pages of their file, which are not counted
_FRONT = "import fastapi, uvicorn, prometheus_client"
_ENGINE = f"""\
import json, onnxruntime_genai as og
config = og.Config({PLACE!r})
config.overlay(json.dumps({{"model": {{"decoder": {{"session_options": {{"session.disable_prepacking": "1"}}}}}}}}))
model = og.Model(config)
tokenizer = og.Tokenizer(model)"""
_ANONYMOUS = "print(sum(int(l.split()[1]) for l in open('/proc/self/smaps_rollup') if l.startswith('Anonymous:')) * 1024)"


class Box:
    """The image and its running container. Close it, or use it as a context manager."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._image: images.Image | None = None
        self._running: images.Container | None = None

    @property
    def image(self) -> images.Image:
        """Without a model in it: the model's folder is mounted, so one image serves every model."""
        if self._image is None:
            self._image = images.build(paths.labs("stacks", "onnx"), "onnx", args={"MODEL": "none"})
        return self._image

    @property
    def limits(self) -> dict[str, Any]:
        """The container's: 640 MiB for the default model, of which the weights take 82; a larger one gets its weights more."""
        weights = sum(file.stat().st_size for file in self.desk.model.path.glob("model.onnx*"))
        return {"memory_mb": max(640, round(540 + 1.2 * weights / MIB)), "cpus": CPUS, "pids": PIDS}

    def run(self, **more: Any) -> images.Container:
        """One more container with the lab's limits and model; whoever asks for it stops it."""
        told = {"name": self.desk.model.name, **self.desk.options}
        env = {f"SERVICE_{key.upper()}": str(value) for key, value in told.items()}
        given = {**self.limits, "volumes": [(self.desk.model.path, PLACE, "ro")], "env": env, **more}
        return images.run(self.image, port=PORT, **given)

    @property
    def container(self) -> images.Container:
        """The lab's container, ready; a new one where it has ended."""
        if self._running is None or not self._running.alive():
            self.stop()
            self._running = self.run()
            self._running.wait(seconds=120)
        return self._running

    def site(self, container: images.Container | None = None) -> Site:
        """A container as the probes see a service."""
        desk, found = self.desk, container or self.container
        return Site("image", found, desk.text, desk.model.name, folder=desk.model.path, again=desk.launch, **desk.limits)

    def rows(self, question: Callable[[], Rows]) -> Rows:
        """`question()`; after an error the container is stopped, and where it had ended that is said in one sentence."""
        try:
            return question()
        except httpx.TransportError as error:
            self.stop()
            raise RunFailed(
                f"the container ended in the middle of this cell ({error})", "run the cell again: it starts a new one"
            ) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._running:
            self._running.stop()
            self._running = None

    def close(self) -> None:
        self.stop()
        if self._image:
            self._image.remove()
            self._image = None

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def layer_rows(box: Box) -> Rows:
    """The layers, the lowest first: what made each, and its bytes."""
    return [{"bytes": size, "command": command} for size, command in reversed(box.image.layers)]


def hardening_rows(box: Box) -> Rows:
    """What was asked for, and what holds inside for the service's first process; then its health and one answer."""
    container = box.container
    seen = images.hardening(container)
    limit, given = box.limits["memory_mb"], (seen["memory_limit_bytes"] or 0) / MIB
    checks: Sequence[tuple[str, str, Any, bool]] = (
        ("its user is not root", "not 0", seen["uid"], seen["uid"] != 0),
        ("it has no capabilities", "0", f"{seen['cap_eff']:x}", seen["cap_eff"] == 0),
        ("it cannot get any", "0", f"{seen['cap_bnd']:x}", seen["cap_bnd"] == 0),
        ("no program gives it more rights", "True", seen["no_new_privs"], seen["no_new_privs"]),
        ("it cannot write into its image", "True", seen["read_only_root"], seen["read_only_root"]),
        ("its memory has a limit", f"{limit} MiB", f"{given:g} MiB", given == limit),
        ("its processors have a limit", f"{CPUS:g}", seen["cpus"], seen["cpus"] == CPUS),
        ("its processes have a limit", str(PIDS), seen["pids_limit"], seen["pids_limit"] == PIDS),
    )  # fmt: skip
    rows = [{"what": what, "asked": asked, "inside": str(inside), "holds": bool(holds)} for what, asked, inside, holds in checks]
    healthy = container.health()
    rows.append({"what": "the image's own health check", "asked": "passes", "inside": "passes" if healthy else "fails", "holds": healthy})
    got = box.site().answer("What is the capital of France?", max_tokens=12)
    told = f"{got.status}, {got.tokens} tokens: {got.text!r}"
    return [*rows, {"what": "a chat request", "asked": "200", "inside": told, "holds": got.answered}]


# -- memory


def parts(box: Box, requests: int) -> dict[str, int]:
    """Predicted bytes: the two programs (measured inside, without weights), weights, KV cache of so many full requests, one turn's scores.

    Weights count once: ONNX Runtime maps their file, and packs the matrices anew for this processor. That copy is anonymous memory.
    KV cache, lab 02: key and value x layers x heads x size of a head x 4 bytes (the graph's numbers have 32 bits) x tokens.
    """
    told = json.loads((box.desk.model.path / "genai_config.json").read_text(encoding="utf-8"))["model"]
    decoder = told["decoder"]
    asked = [["python", "-c", f"{program}\n{_ANONYMOUS}"] for program in (_FRONT, _ENGINE)]
    programs = [int(box.container.exec(words, check=True).stdout) for words in asked]
    weights = sum(file.stat().st_size for file in box.desk.model.path.glob("model.onnx*"))
    token = 2 * decoder["num_hidden_layers"] * decoder["num_key_value_heads"] * decoder["head_size"] * 4
    context = box.desk.limits["context"]
    found = {"the two programs": sum(programs), "weights": weights}
    return found | ({"KV cache": requests * context * token, "scores": 64 * told["vocab_size"] * 4} if requests else {})


def memory_rows(box: Box) -> Rows:
    """Anonymous memory of the container's control group: loaded, one full request, and as many as are answered at a time.

    Pages of files (the program's own, the model's) are not in it: the kernel takes those back when memory is short.
    """
    site, rows = box.site(), []
    most = box.desk.limits["parallel"]
    for requests in (0, 1, most):
        predicted = parts(box, requests)
        measured = _most(box, lambda requests=requests: _fill(site, requests))  # type: ignore[misc]
        moment = "loaded" if not requests else f"{requests} full request{'s' if requests > 1 else ''}"
        rows.append(
            {
                "moment": moment,
                "predicted_bytes": sum(predicted.values()),
                "measured_bytes": measured,
                "limit_bytes": box.limits["memory_mb"] * MIB,
                "parts": predicted,
                "peak_bytes": box.container.peak_memory_bytes,
            }
        )
    return rows


def _fill(site: Site, requests: int) -> None:
    if requests:
        text = long_prompt(site, site.context - 40)
        at_once(lambda _: site.answer(text, max_tokens=24), requests)


def _most(box: Box, work: Callable[[], None]) -> int:
    """The largest anonymous memory seen while `work` runs."""
    container, most = box.container, 0
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        while True:
            most = max(most, container.stats()["anonymous_bytes"] or 0)
            if done.done():
                break
            time.sleep(0.05)
        done.result()
    return most


def limit_rows(box: Box, small_mib: float) -> Rows:
    """A container with a small memory limit, and with the lab's: does it get ready, does it answer, what does the kernel do?"""
    rows: Rows = []
    box.stop()
    for limit in (small_mib, box.limits["memory_mb"]):
        container = box.run(memory_mb=limit)
        try:
            row: dict[str, Any] = {"limit_mib": limit, "ready": True, "status": None}
            try:
                container.wait(seconds=90)
                site = box.site(container)
                row["status"] = site.answer(long_prompt(site, site.context // 2), max_tokens=8).status
            except (RunFailed, httpx.TransportError):
                row["ready"] = row["status"] is not None
            alive = container.alive()
            health = _health(container) if alive else "nobody listens"
            rows.append({**row, "/health": health, "killed": oom_kills(container) if alive else None, "running": alive})
        finally:
            container.stop()
    return rows


def _health(container: images.Container) -> str:
    try:
        return str(httpx.get(container.url + HEALTH, timeout=5, trust_env=False).status_code)
    except httpx.TransportError:
        return "nobody listens"


def stop_rows(box: Box, tokens: int = 64) -> Rows:
    """SIGTERM to the container in the middle of an answer: is it whole, what does a new client get, when has the container ended?"""
    container, site = box.container, box.site()
    first = site.stream(STORY, max_tokens=tokens)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: site.stream(STORY, max_tokens=tokens))
        time.sleep(0.4 * first.seconds)
        early = not asked.done()
        begin = time.monotonic()
        container.signal("SIGTERM")
        health = _health(container)
        got = asked.result()
    while container.alive() and time.monotonic() < begin + 30:
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    whole = got.whole and got.tokens == first.tokens
    row = {"in_an_answer": early, "tokens": got.tokens, "whole": whole, "/health meanwhile": health}
    code = container.exit_code
    box.stop()
    return [{**row, "ended_after_s": seconds, "exit_code": code}]
