"""The chains of a request -> one chat.completion, and the shape it has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from gateway.render import (
    TRANSIENT,
    AnswerEnd,
    AnswerText,
    FinishReason,
    ReasoningText,
    ReplyPart,
    renderers,
)
from gateway.runner import ChainRun, ReplyJob
from reasoning.events import Event
from reasoning.traces import trace_to_json


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
    """`reasoning` and `reasoning_content` are the same text, for old and new clients."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    reasoning: str
    reasoning_content: str


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: None = None


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
        """What is sent: metadata and trace are there only where they were asked for."""
        absent = {name for name in ("metadata", "trace") if getattr(self, name) is None}
        return self.model_dump(exclude=absent)


class Gathering:
    """The reply that is not streamed: what its chains tell, kept until they have ended."""

    def __init__(self, job: ReplyJob) -> None:
        self._job = job
        self._renderers = renderers(job.request, job.alias.votes)
        self._parts: list[list[ReplyPart]] = [[] for _ in range(job.request.choices)]

    def take(self, run: ChainRun, event: Event) -> None:
        """Raises render.ChainFailed where a choice will have no answer."""
        if not isinstance(event, TRANSIENT):
            renderer = self._renderers[run.number]
            self._parts[renderer.choice] += renderer.render(event)

    def end(self, runs: Sequence[ChainRun]) -> Completion:
        job = self._job
        return Completion(
            id=job.id,
            created=job.created,
            model=job.alias.name,
            choices=[_choice(index, parts) for index, parts in enumerate(self._parts)],
            usage=usage_of(runs, sum(_answer_tokens(parts) for parts in self._parts)),
            metadata=job.request.metadata,
            trace=trace_of(runs) if job.request.include_trace else None,
        )


def _choice(index: int, parts: Sequence[ReplyPart]) -> Choice:
    reasoning = "".join(part.text for part in parts if isinstance(part, ReasoningText))
    content = "".join(part.text for part in parts if isinstance(part, AnswerText))
    finish = next(part.finish for part in parts if isinstance(part, AnswerEnd))
    message = AnswerMessage(content=content, reasoning=reasoning, reasoning_content=reasoning)
    return Choice(index=index, message=message, finish_reason=finish)


def _answer_tokens(parts: Sequence[ReplyPart]) -> int:
    return sum(part.tokens for part in parts if isinstance(part, AnswerEnd))


def usage_of(runs: Sequence[ChainRun], answer_tokens: int) -> Usage:
    """What the chains cost together; all that is no answer given is reasoning."""
    told = [run.meter.cached_tokens for run in runs if run.meter.cached_tokens is not None]
    counts = usage_so_far(runs)
    reasoning = counts["completion_tokens"] - answer_tokens
    return Usage(
        **counts,
        prompt_tokens_details=PromptDetails(cached_tokens=sum(told)) if told else None,
        completion_tokens_details=CompletionDetails(reasoning_tokens=reasoning),
    )


def usage_so_far(runs: Iterable[ChainRun]) -> dict[str, int]:
    """What the chains have cost until now; what of it is reasoning is known at the end."""
    prompt = completion = 0
    for run in runs:
        prompt += run.meter.prompt_tokens
        completion += run.meter.completion_tokens
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def trace_of(runs: Sequence[ChainRun]) -> dict[str, Any] | list[dict[str, Any]]:
    """The chain's trace, in the format of docs/trace.schema.json; a list where there are more.

    ChainRunner that a vote did not need to draw have none.
    """
    traces = [trace_to_json(run.trace) for run in runs if run.events]
    return traces[0] if len(traces) == 1 else traces
