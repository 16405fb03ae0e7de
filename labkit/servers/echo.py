"""A server with no model behind it: it answers with numbers, at a pace that you set. For measuring what measures.

A load generator is believed when it finds, on a server whose times are known, exactly these times. This one speaks the OpenAI
API's two streaming routes, counts words as tokens, and can be told to fail in every way that a client has to tell apart.

>>> with echo.start(ttft_s=0.05, tpot_s=0.01) as running:
...     outcomes = load.run(running.base_url, "echo", Plan(rate=20, seconds=5))

In the request's `model` stand faults, one word each, such as `echo`, `echo:cut`, `echo:429`: FAULTS says which.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from labkit.core.options import parse
from labkit.core.records import ModelRef
from labkit.servers.base import HOST, NO_MODEL, Running, Server

# what stands behind the colon of the model's name -> what happens to the answer
FAULTS = {
    "429": "refused with Retry-After",
    "503": "refused",
    "400": "a status of another kind",
    "500": "a status of another kind",
    "hang": "no answer at all",
    "drop": "the connection is closed before an answer",
    "stall": "the stream stops after its second chunk and stays open",
    "cut": "the connection is closed after the second chunk",
    "short": "the stream ends properly after the second chunk, with neither a reason nor [DONE]",
    "event": "an error event after the second chunk",
    "junk": "a chunk that is no JSON",
    "page": "a page of HTML with status 200",
    "mute": "a whole stream without a single token",
    "nousage": "a right answer that does not count its tokens",
}


class Options(BaseModel):
    """Times of an answer, and one pause in which the whole server stands still, as with a collection of garbage."""

    model_config = ConfigDict(extra="forbid")

    ttft_s: float = Field(0.0, ge=0)
    tpot_s: float = Field(0.0, ge=0)
    slots: int = Field(0, ge=0, description="answers at once, the others wait; 0: any number")
    pause_after_s: float = Field(0.0, ge=0, description="the pause begins so long after the first request; 0: none")
    pause_s: float = Field(0.0, ge=0)


class Echo(Server):
    name = "echo"

    def missing(self) -> str | None:
        return None

    def version(self) -> str | None:
        return None

    def command(self, model: ModelRef, port: int, options: dict[str, Any]) -> list[str]:
        task = parse(Options, self.name, options).model_dump() | {"port": port, "parent": os.getpid()}
        return [sys.executable, "-m", "labkit.servers.echo", json.dumps(task)]


SERVER = Echo()


def start(**options: Any) -> Running:
    """A running echo server in a process of its own; it is stopped at the end. Options: see Options."""
    return SERVER.start(NO_MODEL, **options)


class Desk:
    """What the connections of one server share."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.slots = asyncio.Semaphore(options.slots) if options.slots else contextlib.nullcontext()
        self.paused = options.pause_s == 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; does the connection stay open?"""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        words = head.split(" ", 2)
        length = next((int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        if words[0] == "GET":
            writer.write(self.page(words[1]))
            return True
        if not self.paused:
            self.paused = True
            asyncio.get_running_loop().call_later(self.options.pause_after_s, time.sleep, self.options.pause_s)
        if (refusal := self.refuses()) is not None:
            writer.write(refusal)
            return True
        asked = json.loads(body)
        async with self.slots:
            return await self._answer(writer, asked, chat=words[1].endswith("/chat/completions"))

    def page(self, path: str) -> bytes:
        """The answer to a GET: the list of models, which says that it is well too."""
        return whole(200, {"status": "ok", "object": "list", "data": [{"id": "echo", "object": "model"}]})

    def refuses(self) -> bytes | None:
        """The answer to a request that comes when it takes none."""
        return None

    async def pace(self, prompt_tokens: int, count: int) -> AsyncGenerator[int, None]:
        """The numbers of the answer's tokens, each when it is due."""
        loop = asyncio.get_running_loop()
        at = loop.time() + self.options.ttft_s
        for number in range(count):
            if (wait := at - loop.time()) > 0:
                await asyncio.sleep(wait)
            at += self.options.tpot_s
            yield number

    async def _answer(self, writer: asyncio.StreamWriter, asked: dict[str, Any], chat: bool) -> bool:
        fault = str(asked.get("model", "")).partition(":")[2]
        count = int(asked.get("max_tokens") or 16)
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "drop":
            return False
        if fault.isdigit():
            writer.write(whole(int(fault), {"error": {"message": f"planted {fault}"}}, "Retry-After: 2\r\n" if fault == "429" else ""))
            return True
        if fault == "page":
            writer.write(whole(200, "<html>busy</html>"))
            return True
        prompt = asked["prompt"] if not chat else " ".join(m["content"] for m in asked["messages"])
        words = len(prompt.split())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        async with contextlib.aclosing(self.pace(words, 0 if fault == "mute" else count)) as tokens:
            async for number in tokens:
                writer.write(_event(_choice(chat, f" {number}")))
                await writer.drain()
                if number == 1 and fault in ("cut", "short", "event", "junk", "stall"):
                    return await _break(writer, fault)
        writer.write(_event(_choice(chat, "", "length")))
        if asked.get("stream_options", {}).get("include_usage") and fault != "nousage":
            usage = {"prompt_tokens": words, "completion_tokens": count, "total_tokens": words + count}
            writer.write(_event({"choices": [], "usage": usage}))
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        return True


async def _break(writer: asyncio.StreamWriter, fault: str) -> bool:
    if fault == "stall":
        await asyncio.sleep(3600)
    if fault == "event":
        writer.write(_event({"error": {"message": "planted error in the stream", "code": 500}}))
    if fault == "junk":
        writer.write(_chunk(b'data: {"choices": [{"delta"\n\n'))
    if fault != "cut":
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return fault != "cut"


def _choice(chat: bool, text: str, reason: str | None = None) -> dict[str, Any]:
    piece: dict[str, Any] = {"delta": {"content": text}} if chat else {"text": text}
    return {"object": "chat.completion.chunk" if chat else "text_completion", "choices": [{"index": 0, **piece, "finish_reason": reason}]}


def _event(value: dict[str, Any]) -> bytes:
    return _chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def whole(status: int, value: Any, headers: str = "") -> bytes:
    body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    return f"HTTP/1.1 {status} planted\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _main(task: dict[str, Any]) -> None:
    """Serves until it is told to stop, or until its parent is gone."""
    parent, port = task.pop("parent"), task.pop("port")
    desk = Desk(Options(**task))
    async with await asyncio.start_server(desk.serve, HOST, port, backlog=1024):
        while os.getppid() == parent:
            await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
