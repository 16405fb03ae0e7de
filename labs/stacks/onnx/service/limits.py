"""Reads a request's body before anything else does, and refuses what is too long, too slow, too deep or no UTF-8.

A plain ASGI middleware: it gives the body on, in one piece, and stays out of the answer's way.
"""

from __future__ import annotations

import asyncio
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ApiError, response
from service.settings import Settings

_PATIENCE = 16  # a body of so many times the limit is still read before it is refused
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


class BodyLimits:
    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                body = await self._read(scope, receive)
            if body is not None:
                self._check(body)
        except TimeoutError:
            await response(ApiError(408, f"the body did not come within {self._settings.body_seconds:g} s", "timeout"))(
                scope, receive, send
            )
            return
        except ApiError as error:
            await response(error)(scope, receive, send)
            return
        if body is None:
            return  # the client went away while it sent
        replay: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return replay.pop() if replay else await receive()

        await self._app(scope, again, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None where the client went away.

        One that is too long is read to its end and thrown away, up to a bound: a connection that is closed while its client
        still sends is reset, and the client may never see why.
        """
        most, read = self._settings.body_bytes, 0
        found = bytearray()
        if int(Headers(scope=scope).get("content-length", "0")) <= _PATIENCE * most:
            while read <= _PATIENCE * most:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                read += len(message.get("body", b""))
                if read <= most:
                    found += message.get("body", b"")
                if not message.get("more_body"):
                    break
        else:
            read = most + 1
        if read > most:
            raise ApiError(413, f"the body is longer than {most} bytes", "body_too_long")
        return bytes(found)

    def _check(self, body: bytes) -> None:
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ApiError(400, f"the body is not UTF-8: byte {error.start} begins no character", "invalid_utf8") from error
        depth = deepest = 0
        for mark in re.findall(rb"[\[\]{}]", _STRING.sub(b"", body)):
            depth += 1 if mark in b"[{" else -1
            deepest = max(deepest, depth)
        if deepest > self._settings.json_depth:
            raise ApiError(400, f"the body is nested {deepest} deep, {self._settings.json_depth} at most", "too_deep")
