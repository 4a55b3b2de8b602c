"""What is answered where there is no completion: an error in OpenAI's shape.

No message holds a key, a traceback or the address of the server behind the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from reasoning.errors import Busy, StepwiseError
from reasoning.parsing import whole_characters

UNSUPPORTED = "unsupported_parameter"
CLIENT_CLOSED_REQUEST = 499  # nginx's word for it; nobody reads it
RETRY_AFTER = 5  # seconds, where a busy server names no time of its own


class ClientDisconnected(Exception):
    """Nobody is left to answer."""


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    error: ErrorObject


class ApiError(Exception):
    """`status` is HTTP's; `code` a stable word; `param` the parameter to change."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.message = whole_characters(message)
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = ErrorObject(message=self.message, type=kind, param=self.param, code=self.code)
        return ErrorBody(error=error).model_dump()

    @property
    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def model_not_found(name: str) -> ApiError:
    message = f"The model {name[:200]!r} does not exist. GET /v1/models lists those that do."
    return ApiError(404, "model_not_found", message, "model")


def stopped() -> ApiError:
    """The answer to who still waits when the gateway is stopped."""
    after = {"Retry-After": str(RETRY_AFTER)}
    return ApiError(503, "shutting_down", "The gateway is being stopped. Try again.", None, after)


def failed_itself() -> ApiError:
    return ApiError(500, "internal_error", "The gateway failed. Its log says why; try again.")


# -- what the core could not do

# By the code of the core's error: the status, our code, the parameter to change.
FAILURES: dict[str, tuple[int, str, str | None]] = {
    "unreachable": (503, "upstream_unreachable", None),
    "busy": (503, "upstream_busy", None),
    "fault": (502, "upstream_fault", None),
    "silent": (504, "upstream_silent", None),
    "not_openai": (502, "upstream_not_openai", None),
    "address": (502, "upstream_address", None),
    "key": (502, "upstream_key", None),
    "empty": (502, "empty_answer", None),
    "changed": (502, "answer_changed", None),
    "model": (404, "model_not_found", "model"),
    "too_long": (400, "context_length_exceeded", "messages"),
    "question": (400, "invalid_question", "messages"),
    "format": (400, "unsupported_response_format", "response_format"),
    "answer_form": (400, "unsupported_response_format", "response_format"),
    "refused": (400, "upstream_refused", None),
    "deadline": (504, "deadline_passed", None),
}
# What happened and what to do, where the core's own words name the server's address or tell of
# its insides: neither is the caller's business.
PUBLIC_MESSAGES = {
    "unreachable": ("The model server does not answer.", "Is it running? Try again."),
    "silent": ("The model server stopped answering.", "Try again."),
    "fault": ("The model server failed.", "Try again."),
    "not_openai": (
        "What stands behind the gateway is no OpenAI-compatible server.",
        "Whoever runs the gateway must check its OPENAI_BASE_URL.",
    ),
    "address": (
        "The gateway is not told of a model server that can be asked.",
        "Whoever runs the gateway must check its OPENAI_BASE_URL.",
    ),
    "key": (
        "The model server refuses the gateway's own key.",
        "Whoever runs the gateway must check its OPENAI_API_KEY.",
    ),
    "model": ("The model is no longer served.", "GET /v1/models lists those that are."),
}


def public_message(code: str, message: str) -> str:
    """What happened, or what stands for a message that is not for the caller's eyes."""
    return PUBLIC_MESSAGES[code][0] if code in PUBLIC_MESSAGES else message


def upstream_error(code: str, message: str, retry_after: float | None = None) -> ApiError:
    """By the code of the core's error. `retry_after` is in seconds, as the server asked."""
    status, word, param = FAILURES.get(code, (500, "internal_error", None))
    headers = {"Retry-After": f"{retry_after or RETRY_AFTER:.0f}"} if code == "busy" else {}
    said = " ".join(PUBLIC_MESSAGES.get(code, (message,)))
    return ApiError(status, word, said, param, headers)


def from_stepwise(error: StepwiseError) -> ApiError:
    after = error.retry_after if isinstance(error, Busy) else None
    return upstream_error(error.code, str(error), after)


# -- what the request got wrong


def from_validation(errors: Sequence[Any]) -> ApiError:
    """The first thing that is wrong, named as OpenAI names it: messages[0].content."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, "invalid_json", "The body is not valid JSON.")
    param = _parameter_path(first["loc"][1:])
    if first["type"] == "extra_forbidden":
        return ApiError(400, "unknown_parameter", f"There is no parameter {param}.", param)
    code = UNSUPPORTED if first["type"] == UNSUPPORTED else "invalid_value"
    said = first["msg"].removeprefix("Value error, ")
    return ApiError(400, code, f"{param}: {said}." if param else f"{said}.", param)


def _parameter_path(loc: Sequence[int | str]) -> str | None:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return path.removeprefix(".")[:200] or None


# -- in the place of the framework's own answers


def install_handlers(app: FastAPI) -> None:
    """Has the application answer whatever goes wrong in OpenAI's shape."""
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(StepwiseError, _answer_stepwise_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(ClientDisconnected, _answer_nobody)
    app.add_exception_handler(Exception, _answer_bug)


async def _answer_api_error(_: Request, error: Any) -> JSONResponse:
    answer: JSONResponse = error.response
    return answer


async def _answer_stepwise_error(_: Request, error: Any) -> JSONResponse:
    return from_stepwise(error).response


async def _answer_validation_error(_: Request, error: Any) -> JSONResponse:
    return from_validation(error.errors()).response


async def _answer_http_error(request: Request, error: Any) -> JSONResponse:
    said = {
        404: ("unknown_url", f"There is no {request.method} {request.url.path}."),
        405: ("method_not_allowed", f"{request.method} is not allowed here."),
    }
    code, message = said.get(error.status_code, ("invalid_request", f"{error.detail}."))
    return ApiError(error.status_code, code, message, headers=error.headers).response


async def _answer_nobody(_: Request, __: Any) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _answer_bug(_: Request, __: Any) -> JSONResponse:
    return failed_itself().response
