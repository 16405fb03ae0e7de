"""The routes. What a route does itself: ask the queue, and write the answer, whole or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service import errors
from service.answers import Shape, chat, completion
from service.errors import ApiError
from service.limits import BodyLimits
from service.metrics import Metrics
from service.queue import Job, Queue
from service.schemas import ChatRequest, Common, CompletionRequest
from service.settings import Settings

Found = TypeVar("Found")
_GONE = Response(status_code=499)  # no one reads it: the client has closed the connection


class ClientGone(Exception):
    pass


def create(settings: Settings) -> FastAPI:
    metrics = Metrics(settings.served_name)
    queue = Queue(settings, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        queue.start()
        yield
        await queue.close()

    app = FastAPI(title="ONNX service", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.queue = queue
    app.add_middleware(BodyLimits, settings=settings)
    errors.install(app)
    born = int(time.time())

    def known(name: str) -> None:
        if name != settings.served_name:
            raise ApiError(404, f"there is no model {name[:80]!r} here; there is {settings.served_name!r}", "model_not_found", "model")

    async def answer(asked: ChatRequest | CompletionRequest, request: Request, shape: Shape) -> Response:
        known(asked.model)
        if isinstance(asked, ChatRequest) and len(asked.messages) > settings.messages:
            raise ApiError(422, f"{len(asked.messages)} messages, {settings.messages} at most", "too_many_messages", "messages")
        job = queue.submit(asked.command())
        keep = Kept(queue, metrics, job, shape.operation)
        try:
            if not asked.stream:
                text = await until_gone(request, _whole(job))
                keep.close()
                return JSONResponse(shape.whole(text, job))
            pieces = job.texts()
            first = await until_gone(request, anext(pieces, ""))  # before the status line: a failure so far has its own status
        except ClientGone:
            keep.close("cancelled")
            return _GONE
        except ApiError as error:
            keep.close(str(error.status))
            raise
        except BaseException:
            keep.close("internal")
            raise
        return EventStream(_events(first, pieces, keep, shape, asked), keep)

    @app.post("/v1/chat/completions")
    async def chat_completions(asked: ChatRequest, request: Request) -> Response:
        return await answer(asked, request, chat(settings.served_name))

    @app.post("/v1/completions")
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        return await answer(asked, request, completion(settings.served_name))

    def card() -> dict[str, Any]:
        return {"id": settings.served_name, "object": "model", "created": born, "owned_by": "local", "context_length": queue.context}

    @app.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [card()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Any:
        known(name)
        return card()

    @app.get("/health/live")
    async def live() -> Response:
        """Should this process go on? 503: only a restart helps."""
        return JSONResponse({"status": "dead" if queue.dead else "alive"}, 503 if queue.dead else 200)

    @app.get("/health/ready")
    @app.get("/health", include_in_schema=False)  # the name that most load balancers ask for
    async def ready() -> Response:
        """Would a request be answered now? 503: send it elsewhere."""
        why = queue.why_not_ready()
        return JSONResponse({"status": "not ready", "why": why} if why else {"status": "ready"}, 503 if why else 200)

    @app.get("/metrics")
    async def told() -> Response:
        metrics.queue_length.set(queue.waiting)
        metrics.in_flight.set(queue.running)
        metrics.ready.set(queue.why_not_ready() is None)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


class EventStream(StreamingResponse):
    """Server-sent events; when it ends, in whatever way, no one waits for the job any more."""

    def __init__(self, events: AsyncIterator[bytes], keep: Kept) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._keep = keep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._keep.close("cancelled")  # of a client that left before the first event, the generator was never begun


class Kept:
    """Closes a request's job and counts it, once, however it ends."""

    def __init__(self, queue: Queue, metrics: Metrics, job: Job, operation: str) -> None:
        self.queue, self.metrics, self.job, self.operation, self._open = queue, metrics, job, operation, True

    def close(self, error: str = "") -> None:
        if self._open:
            self._open = False
            job = self.job
            self.queue.close_job(job)
            tokens = (job.prompt_tokens, job.output_tokens)
            self.metrics.finished(self.operation, time.perf_counter() - job.born, job.first_s, job.last_s, tokens, error)


async def _whole(job: Job) -> str:
    return "".join([piece async for piece in job.texts()])


async def _events(first: str, pieces: AsyncIterator[str], keep: Kept, shape: Shape, asked: Common) -> AsyncIterator[bytes]:
    """The answer as server-sent events."""
    error = "cancelled"
    try:
        for event in shape.begin(asked.with_usage):
            yield _event(event)
        if first:
            yield _event(shape.piece(first))
        try:
            async for text in pieces:
                yield _event(shape.piece(text))
        except ApiError as why:  # the status line is gone already: the error comes as an event, and no [DONE] follows
            error = str(why.status)
            yield _event(errors.body(why.status, why.message, why.code))
            return
        for event in shape.end(keep.job, asked.with_usage):
            yield _event(event)
        yield b"data: [DONE]\n\n"
        error = ""
    finally:
        keep.close(error)


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


async def until_gone(request: Request, work: Coroutine[Any, Any, Found]) -> Found:
    """The work's result. Raises ClientGone as soon as the client closes the connection."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.create_task(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientGone
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
