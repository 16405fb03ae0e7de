"""What an Ollama server answers over HTTP: routes, access, models made by request, and options.

Models that a check makes are named labkit-claim-… and deleted before it returns.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from labkit.facts.live.world import Seen, World, ask, quote

HAND_WRITTEN = "{{ .System }} User: {{ .Prompt }} Assistant:"
PATIENCE_S = 10.0  # how long a server may take to load or let go, where that is asked for
_FOREIGN = "http://elsewhere.example"


@contextmanager
def made(world: World, **fields: Any) -> Iterator[tuple[str, httpx.Response]]:
    """A model made from the world's own by /api/create, and the answer; it is deleted afterwards."""
    name = f"labkit-claim-{secrets.token_hex(4)}"
    body = {"model": name, "from": world.ollama_model, "stream": False, **fields}
    try:
        yield name, ask(world.url("ollama") + "/api/create", body)
    finally:
        ask(world.url("ollama") + "/api/delete", {"model": name}, method="DELETE")


def generate(world: World, model: str | None = None, prompt: str = "def add(a, b):", **fields: Any) -> dict[str, Any]:
    """One answer of at most 16 tokens. Raises HTTPStatusError where the server refuses."""
    options = {"num_predict": 16, "temperature": 0, "seed": 1, **fields.pop("options", {})}
    body = {"model": model or world.ollama_model, "prompt": prompt, "stream": False, "options": options, **fields}
    return dict(ask(world.url("ollama") + "/api/generate", body).raise_for_status().json())


def unload(world: World, model: str | None = None) -> None:
    ask(world.url("ollama") + "/api/generate", {"model": model or world.ollama_model, "keep_alive": 0, "stream": False})
    loaded(world, model, wanted=False)


def loaded(world: World, model: str | None = None, wanted: bool = True) -> dict[str, Any] | None:
    """The row of /api/ps for a model, or None; waits a little for what is wanted."""
    name, end = (model or str(world.ollama_model)).removesuffix(":latest"), time.monotonic() + PATIENCE_S
    while True:
        rows = ask(world.url("ollama") + "/api/ps").raise_for_status().json()["models"] or []
        found = next((row for row in rows if row["name"].removesuffix(":latest") == name), None)
        if (found is not None) == wanted or time.monotonic() > end:
            return found
        time.sleep(0.1)


def trained_context(world: World) -> int:
    """Tokens that the world's model was trained for."""
    about = ask(world.url("ollama") + "/api/show", {"model": world.ollama_model}).raise_for_status().json()["model_info"]
    return int(next(value for key, value in about.items() if key.endswith(".context_length")))


def version(world: World) -> str:
    return str(ask(world.url("ollama") + "/api/version").raise_for_status().json()["version"])


def health(world: World) -> Seen:
    """`ollama-health`: /api/health against the routes that answer."""
    claimed, real = (ask(world.url("ollama") + path).status_code for path in ("/api/health", "/api/version"))
    return (None if real != 200 else claimed == 404), f"GET /api/health gives {claimed}, /api/version gives {real}"


def metrics(world: World) -> Seen:
    """`ollama-metrics`"""
    code = ask(world.url("ollama") + "/metrics").status_code
    return code == 404, f"GET /metrics gives {code} (Ollama {version(world)})"


def embeddings(world: World) -> Seen:
    """`ollama-embeddings-endpoint`: the old route and the one that replaced it; 501 is a refusal of the model, not of the route."""
    root, model = world.url("ollama"), world.ollama_model
    old = ask(root + "/api/embeddings", {"model": model, "prompt": "one"})
    new = ask(root + "/api/embed", {"model": model, "input": ["one", "two"]})
    count = len(new.json().get("embeddings", [])) if new.status_code == 200 else 0
    why = f"/api/embeddings gives {old.status_code}; /api/embed gives {new.status_code}"
    why += f" with {count} vectors for 2 texts" if count else f": {quote(new.text)}"
    return (new.status_code == 501 or count == 2), f"{why} (Ollama {version(world)})"


def openai_routes(world: World) -> Seen:
    """`ollama-api-custom-only`: do the routes of the OpenAI API answer?"""
    root, message = world.url("ollama") + "/v1", [{"role": "user", "content": "hi"}]
    codes = {
        "/v1/models": ask(root + "/models").status_code,
        "/v1/chat/completions": ask(
            root + "/chat/completions", {"model": world.ollama_model, "messages": message, "max_tokens": 4}
        ).status_code,
        "/v1/completions": ask(root + "/completions", {"model": world.ollama_model, "prompt": "hi", "max_tokens": 4}).status_code,
    }
    return all(code == 200 for code in codes.values()), ", ".join(f"{path} gives {code}" for path, code in codes.items())


def access(world: World) -> Seen:
    """`ollama-auth`: without a key, and with the Origin of a foreign web page."""
    path = world.url("ollama") + "/api/tags"
    without, foreign = ask(path).status_code, ask(path, headers={"Origin": _FOREIGN}).status_code
    return without == 200, f"GET /api/tags without a key gives {without}, from a web page of another origin {foreign}"


def browser_origin(world: World) -> Seen:
    """`ollama-any-web-page`"""
    path = world.url("ollama") + "/api/tags"
    own, foreign = ask(path).status_code, ask(path, headers={"Origin": _FOREIGN}).status_code
    return (None if own != 200 else foreign == 403), f"Origin {_FOREIGN} gives {foreign}, none gives {own}"


def template(world: World) -> Seen:
    """`ollama-template`: what /api/show says of a model made with a template by hand, and of the one it was made from."""
    show = world.url("ollama") + "/api/show"
    own = ask(show, {"model": world.ollama_model}).raise_for_status().json()["template"]
    with made(world, template=HAND_WRITTEN) as (name, answer):
        answer.raise_for_status()
        now = ask(show, {"model": name}).raise_for_status().json()["template"]
    return (
        None if own == HAND_WRITTEN else now == HAND_WRITTEN
    ), f"the model's own template was {quote(own, 60)!r}, now {quote(now, 60)!r}"


def quantize(world: World) -> Seen:
    """`ollama-quantize-create`: a target that is not offered, or a source that is quantized already."""
    details = ask(world.url("ollama") + "/api/show", {"model": world.ollama_model}).raise_for_status().json()["details"]
    level = details["quantization_level"]
    asked = "q3_K_M" if level in ("F16", "BF16", "F32") else "q4_K_M"
    with made(world, quantize=asked) as (_, answer):
        refused = answer.status_code >= 400 or "error" in answer.json()
    return refused, f"quantize={asked} of a model in {level}: {quote(answer.text)}"


def unknown_option(world: World) -> Seen:
    """`ollama-rest-option-typo`: a parameter that does not exist, in a request that makes a model."""
    with made(world, parameters={"context_length": 640}) as (_, answer):
        return answer.status_code == 200, f"POST /api/create with context_length: {answer.status_code} {quote(answer.text, 60)}"


def num_ctx(world: World) -> Seen:
    """`ollama-modelfile-num-ctx`: does a parameter of the model reach the loaded model?"""
    unload(world)
    with made(world, parameters={"num_ctx": 640, "num_predict": 1}) as (name, answer):
        answer.raise_for_status()
        generate(world, name, keep_alive="1m")
        row = loaded(world, name)
        unload(world, name)
    if row is None or "context_length" not in row:
        return None, f"/api/ps of Ollama {version(world)} does not say the context"
    return row["context_length"] == 640, f"num_ctx 640 in the model; /api/ps says a context of {row['context_length']}"


def logprobs(world: World) -> Seen:
    """`ollama-no-logprobs`"""
    found = generate(world, logprobs=True, top_logprobs=2, options={"num_predict": 3}).get("logprobs") or []
    first = f", the first is {found[0]['logprob']:.2f}" if found else ""
    return bool(found), f"{len(found)} log probabilities came with 3 tokens{first} (Ollama {version(world)})"


def schema(world: World) -> Seen:
    """`ollama-json-only`: is a schema obeyed?"""
    wanted = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"], "additionalProperties": False}
    text = generate(world, prompt="Name a colour.", format=wanted, options={"num_predict": 40})["response"]
    held = re.match(r'\s*\{\s*"colour"\s*:\s*"(red|blue)"', text) is not None  # a small model may go on with blanks
    return held, f"asked for a colour out of two by a JSON schema, it wrote {quote(text, 60)!r}"


def file_format(world: World) -> Seen:
    """`ollama-serves-gguf`"""
    found = ask(world.url("ollama") + "/api/show", {"model": world.ollama_model}).raise_for_status().json()["details"]["format"]
    return found == "gguf", f"/api/show says that the format is {found!r}"
