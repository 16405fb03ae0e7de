"""What can be set, with its default. Each is an option (--queue-length 8) and an environment variable (SERVICE_QUEUE_LENGTH=8)."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, get_type_hints


@dataclass(frozen=True)
class Settings:
    model: Annotated[Path, "folder with genai_config.json, the graph and the tokenizer"] = Path("/model")
    name: Annotated[str, "the model's name in the API; the folder's name where it is left out"] = ""
    host: Annotated[str, "address to listen on; 0.0.0.0 only inside a container whose port is published on 127.0.0.1"] = "127.0.0.1"
    port: Annotated[int, "port to listen on"] = 8000
    # the model
    threads: Annotated[int, "threads that compute; 0: all cores this process may use"] = 0
    context: Annotated[int, "tokens of prompt and answer together; never more than the model's own"] = 2048
    parallel: Annotated[int, "requests that are answered in turns; each has a KV cache of its own"] = 4
    prefill_chunk: Annotated[int, "prompt tokens that are computed in one turn: small keeps the other streams flowing"] = 64
    model_wait_seconds: Annotated[float, "how long to wait, not ready, for a model folder that is not there yet, as for a volume"] = 0.0
    # the queue
    queue_length: Annotated[int, "requests that may wait; the next one is refused with 429"] = 16
    drain_seconds: Annotated[float, "how long running answers may go on after SIGTERM"] = 4.0
    stall_seconds: Annotated[float, "requests are there and the engine says nothing for so long: it is not alive"] = 120.0
    # what may come in
    body_bytes: Annotated[int, "longest request body"] = 262_144
    json_depth: Annotated[int, "deepest nesting of a request body"] = 32
    messages: Annotated[int, "most messages in a chat request"] = 256
    connections: Annotated[int, "most open connections"] = 256
    header_seconds: Annotated[float, "time for a request's head, from the first moment of the connection"] = 10.0
    body_seconds: Annotated[float, "time for a request's body"] = 10.0
    write_seconds: Annotated[float, "how long a client may leave an answer unread before it is cut off"] = 20.0

    @property
    def served_name(self) -> str:
        return self.name or self.model.resolve().name


def parse(words: list[str] | None = None) -> Settings:
    """Settings from the command line; what is not given there from the environment, then the default."""
    parser = argparse.ArgumentParser(prog="service", description=__doc__)
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        usual = Settings.__dataclass_fields__[name].default
        given = os.environ.get(f"SERVICE_{name.upper()}", usual)
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=hint.__origin__, default=given, help=f"{hint.__metadata__[0]} (default: {usual!s})")
    found = Settings(**vars(parser.parse_args(words)))
    for one in fields(Settings):
        value = getattr(found, one.name)
        if isinstance(value, int | float) and value < (0 if one.default == 0 or one.name in ("port", "queue_length") else 1e-3):
            parser.error(f"--{one.name.replace('_', '-')} is {value}, which is too small")
    return found
