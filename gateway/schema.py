"""What a caller may ask for: the body of a chat completion, and what it means for a chain.

Every parameter is honoured, or taken only at the value at which it changes nothing, or
refused. None is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from gateway.errors import UNSUPPORTED, ApiError
from gateway.models import MOST_CHAINS, ModelAlias
from reasoning.events import Settings
from reasoning.inquiry import AnswerForm
from reasoning.think import WAYS, vary_settings

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
LONGEST = Settings(min_steps=3, max_steps=60, step_tokens=2000, answer_tokens=4000)
# Steps and tokens per step; "medium" is what the page and the terminal do, "none" has no steps.
EFFORTS: Mapping[Effort, Settings] = {
    "none": Settings(),
    "minimal": Settings(max_steps=3, step_tokens=200),
    "low": Settings(max_steps=6, step_tokens=300),
    "medium": Settings(),
    "high": Settings(min_steps=3, max_steps=40, step_tokens=1200, answer_tokens=3000),
    "xhigh": LONGEST,
    "max": LONGEST,
}
NAME = r"^[a-zA-Z0-9_-]{1,64}$"  # of a schema, or a tool
LARGEST_BOUND = 10**9  # tokens
LARGEST_SEED = 2**62  # a server takes 64 bits, and further chains and attempts count up from it


@dataclass(frozen=True)
class Only:
    """A parameter that is not supported, taken at the values at which it changes nothing."""

    values: tuple[Any, ...]

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": list(self.values)}

    def _check(self, value: Any) -> Any:
        if any(value == one and _is_bool(value) == _is_bool(one) for one in self.values):
            return value
        known = " or ".join(json.dumps(one) for one in self.values)
        raise PydanticCustomError(
            UNSUPPORTED, "not supported here; leave it out, or {known}", {"known": known}
        )


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)  # JSON's false is not 0


NONE = Only((None,))
NO_PENALTY = Only((None, 0))
NO_LIST = Only((None, []))


def _join_parts(content: Any) -> Any:
    """Text parts as one text. What is no text is left to be refused."""
    if not isinstance(content, list):
        return content
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            said = "expected a text or parts of the type text, got a part of the type {kind}"
            raise PydanticCustomError(UNSUPPORTED, said, {"kind": str(kind)[:40]})
    return "".join(part["text"] for part in content)


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


TEXT_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
TEXT = {"anyOf": [{"type": "string"}, {"type": "array", "items": TEXT_PART}]}
Text = Annotated[str, BeforeValidator(_join_parts), WithJsonSchema(TEXT)]
A_STOP = {"type": "string", "minLength": 1}
STOPS = {"anyOf": [A_STOP, {"type": "array", "items": A_STOP, "maxItems": 4}, {"type": "null"}]}
Stop = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CalledFunction(Strict):
    name: str
    arguments: str


class ToolCall(Strict):
    """A call that an assistant makes."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction

    @property
    def text(self) -> str:
        """The call in the form in which models write one."""
        try:
            arguments = json.loads(self.function.arguments)
        except (ValueError, RecursionError):
            arguments = self.function.arguments
        call = {"name": self.function.name, "arguments": arguments}
        return json.dumps(call, ensure_ascii=False)


class EarlierCall(ToolCall):
    """As clients give it back; those that put it together from a stream leave its place in it."""

    index: int | None = None


class Message(Strict):
    """One turn. An assistant's may bring the reasoning it came with; it is given back.

    A tool's stands on the user's side. A name changes nothing, as in most chat templates.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    name: str | None = None
    refusal: str | None = None
    audio: Annotated[Any, NONE] = None
    annotations: Annotated[Any, NO_LIST] = None
    tool_calls: list[EarlierCall] | None = None
    tool_call_id: str | None = None
    function_call: Annotated[Any, NONE] = None

    @model_validator(mode="after")
    def _check_content(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise ValueError("expected content; only an assistant's turn may have none")
        return self

    @property
    def text(self) -> str:
        """What is said in it, calls of tools included."""
        calls = [call.text for call in self.tool_calls or ()]
        return "\n\n".join(filter(None, (self.content or self.refusal, *calls)))


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: Annotated[bool | None, Only((None, False))] = None
    continuous_usage_stats: bool | None = None  # vLLM's: the usage so far with every chunk

    @model_validator(mode="after")
    def _check_usage_included(self) -> StreamOptions:
        if self.continuous_usage_stats and not self.include_usage:
            raise ValueError("continuous_usage_stats needs include_usage")
        return self


class NamedSchema(Strict):
    """A JSON schema for the answer. It is always kept to, `strict` or not."""

    name: Annotated[str, Field(pattern=NAME)]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _check_schema_given(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("expected json_schema with the type json_schema, and only with it")
        return self


class ToolFunction(Strict):
    """A tool that the caller has. Where its call is forced it is a form of the answer."""

    name: Annotated[str, Field(pattern=NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def schema_(self) -> dict[str, Any]:
        """Its arguments, with what the model should know of it."""
        told = {"title": self.name, "description": self.description}
        known = {name: text for name, text in told.items() if text}
        return {**known, "type": "object", **(self.parameters or {})}


class Tool(Strict):
    type: Literal["function"]
    function: ToolFunction


class NamedFunction(Strict):
    name: str


class NamedTool(Strict):
    type: Literal["function"]
    function: NamedFunction


def _check_choice(choice: Any) -> Any:
    """Says in one line what the union would say in five."""
    if choice is None or choice in ("none", "auto", "required"):
        return choice
    function = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(function, dict) and choice.get("type") == "function":
        return choice
    said = 'expected "none", "auto", "required", or the function to be called'
    raise PydanticCustomError(UNSUPPORTED, said)


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class Body(Strict):
    """A request's body."""

    @model_validator(mode="before")
    @classmethod
    def _check_sendable(cls, values: Any) -> Any:
        """Python reads NaN and half characters from JSON, and no server takes them."""
        if not isinstance(values, dict):
            raise ValueError("expected a JSON object, sent as Content-Type: application/json")
        try:
            json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:
            raise ValueError("the body holds half a character (a lone surrogate)") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the body is not plain JSON: {error}") from None
        return values


class ChatRequest(Body):
    """The body of POST /v1/chat/completions for a model that thinks in steps."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHAINS)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=-LARGEST_SEED, le=LARGEST_SEED)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=LARGEST_BOUND)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=LARGEST_BOUND)] = None
    stop: Annotated[
        list[Stop] | None, Field(max_length=4), BeforeValidator(_as_list), WithJsonSchema(STOPS)
    ] = None
    reasoning_effort: Effort | None = None
    response_format: ResponseFormat | None = None
    include_trace: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: Annotated[ToolChoice | None, BeforeValidator(_check_choice)] = None
    parallel_tool_calls: bool | None = None  # a forced call is one
    # They change nothing of the answer: whom it is for, and hints to a cache.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    # Not supported.
    audio: Annotated[Any, NONE] = None
    frequency_penalty: Annotated[float | None, NO_PENALTY] = None
    function_call: Annotated[Any, Only((None, "none"))] = None
    functions: Annotated[Any, NO_LIST] = None
    logit_bias: Annotated[Any, Only((None, {}))] = None
    logprobs: Annotated[bool | None, Only((None, False))] = None
    modalities: Annotated[Any, Only((None, ["text"]))] = None
    moderation: Annotated[Any, NONE] = None
    prediction: Annotated[Any, NONE] = None
    presence_penalty: Annotated[float | None, NO_PENALTY] = None
    prompt_cache_options: Annotated[Any, NONE] = None
    prompt_cache_retention: Annotated[str | None, NONE] = None
    service_tier: Annotated[str | None, Only((None, "auto", "default"))] = None
    store: Annotated[bool | None, Only((None, False))] = None
    top_logprobs: Annotated[int | None, NO_PENALTY] = None
    verbosity: Annotated[str | None, Only((None, "medium"))] = None
    web_search_options: Annotated[Any, NONE] = None

    @model_validator(mode="after")
    def _check_consistent(self) -> ChatRequest:
        if self.max_tokens and self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens mean the same; give one")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for a stream; set stream to true")
        return self

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def effort(self) -> Effort | None:
        """How much is thought, where something is and the caller says so."""
        return None if self.reasoning_effort == "none" else self.reasoning_effort

    @property
    def budget(self) -> int | None:
        """Completion tokens of a choice, its reasoning included."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def forced_tool(self) -> ToolFunction | None:
        """The one tool that must be called, and whose arguments are then the answer."""
        tools = [tool.function for tool in self.tools or ()]
        if isinstance(self.tool_choice, NamedTool):
            named = self.tool_choice.function.name
            return next((tool for tool in tools if tool.name == named), None)
        return tools[0] if self.tool_choice == "required" and len(tools) == 1 else None

    @property
    def answer_form(self) -> AnswerForm:
        """What the final answer must look like."""
        if self.forced_tool:
            return AnswerForm(tuple(self.stop or ()), "json_schema", self.forced_tool.schema_)
        wanted = self.response_format or ResponseFormat(type="text")
        schema = wanted.json_schema.schema_ if wanted.json_schema else None
        return AnswerForm(tuple(self.stop or ()), wanted.type, schema)


# -- what it means for the chains


def chain_settings(request: ChatRequest, alias: ModelAlias) -> tuple[Settings, ...]:
    """Each chain's settings, choice after choice. Raises ApiError where they would be too many.

    Several chains have a seed each, and are as warm as a vote needs unless the caller says
    how warm. The chains of a vote share the choice's budget as if all were drawn: it is a bound.
    """
    chains = request.choices * alias.votes
    if chains > MOST_CHAINS:
        said = f"{request.choices} votes of {alias.votes} chains are {chains} chains"
        raise ApiError(400, "invalid_value", f"n: {said}; at most {MOST_CHAINS} are run.", "n")
    one = replace(EFFORTS[request.reasoning_effort or "medium"], **_overrides(request, alias))
    if chains == 1:
        return (one,)
    several = vary_settings(one, chains)
    if request.temperature is None:
        return several
    return tuple(replace(settings, temperature=request.temperature) for settings in several)


def _overrides(request: ChatRequest, alias: ModelAlias) -> dict[str, Any]:
    budget = request.budget
    if budget is not None and budget < alias.votes:
        name = budget_name(request)
        said = f"{name}: a vote of {alias.votes} needs at least a token for each chain."
        raise ApiError(400, "invalid_value", said, name)
    values = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "budget": budget and budget // alias.votes,
    }
    return {name: value for name, value in values.items() if value is not None}


def budget_name(request: ChatRequest) -> str:
    return "max_completion_tokens" if request.max_completion_tokens else "max_tokens"


def check_tools(request: ChatRequest) -> None:
    """Raises ApiError where a tool would have to be chosen: only a forced call can be given."""
    if request.forced_tool:
        if request.response_format and request.response_format.type != "text":
            raise _unsupported("response_format", "a forced call of a tool has a form of its own")
    elif request.tool_choice not in (None, "none", "auto"):
        raise _unsupported("tool_choice", "expected it to name one of the tools, or one tool alone")
    elif request.tools and request.tool_choice != "none":
        said = "a model that thinks in steps calls a tool only where tool_choice forces one"
        raise _unsupported("tools", f"{said}; ask the plain model")


def _unsupported(name: str, said: str) -> ApiError:
    return ApiError(400, UNSUPPORTED, f"{name}: {said}.", name)


def check_supported(request: ChatRequest, way: str) -> None:
    """Raises ApiError where the model's way of thinking has no use for a parameter given."""
    wanted = {
        "temperature": (request.temperature, "temperature"),
        "top_p": (request.top_p, "top_p"),
        "seed": (request.seed, "seed"),
        "budget": (request.budget, budget_name(request)),
        "max_steps": (request.effort, "reasoning_effort"),
    }
    for field, (value, name) in wanted.items():
        if value is not None and way in WAYS and field not in WAYS[way].settings:
            said = f"this model thinks in the way {way}, which has no use for it"
            raise _unsupported(name, said)
