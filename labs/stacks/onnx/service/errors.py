"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}, with the status that says whose fault it is.

400, 404, 408, 413, 422: the request's. 429: too many now, try again later. 500: ours. 503: not now (loading, draining, engine gone).
"""

from __future__ import annotations

import json
import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response


class ApiError(Exception):
    def __init__(self, status: int, message: str, code: str = "", param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry_after = status, message, code, param, retry_after


def body(status: int, message: str, code: str = "", param: str | None = None) -> dict[str, dict[str, str | None]]:
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code or None}}


def response(error: ApiError) -> Response:
    """In ASCII, so that no text of a client's can make the answer itself fail."""
    headers = {"Retry-After": str(max(1, math.ceil(error.retry_after)))} if error.retry_after is not None else {}
    if error.status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not read
    content = json.dumps(body(error.status, error.message, error.code, error.param))
    return Response(content, error.status, headers, media_type="application/json")


def install(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def _own(_: Request, error: ApiError) -> Response:
        return response(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return response(ApiError(400, f"the body is no JSON: {first.get('ctx', {}).get('error', first['msg'])}", "invalid_json"))
        where = ".".join(str(one) for one in first["loc"][1:])
        said = str(first["msg"]).removeprefix("Value error, ")
        return response(ApiError(422, f"{where}: {said}" if where else said, "invalid_value", where or None))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        return response(ApiError(error.status_code, str(error.detail)))

    @app.exception_handler(Exception)
    async def _unforeseen(_: Request, error: Exception) -> Response:
        return response(ApiError(500, "the service failed; its log says why", "internal_error"))
