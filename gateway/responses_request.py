"""The body of POST /v1/responses, and the chat request that means the same. Pure.

Stateless: a caller sends what was said before, the reasoning in items of its own. What would
have us keep something is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from gateway.errors import UNSUPPORTED, ApiError
from gateway.schema import LARGEST_BOUND, NAME, NONE, Body, ChatRequest, Effort, Only, Strict

PARTS = {  # the types of text parts, and where each has its text
    "input_text": "text",
    "output_text": "text",
    "reasoning_text": "text",
    "summary_text": "text",
    "refusal": "refusal",
}
# What a parameter of the chat is called here: an error names the one that was sent.
NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
}


def _join_parts(content: Any) -> Any:
    """Text parts as one text. What is no text is left to be refused."""
    if not isinstance(content, list):
        return content
    return "".join(map(_part_text, content))


def _part_text(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(PARTS[kind]) if isinstance(kind, str) and kind in PARTS else None
    if not isinstance(text, str):
        said = "expected a text or parts of text, got a part of the type {kind}"
        raise PydanticCustomError(UNSUPPORTED, said, {"kind": str(kind)[:40]})
    return text


def _as_items(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


PART = {
    "type": "object",
    "properties": {"type": {"const": "input_text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
TEXT = {"anyOf": [{"type": "string"}, {"type": "array", "items": PART}]}
Text = Annotated[str, BeforeValidator(_join_parts), WithJsonSchema(TEXT)]
NEEDED = {
    "message": ("role", "content"),
    "reasoning": (),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}


class InputItem(Strict):
    """A message, what was thought, a call of a tool, or what that said."""

    type: Literal["message", "reasoning", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Text | None = None
    summary: Text | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Text | None = None
    # They change nothing.
    id: str | None = None
    status: str | None = None
    phase: str | None = None
    encrypted_content: str | None = None

    @model_validator(mode="after")
    def _check_needed(self) -> InputItem:
        for name in NEEDED[self.type]:
            if getattr(self, name) is None:
                raise ValueError(f"expected {name} in an item of the type {self.type}")
        return self

    @property
    def message(self) -> dict[str, Any]:
        """The turn of a chat that says the same."""
        match self.type:
            case "message":
                return {"role": self.role, "content": self.content}
            case "reasoning":
                return {"role": "assistant", "reasoning": self.content or self.summary}
            case "function_call":
                function = {"name": self.name, "arguments": self.arguments}
                call = {"id": self.call_id, "type": "function", "function": function}
                return {"role": "assistant", "tool_calls": [call]}
            case "function_call_output":
                return {"role": "tool", "content": self.output, "tool_call_id": self.call_id}


class Reasoning(Strict):
    """`summary` changes nothing: the steps come as they were written."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class Format(Strict):
    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str | None, Field(pattern=NAME)] = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    description: str | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _check_schema_given(self) -> Format:
        if (self.type == "json_schema") != (self.name is not None and self.schema_ is not None):
            raise ValueError("expected name and schema with the type json_schema, and only there")
        return self

    @property
    def response_format(self) -> dict[str, Any]:
        if self.type != "json_schema":
            return {"type": self.type}
        schema = {"name": self.name, "schema": self.schema_, "description": self.description}
        return {"type": self.type, "json_schema": schema}


class TextConfig(Strict):
    format: Format | None = None
    verbosity: Annotated[str | None, Only((None, "medium"))] = None


class Tool(Strict):
    type: Literal["function"]
    name: Annotated[str, Field(pattern=NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


def _as_in_chat(choice: Any) -> Any:
    """A function that is named, in the shape that it has in a chat."""
    if isinstance(choice, dict) and choice.get("type") == "function" and "name" in choice:
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice


class ResponsesRequest(Body):
    """The body of POST /v1/responses for a model that thinks in steps."""

    model: str
    input: Annotated[list[InputItem], Field(min_length=1), BeforeValidator(_as_items)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int | None, Field(ge=1, le=LARGEST_BOUND)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None  # checked as the chat's
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    # They change nothing of the answer.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    include: list[Literal["reasoning.encrypted_content"]] | None = None  # it comes in plain text
    # Not supported.
    background: Annotated[bool | None, Only((None, False))] = None
    conversation: Annotated[Any, NONE] = None
    context_management: Annotated[Any, NONE] = None
    max_tool_calls: Annotated[int | None, NONE] = None
    moderation: Annotated[Any, NONE] = None
    previous_response_id: Annotated[str | None, NONE] = None
    prompt: Annotated[Any, NONE] = None
    prompt_cache_options: Annotated[Any, NONE] = None
    prompt_cache_retention: Annotated[str | None, NONE] = None
    service_tier: Annotated[str | None, Only((None, "auto", "default"))] = None
    store: Annotated[bool | None, Only((None, False))] = None
    stream_options: Annotated[Any, Only((None, {}, {"include_obfuscation": False}))] = None
    top_logprobs: Annotated[int | None, Only((None, 0))] = None
    truncation: Annotated[str | None, Only((None, "disabled"))] = None

    @property
    def format(self) -> Format:
        """What the answer must look like."""
        return (self.text and self.text.format) or Format(type="text")

    @property
    def chat(self) -> ChatRequest:
        """The chat request that asks for the same. Raises ValidationError, by the chat's names."""
        tools = [
            {"type": "function", "function": tool.model_dump(exclude={"type"})}
            for tool in self.tools or ()
        ]
        given = {
            "model": self.model,
            "messages": list(self._messages()),
            "stream": self.stream,
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
            "response_format": self.format.response_format,
            "tools": tools,
            "tool_choice": _as_in_chat(self.tool_choice),
        }
        return ChatRequest.model_validate(given)

    def _messages(self) -> Iterator[dict[str, Any]]:
        if self.instructions:
            yield {"role": "system", "content": self.instructions}
        for item in self.input:
            yield item.message


def named_here(error: ApiError) -> ApiError:
    """The error with a parameter's name as it stands in this body."""
    name, _, rest = (error.param or "").partition("[")
    if name in NAMES:
        error.message = error.message.replace(name, NAMES[name], 1)
        error.param = NAMES[name] + (f"[{rest}" if rest else "")
    return error
