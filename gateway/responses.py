"""The chains of a request -> one response of /v1/responses, or its events as they think. Pure.

A response's output is what was thought, in an item of its own, and the answer: a message, or
the call of the tool that was forced. What the gateway says of the chains stands in `remarks`,
beside the output, for a client sends that back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gateway.completion import remark_entry, total_usage
from gateway.errors import ApiError
from gateway.render import (
    TRANSIENT,
    AnswerEnd,
    AnswerText,
    ReasoningText,
    Remark,
    ReplyPart,
    choice_renderers,
)
from gateway.responses_request import ResponsesRequest, named_here
from gateway.runner import ChainRun, ReplyJob
from gateway.streaming import Line, event_data
from reasoning.events import Event, Started

Values = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete"]


class ResponseBody(BaseModel):
    """What every response has; `remarks` are ours."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    status: Status
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None
    remarks: list[dict[str, Any]]


# -- the items of the output


@dataclass(slots=True)
class ReasoningItem:
    """What was thought."""

    id: str
    text: str = ""
    kind = "reasoning_text"
    holder = "text"

    @property
    def part(self) -> Values | None:
        return {"type": "reasoning_text", "text": self.text}

    def item(self, status: Status) -> Values:
        made = {"id": self.id, "type": "reasoning", "summary": []}
        return made | _content(self.part, status)


@dataclass(slots=True)
class MessageItem:
    """The answer."""

    id: str
    text: str = ""
    kind = "output_text"
    holder = "text"

    @property
    def part(self) -> Values | None:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def item(self, status: Status) -> Values:
        made = {"id": self.id, "type": "message", "role": "assistant"}
        return made | _content(self.part, status)


@dataclass(slots=True)
class CallItem:
    """The answer as the call of a tool."""

    id: str
    name: str
    text: str = ""
    kind = "function_call_arguments"
    holder = "arguments"
    part = None

    def item(self, status: Status) -> Values:
        call_id = f"call_{self.id.rpartition('_')[2]}"
        made = {"id": self.id, "type": "function_call", "call_id": call_id, "name": self.name}
        return made | {"arguments": self.text, "status": status}


OutputItem = ReasoningItem | MessageItem | CallItem


def _content(part: Values | None, status: Status) -> Values:
    """What an item of parts holds, whole: one that has just begun holds none."""
    return {"content": [] if status == "in_progress" else [part], "status": status}


# -- the response


class ResponseBuilder:
    """One response. `add` gives its events, `take` leaves them out."""

    def __init__(self, job: ReplyJob, asked: ResponsesRequest) -> None:
        self._job, self._asked = job, asked
        self._renderers = choice_renderers(job.request, job.alias.votes)
        self._output: list[Values] = []
        self._open: OutputItem | None = None
        self._remarks: list[Values] = []
        self._end: AnswerEnd | None = None
        self._sent = 0  # events

    def take(self, run: ChainRun, event: Event) -> None:
        """Raises render.ChainFailed where there will be no answer."""
        for _ in () if isinstance(event, TRANSIENT) else self.add(run, event):
            pass

    def add(self, run: ChainRun, event: Event) -> Iterator[Line]:
        """Raises render.ChainFailed where there will be no answer."""
        if isinstance(event, Started):
            return
        for part in self._renderers[run.number].render(event):
            if not self._sent:
                yield self._event("response.created", response=self._response("in_progress"))
                yield self._event("response.in_progress", response=self._response("in_progress"))
            yield from self._part(part)

    def finish(self, runs: Sequence[ChainRun]) -> Iterator[Line]:
        whole = self.body(runs)
        yield self._event(f"response.{whole['status']}", response=whole)

    def body(self, runs: Sequence[ChainRun]) -> Values:
        cut = self._end is not None and self._end.finish == "length"
        whole = self._response("incomplete" if cut else "completed")
        whole["usage"] = self._usage(runs)
        if cut:
            whole["incomplete_details"] = {"reason": "max_output_tokens"}
        return whole

    def failed(self, error: ApiError) -> list[Line]:
        """The end of a stream that has failed; the openai client raises what `error` holds."""
        error = named_here(error)
        told = {"code": error.code, "message": error.message, "param": error.param}
        return [self._event("error", **told, **error.body)]

    # -- events

    def _event(self, kind: str, **values: Any) -> Line:
        made = {"type": kind, "sequence_number": self._sent, **values}
        self._sent += 1
        return {"event": kind, "data": event_data(made)}

    def _part(self, part: ReplyPart) -> Iterator[Line]:
        match part:
            case ReasoningText(text):
                yield from self._write(text, thinks=True)
            case AnswerText(text):
                yield from self._write(text, thinks=False)
            case AnswerEnd(finish):
                self._end = part
                yield from self._close("incomplete" if finish == "length" else "completed")
            case Remark():
                self._remarks.append(remark_entry(part).model_dump())

    def _write(self, text: str, thinks: bool) -> Iterator[Line]:
        """More text of what is thought, or of the answer."""
        item = self._open
        if item is None or isinstance(item, ReasoningItem) != thinks:
            yield from self._close("completed")
            item = self._open = self._new_item(thinks)
            yield from self._begin(item)
        item.text += text
        more: Values = {"logprobs": []} if isinstance(item, MessageItem) else {}
        yield self._event(f"response.{item.kind}.delta", **self._place(item), delta=text, **more)

    def _new_item(self, thinks: bool) -> OutputItem:
        ending = f"{self._job.hex}{len(self._output)}"
        if thinks:
            return ReasoningItem(f"rs_{ending}")
        if tool := self._job.request.forced_tool:
            return CallItem(f"fc_{ending}", tool.name)
        return MessageItem(f"msg_{ending}")

    def _begin(self, item: OutputItem) -> Iterator[Line]:
        begun = {"output_index": len(self._output), "item": item.item("in_progress")}
        yield self._event("response.output_item.added", **begun)
        if item.part is not None:
            yield self._event("response.content_part.added", **self._place(item), part=item.part)

    def _close(self, status: Status) -> Iterator[Line]:
        item, self._open = self._open, None
        if item is None:
            return
        told: Values = {item.holder: item.text}
        if isinstance(item, MessageItem):
            told["logprobs"] = []
        yield self._event(f"response.{item.kind}.done", **self._place(item), **told)
        if item.part is not None:
            yield self._event("response.content_part.done", **self._place(item), part=item.part)
        whole, number = item.item(status), len(self._output)
        self._output.append(whole)
        yield self._event("response.output_item.done", output_index=number, item=whole)

    def _place(self, item: OutputItem) -> Values:
        """Where in the output an event belongs."""
        place = {"item_id": item.id, "output_index": len(self._output)}
        return place if isinstance(item, CallItem) else place | {"content_index": 0}

    # -- the response itself

    def _response(self, status: Status) -> Values:
        asked, job = self._asked, self._job
        return {
            "id": job.id,
            "object": "response",
            "created_at": job.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": job.alias.name,
            "output": list(self._output),
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": job.request.reasoning_effort, "summary": None},
            "store": False,
            "temperature": asked.temperature,
            "text": {"format": asked.format.model_dump(by_alias=True, exclude_none=True)},
            "tool_choice": asked.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in asked.tools or ()],
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": None,
            "remarks": list(self._remarks),
        }

    def _usage(self, runs: Sequence[ChainRun]) -> Values:
        usage = total_usage(runs, self._end.tokens if self._end else 0)
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
        return {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": usage.completion_tokens_details.model_dump(),
            "total_tokens": usage.total_tokens,
        }
