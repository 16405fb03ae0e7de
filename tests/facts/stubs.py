"""Stubs of what the live checks look at: servers in this process, small programs, folders. Each can behave in another way.

A stub behaves as the ledger says; `other` makes it behave the other way in one respect, as whoever made the claim thinks.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from labkit.servers.stand_in import Asked, Reply, StandIn

REAL_NAMES = ["NUM_PARALLEL", "MAX_LOADED_MODELS", "KEEP_ALIVE", "FLASH_ATTENTION", "GPU_OVERHEAD", "HOST"]


class Stub(StandIn):
    """`status`: paths that answer with that code, whatever else; `other`: the one respect in which it behaves the other way."""

    def __init__(self, other: str = "", status: dict[str, int] | None = None) -> None:
        super().__init__()
        self.other, self.status = other, status or {}

    def answer(self, asked: Asked) -> Reply:
        if asked.path in self.status:
            return Reply.of_json({"error": "it is said so"}, self.status[asked.path])
        found = self.reply(asked, json.loads(asked.body or b"{}"))
        return Reply.of_json({"error": "not found"}, 404) if found is None else found if isinstance(found, Reply) else Reply.of_json(found)

    def reply(self, asked: Asked, body: dict[str, Any]) -> Any:
        raise NotImplementedError


class Ollama(Stub):
    """Routes, models, and what is loaded. Its file takes a megabyte, its cache 1 kB a token of context."""

    def __init__(self, other: str = "", status: dict[str, int] | None = None) -> None:
        super().__init__(other, status)
        self.made: dict[str, dict[str, Any]] = {"default": {"template": "{{ .Prompt }}", "parameters": {}}}
        self.loaded: dict[str, dict[str, Any]] = {}

    def reply(self, asked: Asked, body: dict[str, Any]) -> Any:
        if "origin" in asked.headers and self.other != "any origin":
            return Reply(403)
        if self.other == "keys" and "authorization" not in asked.headers:
            return Reply(401)
        if asked.path == "/api/embed" and self.other == "no embed":
            return None
        fixed = {
            "/api/version": {"version": "0.32.15" if self.other == "newer" else "0.24.0"},
            "/api/tags": {"models": [{"name": "default:latest", "size": 1_000_000}]},
            "/api/ps": {"models": list(self.loaded.values())},
            "/api/embeddings": {"embedding": [1.0]},
            "/api/embed": {"embeddings": [[1.0]] * len(body.get("input", []))},
            **{f"/v1/{route}": {} for route in ("models", "chat/completions", "completions")},
        }
        action = {"/api/show": self.show, "/api/create": self.create, "/api/generate": self.generate, "/api/delete": self.delete}
        return action[asked.path](body) if asked.path in action else fixed.get(asked.path)

    def show(self, body: dict[str, Any]) -> Any:
        details = {"format": "safetensors" if self.other == "no gguf" else "gguf", "quantization_level": "Q4_1"}
        return {"template": self.made[body["model"]]["template"], "details": details, "model_info": {"llama.context_length": 8192}}

    def create(self, body: dict[str, Any]) -> Any:
        parameters = body.get("parameters", {})
        if "quantize" in body and self.other != "quantizes all":
            return Reply.of_json({"error": "quantization is only supported for F16, BF16 and F32 models"}, 400)
        if "context_length" in parameters and self.other == "strict":
            return Reply.of_json({"error": "unknown parameter"}, 400)
        template = self.made[body["from"]]["template"] if self.other == "keeps the template" else body.get("template", "{{ .Prompt }}")
        self.made[body["model"]] = {"template": template, "parameters": parameters}
        return {"status": "success"}

    def delete(self, body: dict[str, Any]) -> Any:
        self.loaded.pop(body["model"], None)
        self.made.pop(body["model"], None)
        return {}

    def generate(self, body: dict[str, Any]) -> Any:
        name, options = body["model"], {**self.made[body["model"]]["parameters"], **body.get("options", {})}
        if body.get("keep_alive") == 0 and "prompt" not in body:
            self.loaded.pop(name, None)
            return {"done": True}
        cold = name not in self.loaded and self.other != "nothing to load"
        context = 640 if self.other == "obeys the client" and "num_ctx" in options else options.get("num_ctx", 4096)
        self.loaded[name] = self.row(name, context, options.get("num_gpu", 99))
        if body.get("keep_alive") == 0 and self.other != "keeps it":
            del self.loaded[name]
        time.sleep(0 if self.other == "at once" else 0.03)
        text = '{"anything": 1}' if self.other == "any json" or "format" not in body else '{"colour": "red"}'
        done = {"load_duration": 400_000_000 if cold else 1_000_000, "total_duration": 500_000_000, "eval_count": 16}
        odds = [{"token": "a", "logprob": -0.5}] * 3 if body.get("logprobs") and self.other != "no logprobs" else None
        return {"response": text, "done": True, "eval_duration": 1 if self.other == "free" else 10**8, "logprobs": odds, **done}

    def row(self, name: str, context: int, layers: int) -> dict[str, Any]:
        shown = {"ignores num_ctx": 4096, "2048": 2048}.get(self.other, context)
        size = 2_000_000 if self.other == "one size" else 1_000_000 + 1000 * shown
        on_gpu = size if self.other == "num_gpu counts GPUs" else size * min(layers, 30) // 30
        goes = datetime.now(UTC) + timedelta(days=36500 if self.other == "for good" else 0, minutes=5)
        return {"name": f"{name}:latest", "size": size, "size_vram": on_gpu, "context_length": shown, "expires_at": goes.isoformat()}


class Foundry(Stub):
    """Chats of a model that takes three milliseconds a token, one request after another."""

    def __init__(self, other: str = "", status: dict[str, int] | None = None) -> None:
        super().__init__(other, status)
        self.turn: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if other == "batches" else threading.Lock()

    def reply(self, asked: Asked, body: dict[str, Any]) -> Any:
        if asked.path.endswith("/models"):
            return {"data": []}
        own = "/catalogs/local/v1/chat/completions"
        if asked.path != own and not (asked.path == "/v1/chat/completions" and self.other == "one endpoint"):
            return None
        if self.other == "keys":
            return Reply(401)
        if body["model"] == "small" and self.other != "takes aliases":
            return None
        with self.turn:
            time.sleep(0.003 * body["max_tokens"])
        return {"choices": [], "usage": {"completion_tokens": body["max_tokens"]}}


class LlamaServer(Stub):
    def reply(self, asked: Asked, body: dict[str, Any]) -> Any:
        return {} if asked.path == "/v1/models" or (self.other == "shims" and asked.path.startswith("/api/")) else None


class Vllm(Stub):
    """Completions whose words are tokens; those in whole blocks of 128 come from a cache where the text begins as an earlier one."""

    def __init__(self, other: str = "", status: dict[str, int] | None = None) -> None:
        super().__init__(other, status)
        self.seen: list[list[str]] = []
        self.hits = 0

    def reply(self, asked: Asked, body: dict[str, Any]) -> Any:
        if asked.path == "/metrics":
            names = ("gpu_cache_usage_perc", "time_per_output_token_seconds")
            names = names if self.other == "old names" else ("kv_cache_usage_perc", "inter_token_latency_seconds")
            lines = [*(f"# HELP vllm:{name} {name}\nvllm:{name} 0.0" for name in names), "# the cache"]
            return Reply(200, "\n".join([*lines, f'vllm:prefix_cache_hits_total{{engine="0"}} {self.hits}.0', ""]).encode())
        if asked.path != "/v1/completions":
            return None
        if self.other in ("keys", "no device", "strict"):
            refused = self.other != "strict" or "temprature" in body
            return Reply.of_json(
                {"error": {"message": "no"}}, {"keys": 401, "no device": 500, "strict": 400}[self.other] if refused else 200
            )
        words = str(body["prompt"]).split()
        for earlier in self.seen:
            start = next((n for n, word in enumerate(words) if word == earlier[0]), 0) if self.other == "any passage" else 0
            if words[start : start + 150] == earlier[:150]:
                self.hits += 128
                break
        self.seen.append(words)
        return {"choices": [{"text": " one"}]}


class Naive(Stub):
    """One pass of 0.6 s whatever is asked for, during which nobody else is heard."""

    def __init__(self, other: str = "", status: dict[str, int] | None = None) -> None:
        super().__init__(other, status)
        self.turn: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if other == "is heard" else threading.Lock()

    def reply(self, asked: Asked, body: dict[str, Any]) -> Any:
        with self.turn:
            if asked.path == "/health":
                return {"status": "healthy"}
            if body["messages"] == 7:
                return Reply.of_json({"error": "no text"}, 400 if self.other == "real codes" else 200)
            time.sleep(0.6)
            text = "word " * (body["max_tokens"] if self.other == "a loop" else 5)
            return {"choices": [{"message": {"content": text}}]}


# a program named ollama: argv as the real one's
_PROGRAM = """#!{python}
import json, os, sys, urllib.request, urllib.error
other, words, host = {other!r}, sys.argv[1:], os.environ["OLLAMA_HOST"]
root = "http://" + host

def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    return json.loads(urllib.request.urlopen(urllib.request.Request(root + path, data)).read())

if words == ["serve", "--help"]:
    print("Environment Variables:", *["OLLAMA_" + name for name in {names!r}])
    sys.exit(0)
try:
    ask("/api/version")
except urllib.error.URLError:
    print("Error: could not connect to ollama server", file=sys.stderr)
    sys.exit(0 if other == "needs no server" else 1)
if words[0] == "create":
    for line in open(words[3]):
        word = line.split()[:2]
        if word[0] not in ("FROM", "PARAMETER") and other != "takes every instruction":
            sys.exit("Error: command must be one of from, parameter")
        if word[0] == "PARAMETER" and word[1] != "num_ctx" and other != "takes every parameter":
            sys.exit("Error: unknown parameter " + word[1])
    ask("/api/create", dict(model=words[1], **{{"from": "default"}}))
if words[0] == "run":
    options = dict(num_ctx=int(os.environ["OLLAMA_CONTEXT_LENGTH"])) if other == "obeys the client" else dict()
    print(ask("/api/generate", dict(model=words[1], prompt=words[2], options=options))["response"])
"""


def program(path: Path, other: str = "", names: list[str] | None = None) -> str:
    """A program `ollama` that behaves as the ledger says, or in one respect the other way."""
    text = _PROGRAM.format(python=sys.executable, other=other, names=REAL_NAMES if names is None else names)
    return script(path, text)


def says(path: Path, text: str) -> str:
    """A program that says a text, whatever it is asked."""
    return script(path, f"#!{sys.executable}\nprint({text!r})\n")


def script(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return str(path)
