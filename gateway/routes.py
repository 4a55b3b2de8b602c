"""The routes: the calls that the gateway answers."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from gateway.completion import ChunkBuilder, Completion, CompletionBuilder
from gateway.errors import (
    UNSUPPORTED,
    ApiError,
    ErrorBody,
    from_stepwise,
    from_validation,
    model_not_found,
    upstream_error,
)
from gateway.messages import read_conversation
from gateway.models import ModelAlias, ModelEntry, ModelList, find_entry, list_entries
from gateway.proxy import pass_through
from gateway.render import TRANSIENT, ChainFailed
from gateway.responses import ResponseBody, ResponseBuilder
from gateway.responses_request import ResponsesRequest, named_here
from gateway.runner import ChainRunner, ReplyJob
from gateway.schema import ChatRequest, check_tools
from gateway.streaming import DONE, EventStream, Lines, event_data, run_while_connected
from gateway.upstream import GatewayState
from reasoning.errors import StepwiseError

TRACE_HEADERS = ("traceparent", "tracestate")
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request must be changed."},
    "5XX": {"model": ErrorBody, "description": "The model server must be looked at."},
}
# A schema for text/event-stream is that of one event (OpenAPI 3.2, section 4.14.4).
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": EVENT}}},
}
MODEL_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"model": {"type": "string"}},
                "required": ["model"],
            }
        }
    },
}


class Health(BaseModel):
    """`model` is the served one, `message` why the gateway waits."""

    status: Literal["ready", "waiting"]
    model: str | None = None
    message: str | None = None


def _state(request: Request) -> GatewayState:
    shared: GatewayState = request.app.state.gateway
    return shared


Shared = Annotated[GatewayState, Depends(_state)]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PassThroughRoute(APIRoute):
    """A model that is served under the very name asked for is passed through, unread.

    Any other name is ours: then request.state.alias says what it means, None where the body
    holds no name and is to be refused.
    """

    def get_route_handler(self) -> Handler:
        ours = super().get_route_handler()

        async def handle(request: Request) -> Response:
            state, name = _state(request), _model_name(await request.body())
            await state.admission.enter()
            request.state.alias = None
            if name is not None:
                request.state.alias = await state.upstream.resolve(name)
                if request.state.alias is None:
                    return await pass_through(request, state)
            return await ours(request)

        return handle


def _model_name(body: bytes) -> str | None:
    """The model that a body names; None for a body that cannot be read."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        return None
    name = values.get("model") if isinstance(values, dict) else None
    return name if isinstance(name, str) else None


router = APIRouter(responses=ERRORS)
by_model = APIRouter(route_class=PassThroughRoute, responses=ERRORS)


# -- models


@router.get("/v1/models", response_model=ModelList)
async def list_models(state: Shared) -> JSONResponse:
    """The served models, and beside each what thinks with it."""
    listed = list_entries(await state.upstream.endpoint.entries())
    return JSONResponse({"object": "list", "data": listed})


@router.get("/v1/models/{name:path}", response_model=ModelEntry)
async def one_model(name: str, state: Shared) -> JSONResponse:
    """One model, by any name that can be asked."""
    entry = find_entry(name, await state.upstream.endpoint.entries())
    if entry is None:
        raise model_not_found(name)
    return JSONResponse(entry)


# -- completions


@by_model.post("/v1/chat/completions", response_model=Completion, responses=EVENTS)
async def chat(asked: ChatRequest, request: Request, state: Shared) -> Response:
    """An answer with the reasoning that led to it, streamed or in one body."""
    job = _job(asked, request)
    runner = ChainRunner(job, state.upstream, state.observers)
    if asked.stream:
        stream = EventStream(_stream(runner), state.stopped)
        return await run_while_connected(request, stream.open(state.keep_alive))
    return JSONResponse((await run_while_connected(request, _complete(runner))).body)


@by_model.post("/v1/completions", response_model=None, openapi_extra={"requestBody": MODEL_BODY})
async def completions(request: Request) -> Response:
    """A completion of a text, by the served model alone: it is passed through."""
    alias: ModelAlias | None = request.state.alias
    if alias is None:
        raise ApiError(400, "invalid_value", "expected a JSON object that names a model.", "model")
    said = f"model: {alias.name} thinks in a chat; for a plain completion ask {alias.served.name}."
    raise ApiError(400, UNSUPPORTED, said, "model")


def _job(asked: ChatRequest, request: Request, kind: str = "chatcmpl-") -> ReplyJob:
    check_tools(asked)
    carrier = {name: request.headers[name] for name in TRACE_HEADERS if name in request.headers}
    id, now = f"{kind}{uuid.uuid4().hex}", int(time.time())
    return ReplyJob(id, now, request.state.alias, asked, read_conversation(asked.messages), carrier)


async def _complete(runner: ChainRunner) -> Completion:
    builder = CompletionBuilder(runner.job)
    with _as_api_errors(runner):
        async with aclosing(runner.events()) as events:
            async for run, event in events:
                builder.add(run, event)
    return builder.finish(runner.runs)


async def _stream(runner: ChainRunner) -> Lines:
    builder = ChunkBuilder(runner.job)
    with _as_api_errors(runner):
        async with aclosing(runner.events()) as events:
            async for run, event in events:
                for chunk in builder.add(run, event):
                    yield event_data(chunk)
    for chunk in builder.finish(runner.runs):
        yield event_data(chunk)
    yield DONE


@contextmanager
def _as_api_errors(runner: ChainRunner) -> Iterator[None]:
    """What the chains could not do becomes an ApiError."""
    try:
        yield
    except ChainFailed as error:
        failed = error.failed
        said = f"{failed.message} {failed.remedy}".strip()
        refused = upstream_error(failed.code, said, runner.retry_after)
        if refused.param == "response_format" and runner.job.request.forced_tool:
            refused.param = "tool_choice"
        raise refused from None
    except StepwiseError as error:
        raise from_stepwise(error) from None


# -- responses


@by_model.post("/v1/responses", response_model=ResponseBody, responses=EVENTS)
async def responses(asked: ResponsesRequest, request: Request, state: Shared) -> Response:
    """The same as a chat, in the form that newer clients ask first; nothing is kept."""
    try:
        job = _job(asked.chat, request, "resp_")
        runner = ChainRunner(job, state.upstream, state.observers)
        builder = ResponseBuilder(job, asked)
        if asked.stream:
            lines = _response_events(runner, builder)
            stream = EventStream(lines, state.stopped, builder.failed)
            return await run_while_connected(request, stream.open(state.keep_alive))
        return JSONResponse(await run_while_connected(request, _response(runner, builder)))
    except ValidationError as error:
        raise named_here(from_validation([_in_body(one) for one in error.errors()])) from None
    except StepwiseError as error:
        raise named_here(from_stepwise(error)) from None
    except ApiError as error:
        raise named_here(error) from None


def _in_body(error: Any) -> dict[str, Any]:
    return {**error, "loc": ("body", *error["loc"])}


async def _response(runner: ChainRunner, builder: ResponseBuilder) -> dict[str, Any]:
    with _as_api_errors(runner):
        async with aclosing(runner.events()) as events:
            async for run, event in events:
                if not isinstance(event, TRANSIENT):
                    builder.take(run, event)
    return builder.body(runner.runs)


async def _response_events(runner: ChainRunner, builder: ResponseBuilder) -> Lines:
    with _as_api_errors(runner):
        async with aclosing(runner.events()) as events:
            async for run, event in events:
                for line in builder.add(run, event):
                    yield line
    for line in builder.finish(runner.runs):
        yield line


# -- health


@router.get("/health", response_model=Health, responses={503: {"model": Health}})
async def health(state: Shared) -> JSONResponse:
    """Whether the model server can be asked."""
    try:
        model = await state.upstream.endpoint.model()
    except StepwiseError as error:
        waiting = Health(status="waiting", message=from_stepwise(error).message)
        return JSONResponse(waiting.model_dump(exclude_none=True), 503)
    return JSONResponse(Health(status="ready", model=model.name).model_dump(exclude_none=True))


router.include_router(by_model)
