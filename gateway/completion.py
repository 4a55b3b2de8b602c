"""The chains of a request -> one chat.completion, or its chunks as they think. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel

from gateway.errors import public_message
from gateway.render import (
    TRANSIENT,
    AnswerEnd,
    AnswerText,
    FinishReason,
    ReasoningText,
    Remark,
    ReplyPart,
    choice_renderers,
)
from gateway.runner import ChainRun, ReplyJob
from gateway.schema import CalledFunction, StreamOptions, ToolCall, ToolFunction
from reasoning.events import Event, Failed, Retry, Started, Trace
from reasoning.traces import trace_to_json

Chunk = dict[str, Any]


class PromptDetails(BaseModel):
    cached_tokens: int


class CompletionDetails(BaseModel):
    reasoning_tokens: int


class Usage(BaseModel):
    """Tokens over all requests of all chains, as the server counted them.

    The prompt grows with every step and is counted each time; `cached_tokens` are those of
    it that the server had read before, where it tells.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None
    completion_tokens_details: CompletionDetails


class AnswerMessage(BaseModel):
    """`reasoning` and `reasoning_content` are the same text, for old and new clients.

    Where a tool was forced its call is the answer, and there is no content.
    """

    role: Literal["assistant"] = "assistant"
    content: str | None
    tool_calls: list[ToolCall] | None = None
    refusal: None = None
    reasoning: str
    reasoning_content: str


class RemarkEntry(BaseModel):
    """What the gateway says of a choice's chains: beside the message, so that no client sends
    it back with that. `step` is there where it is about one."""

    code: str
    message: str
    step: int | None = None


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: None = None
    remarks: list[RemarkEntry] = []


class Completion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    metadata: dict[str, str] | None = None
    trace: dict[str, Any] | list[dict[str, Any]] | None = None

    @property
    def body(self) -> dict[str, Any]:
        """What is sent: metadata, trace and tool calls only where they were asked for."""
        absent: dict[str, Any] = {
            name: True for name in ("metadata", "trace") if getattr(self, name) is None
        }
        if all(choice.message.tool_calls is None for choice in self.choices):
            absent["choices"] = {"__all__": {"message": {"tool_calls"}}}
        return self.model_dump(exclude=absent)


class CompletionBuilder:
    """The reply that is not streamed: what its chains tell, kept until they have ended."""

    def __init__(self, job: ReplyJob) -> None:
        self._job = job
        self._renderers = choice_renderers(job.request, job.alias.votes)
        self._parts: list[list[ReplyPart]] = [[] for _ in range(job.request.choices)]

    def add(self, run: ChainRun, event: Event) -> None:
        """Raises render.ChainFailed where a choice will have no answer."""
        if not isinstance(event, TRANSIENT):
            renderer = self._renderers[run.number]
            self._parts[renderer.choice] += renderer.render(event)

    def finish(self, runs: Sequence[ChainRun]) -> Completion:
        job = self._job
        return Completion(
            id=job.id,
            created=job.created,
            model=job.alias.name,
            choices=[_choice(job, index, parts) for index, parts in enumerate(self._parts)],
            usage=total_usage(runs, sum(_answer_tokens(parts) for parts in self._parts)),
            metadata=job.request.metadata,
            trace=traces_json(runs) if job.request.include_trace else None,
        )


def _choice(job: ReplyJob, index: int, parts: Sequence[ReplyPart]) -> Choice:
    reasoning = "".join(part.text for part in parts if isinstance(part, ReasoningText))
    content = "".join(part.text for part in parts if isinstance(part, AnswerText))
    finish = next(part.finish for part in parts if isinstance(part, AnswerEnd))
    remarks = [remark_entry(part) for part in parts if isinstance(part, Remark)]
    message = AnswerMessage(content=content, reasoning=reasoning, reasoning_content=reasoning)
    if tool := job.request.forced_tool:
        message.content = None
        function = CalledFunction(name=tool.name, arguments=content)
        call = ToolCall(id=_call_id(job, index), function=function)
        message.tool_calls = [call] if content else []
        finish = _finish(job, finish)
    return Choice(index=index, message=message, finish_reason=finish, remarks=remarks)


def _call_id(job: ReplyJob, choice: int) -> str:
    return f"call_{job.hex}{choice}"


def _finish(job: ReplyJob, finish: FinishReason) -> FinishReason:
    return "tool_calls" if job.request.forced_tool and finish == "stop" else finish


def remark_entry(remark: Remark) -> RemarkEntry:
    return RemarkEntry(code=remark.code, message=remark.message, step=remark.step)


def _answer_tokens(parts: Sequence[ReplyPart]) -> int:
    return sum(part.tokens for part in parts if isinstance(part, AnswerEnd))


class ChunkBuilder:
    """The chunks of one reply. Each choice begins with its role and ends with a reason."""

    def __init__(self, job: ReplyJob) -> None:
        self._job = job
        self._renderers = choice_renderers(job.request, job.alias.votes)
        self._begun: set[int] = set()
        self._called: set[int] = set()
        self._runs: dict[int, ChainRun] = {}
        self._answer_tokens = 0
        self._options = job.request.stream_options or StreamOptions()

    def add(self, run: ChainRun, event: Event) -> Iterator[Chunk]:
        """Raises render.ChainFailed where a choice will have no answer."""
        self._runs[run.number] = run
        if isinstance(event, Started):
            return
        renderer = self._renderers[run.number]
        for part in renderer.render(event):
            if renderer.choice not in self._begun:
                self._begun.add(renderer.choice)
                content = None if self._job.request.forced_tool else ""
                begun = {"role": "assistant", "content": content}
                yield self._choice_chunk(renderer.choice, begun)
            yield self._part_chunk(renderer.choice, part)

    def finish(self, runs: Sequence[ChainRun]) -> Iterator[Chunk]:
        """One more chunk, with no choices, where the usage or the trace was asked for."""
        more: Chunk = {}
        if self._options.include_usage:
            more["usage"] = total_usage(runs, self._answer_tokens).model_dump()
        if self._job.request.include_trace:
            more["trace"] = traces_json(runs)
        if more:
            yield {**self._empty_chunk(), **more}

    def _part_chunk(self, choice: int, part: ReplyPart) -> Chunk:
        match part:
            case ReasoningText(text):
                return self._choice_chunk(choice, {"reasoning": text, "reasoning_content": text})
            case AnswerText(text) if tool := self._job.request.forced_tool:
                return self._choice_chunk(choice, {"tool_calls": [self._call(tool, choice, text)]})
            case AnswerText(text):
                return self._choice_chunk(choice, {"content": text})
            case AnswerEnd(finish, tokens):
                self._answer_tokens += tokens
                return self._choice_chunk(choice, {}, finish_reason=_finish(self._job, finish))
            case Remark():
                return self._choice_chunk(choice, {}, remarks=[remark_entry(part).model_dump()])

    def _call(self, tool: ToolFunction, choice: int, arguments: str) -> Chunk:
        """More of a call's arguments; the first of them say whose they are."""
        if choice in self._called:
            return {"index": 0, "function": {"arguments": arguments}}
        self._called.add(choice)
        function = {"name": tool.name, "arguments": arguments}
        id = _call_id(self._job, choice)
        return {"index": 0, "id": id, "type": "function", "function": function}

    def _choice_chunk(self, choice: int, delta: Chunk, **more: Any) -> Chunk:
        entry = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return {**self._empty_chunk(), "choices": [entry]}

    def _empty_chunk(self) -> Chunk:
        made: Chunk = {"id": self._job.id, "object": "chat.completion.chunk"}
        made |= {"created": self._job.created, "model": self._job.alias.name, "choices": []}
        return made | ({"usage": self._usage_so_far()} if self._options.include_usage else {})

    def _usage_so_far(self) -> dict[str, int] | None:
        """OpenAI has null in all chunks but the last, vLLM counts in each for who asks."""
        wanted = self._options.continuous_usage_stats
        return count_tokens(self._runs.values()) if wanted else None


# -- what it cost, and the run itself


def total_usage(runs: Sequence[ChainRun], answer_tokens: int) -> Usage:
    """What the chains cost together; all that is no answer given is reasoning."""
    told = [run.meter.cached_tokens for run in runs if run.meter.cached_tokens is not None]
    counts = count_tokens(runs)
    reasoning = counts["completion_tokens"] - answer_tokens
    return Usage(
        **counts,
        prompt_tokens_details=PromptDetails(cached_tokens=sum(told)) if told else None,
        completion_tokens_details=CompletionDetails(reasoning_tokens=reasoning),
    )


def count_tokens(runs: Iterable[ChainRun]) -> dict[str, int]:
    """What the chains have cost until now; what of it is reasoning is known at the end."""
    prompt = completion = 0
    for run in runs:
        prompt += run.meter.prompt_tokens
        completion += run.meter.completion_tokens
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def traces_json(runs: Sequence[ChainRun]) -> dict[str, Any] | list[dict[str, Any]]:
    """The chain's trace, in the format of docs/trace.schema.json; a list where there are more.

    Chains that a vote did not need to draw have none.
    """
    traces = [trace_to_json(Trace(tuple(map(_public, run.events)))) for run in runs if run.events]
    return traces[0] if len(traces) == 1 else traces


def _public(event: Event) -> Event:
    """The event as a caller may see it: the server's insides are not for him."""
    if isinstance(event, Retry):
        return replace(event, detail=public_message(event.cause, event.detail))
    if isinstance(event, Failed):
        return replace(event, message=public_message(event.code, event.message))
    return event
