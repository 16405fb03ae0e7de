"""Lab 16's Compose stack: the Ollama server that only the proxy reaches, the proxy with its key, and what each request gets.

The files are the stack's own (labs/stacks/ollama); only their `build:` is left out, since the lab has built the images.

>>> with Front(desk) as front:
...     front.up()
...     door_rows(front)
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import yaml

from labkit.core import paths
from labkit.core.errors import RunFailed
from labkit.learn import containers_workflow as workflow
from labkit.learn.containers_desk import GGUF, NAME, PORT, Desk, Rows
from labkit.servers import images
from labkit.servers.base import HOST, free_port
from labkit.servers.images.build import command as build_words
from labkit.servers.images.tool import environment

CHAT = "/v1/chat/completions"
DOOR = 8443  # the proxy's port, inside
_TABLE = ("networks", "ports", "secrets", "read_only", "cap_drop", "mem_limit", "cpus", "pids_limit")


def stack_folder() -> Path:
    return paths.labs("stacks", "ollama")


def services() -> Rows:
    """What compose.yaml says of each service: a row a setting, a column a service."""
    found = yaml.safe_load((stack_folder() / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return [{"setting": key, **{name: _words(one.get(key)) for name, one in found.items()}} for key in _TABLE]


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


class Front:
    """The stack, and what a client of it needs: its address, the authority's certificate and the key."""

    def __init__(self, desk: Desk, rate_per_s: int = 5, body: str = "64k") -> None:
        self.desk, self.rate, self.body = desk, rate_per_s, body
        self.stack: images.Stack | None = None
        self.url = self.key = ""
        self.folder = Path()

    def up(self) -> Rows:
        """Start it and wait until both services are healthy: one row a service."""
        self.close()
        begin = time.perf_counter()
        self.folder = images.folder("stack")
        modes = make_secrets(self.folder / "secrets")
        self.key = (self.folder / "secrets" / "client_key").read_text(encoding="ascii").strip()
        tree = yaml.safe_load((stack_folder() / "compose.yaml").read_text(encoding="utf-8"))
        for service in tree["services"].values():
            service.pop("build")
        (self.folder / "compose.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        proxy = images.build(stack_folder() / "proxy", "proxy")
        built = time.perf_counter()
        port = free_port()
        given = {
            "MODEL_IMAGE": self.desk.image("file").ref,
            "PROXY_IMAGE": proxy.ref,
            "PORT": str(port),
            "SECRETS": str(self.folder / "secrets"),
            "RATE_PER_SECOND": str(self.rate),
            "MAX_BODY": self.body,
        }
        self.stack = images.compose(self.folder, project="lab16", env=given)
        self.stack.up()
        self.url = f"https://{HOST}:{port}"
        self.stack.wait(seconds=90)
        seconds = time.perf_counter() - built
        rows = []
        for name in ("model", "proxy"):
            one = self.stack.container(name)
            open_ports = {f"{HOST}:{there} -> {here}" for here, there in one.ports.items()}
            rows.append({"service": name, "healthy": one.health(), "published": ", ".join(sorted(open_ports)) or "nothing"})
        about = {"build_s": built - begin, "start_s": seconds, "secrets": modes}
        return [{**row, **about} for row in rows]

    def need(self) -> images.Stack:
        """The running stack. It is started where it is not: a cell can be run by itself."""
        if self.stack is None:
            self.up()
        assert self.stack is not None  # noqa: S101 - up() has set it
        return self.stack

    def context(self) -> ssl.SSLContext:
        """For a client that trusts the stack's authority, and no other."""
        self.need()
        return ssl.create_default_context(cafile=str(self.folder / "secrets" / "ca_cert"))

    def client(self, key: str | None = None) -> httpx.Client:
        """A client with the right key, another one, or none ("")."""
        context = self.context()
        chosen = self.key if key is None else key
        headers = {"Authorization": f"Bearer {chosen}"} if chosen else {}
        return httpx.Client(base_url=self.url, verify=context, headers=headers, timeout=120, trust_env=False)

    def close(self) -> None:
        if self.stack:
            self.desk.peaks.append(self.stack.peak_memory_bytes())
            self.stack.down()
            self.stack = None

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_secrets(folder: Path) -> dict[str, str]:
    """Run the stack's secrets.sh: a certificate and a key, random, readable by those who need them. {file: mode}"""
    words = ["sh", str(stack_folder() / "secrets.sh"), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RunFailed(f"secrets.sh failed: {(done.stderr or done.stdout).strip()[-200:]}", "is openssl installed?")
    return {path.name: f"{path.stat().st_mode & 0o777:04o}" for path in sorted(folder.iterdir())}


def question(tokens: int = 8, text: str = "Name three colours.", **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": NAME, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, **more}


def door_rows(front: Front, flood: int = 30) -> Rows:
    """What the proxy answers: without a key, with a wrong one, with the right one; what is too large, too often, or not offered."""
    rows: Rows = []

    def note(request: str, status: int | str, said: str = "") -> None:
        rows.append({"request": request, "answer": str(status), "said": " ".join(said.split())[:110]})

    with front.client("") as nobody, front.client("x" * 64) as wrong, front.client() as known:
        for name, client in (("without a key", nobody), ("with a wrong key", wrong), ("with the key", known)):
            reply = client.post(CHAT, json=question())
            note(f"a question {name}", reply.status_code, _said(reply))
        reply = known.post(CHAT, json=question(text="word " * 20_000))
        note("a question of 100 kB, with the key", reply.status_code, _said(reply))
        reply = known.request("DELETE", "/api/delete", json={"model": NAME})
        note("delete the model, with the key", reply.status_code)
        time.sleep(3)  # the limits count the requests above
        codes = [known.get("/v1/models").status_code for _ in range(flood)]
        note(f"{flood} short requests at once, with the key", " and ".join(f"{codes.count(code)} × {code}" for code in sorted(set(codes))))
    time.sleep(3)
    with httpx.Client(trust_env=False, timeout=30) as strict:
        note("a client that does not know the authority", *_refused(strict, f"{front.url}/v1/models"))
        note("plain HTTP on the same port", strict.get(front.url.replace("https:", "http:")).status_code)
    return rows


def _said(reply: httpx.Response) -> str:
    told = reply.json()
    return str(told["error"]["message"]) if "error" in told else repr(told["choices"][0]["message"]["content"])


def _refused(client: httpx.Client, url: str) -> tuple[str, str]:
    try:
        return str(client.get(url).status_code), "it was let in"
    except httpx.ConnectError as error:
        return "no connection", str(error)


def network_rows(front: Front) -> Rows:
    """Who reaches whom: the model server from here and from the proxy; the world from the model server and from the proxy."""
    stack = front.need()
    model, proxy = stack.container("model"), stack.container("proxy")
    ways = [
        ("this machine", "the model server's port", bool(model.ports)),
        ("the proxy", "the model server", _reaches(proxy, "model", PORT)),
        ("the model server", "an address outside", _reaches(model, "192.0.2.1", 443, _way_out(model))),
        ("the proxy", "an address outside", _reaches(proxy, "192.0.2.1", 443, _way_out(proxy))),
    ]
    return [{"from": start, "to": end, "reached": reached} for start, end, reached in ways]


def _way_out(container: images.Container) -> bool:
    """Has it a default route? /proc/net/route lists destination 00000000 then."""
    lines = container.exec(["cat", "/proc/net/route"], check=True).stdout.splitlines()[1:]
    return any(line.split()[1] == "00000000" for line in lines if len(line.split()) > 1)


def _reaches(container: images.Container, host: str, port: int, known: bool | None = None) -> bool:
    """A TCP connection from inside; `known` answers where trying would only say that nobody is there."""
    if known is not None:
        return known
    return container.exec(["timeout", "3", "bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}"]).returncode == 0


def stream_rows(front: Front, tokens: int = 32) -> Rows:
    """Two ways to get one answer through the proxy, by the official client: as a stream, and as a whole. When did each piece come?"""
    rows: Rows = []
    with openai.DefaultHttpxClient(verify=front.context(), trust_env=False, timeout=120) as http:
        client = openai.OpenAI(base_url=f"{front.url}/v1", api_key=front.key, http_client=http, max_retries=0)
        turns: Any = question()["messages"]
        client.chat.completions.create(model=NAME, messages=turns, max_tokens=1)  # load it first
        begin = time.perf_counter()
        arrived = [
            time.perf_counter() - begin
            for piece in client.chat.completions.create(model=NAME, messages=turns, max_tokens=tokens, stream=True)
            if piece.choices and piece.choices[0].delta.content
        ]
        rows.append({"way": "streamed", "arrived_s": arrived, "done_s": time.perf_counter() - begin, "pieces": len(arrived)})
        begin = time.perf_counter()
        client.chat.completions.create(model=NAME, messages=turns, max_tokens=tokens)
        done = time.perf_counter() - begin
        rows.append({"way": "as a whole", "arrived_s": [done], "done_s": done, "pieces": 1})
    return rows


def replaced_rows(front: Front, seconds: float = 60) -> Rows:
    """The model server is stopped, then started again: what a client with the key is told meanwhile, second by second."""
    stack, rows = front.need(), []
    with front.client() as client:
        old = _address(stack.container("model"))
        for moment, act in (
            ("before", None),
            ("its container is removed", lambda: stack.container("model").stop()),
            ("Compose has started it again", lambda: stack.up(["model"])),
        ):
            if act:
                act()
            begin = time.perf_counter()
            reply = client.get("/v1/models")
            while moment.startswith("Compose") and reply.status_code != 200 and time.perf_counter() - begin < seconds:
                time.sleep(0.3)
                reply = client.get("/v1/models")
            again = reply.headers.get("Retry-After")
            rows.append({"moment": moment, "status": reply.status_code, "retry_after_s": again, "after_s": time.perf_counter() - begin})
        new = _address(stack.container("model"))
    return [{**row, "address_changed": old != new} for row in rows]


def _address(container: images.Container) -> str:
    networks = container.inspect()["NetworkSettings"]["Networks"].values()
    return ", ".join(sorted(one["IPAddress"] for one in networks))


def invitation(front: Front) -> str:
    """How to open the page: its address, and the key."""
    front.need()
    return f"{front.url}/   key: {front.key}"


def workflow_rows(desk: Desk, job: workflow.Job, **given: str) -> Iterator[dict[str, Any]]:
    """The workflow's steps on this machine: its texts, with this machine's tool, names of this run and the lab's model."""
    run, tool = images.runs.current(), images.tool()
    root = images.folder("ci")
    folder = root / job.folder
    desk.copy(folder)
    shutil.copyfile(desk.require().path, folder / GGUF)
    words = build_words(tool, run.label, folder / "Containerfile", {}, ())
    at = words.index("--file")
    ours = {
        **environment(),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "TOOL": tool.path,
        "BUILD_OPTIONS": " ".join([*words[1:at], *words[at + 2 :], "--label", run.label]),
        "RUN_OPTIONS": f"--label {run.label}",
        "IMAGE": f"localhost/{run.name('ci')}:latest",
        "CONTAINER": run.name("ci"),
        "MODEL": "file",
    }
    try:
        yield from workflow.run(job, {**ours, **given}, root, run.watched)
    except BaseException:
        run.unfinished()
        raise
    finally:
        shutil.rmtree(root, ignore_errors=True)


def close_all(desk: Desk, front: Front) -> Rows:
    """End of the lab: stop the stack, remove the images' tags; what is still there of this run, and the memory that its containers took."""
    front.close()
    desk.close()
    peak = desk.peak_bytes
    images.runs.current().close()
    return [{"left": ", ".join(images.leftovers()), "peak_bytes": peak}]
