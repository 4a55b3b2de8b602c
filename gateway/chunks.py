"""The chains of a request -> the chunks of a streamed reply, as they think. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gateway.completion import trace_of, usage_of, usage_so_far
from gateway.render import AnswerEnd, AnswerText, ReasoningText, ReplyPart, renderers
from gateway.runner import ChainRun, ReplyJob
from gateway.schema import StreamOptions
from reasoning.events import Event, Started

DONE = "[DONE]"
Chunk = dict[str, Any]


class Chunks:
    """The chunks of one reply. Each choice begins with its role and ends with a reason."""

    def __init__(self, job: ReplyJob) -> None:
        self._job = job
        self._renderers = renderers(job.request, job.alias.votes)
        self._begun: set[int] = set()
        self._runs: dict[int, ChainRun] = {}
        self._answer_tokens = 0
        self._options = job.request.stream_options or StreamOptions()

    def take(self, run: ChainRun, event: Event) -> Iterator[Chunk]:
        """Raises render.ChainFailed where a choice will have no answer."""
        self._runs[run.number] = run
        if isinstance(event, Started):
            return
        renderer = self._renderers[run.number]
        for part in renderer.render(event):
            if renderer.choice not in self._begun:
                self._begun.add(renderer.choice)
                yield self._of(renderer.choice, {"role": "assistant", "content": ""})
            yield self._rendered(renderer.choice, part)

    def end(self, runs: Sequence[ChainRun]) -> Iterator[Chunk]:
        """One more chunk, with no choices, where the usage or the trace was asked for."""
        more: Chunk = {}
        if self._options.include_usage:
            more["usage"] = usage_of(runs, self._answer_tokens).model_dump()
        if self._job.request.include_trace:
            more["trace"] = trace_of(runs)
        if more:
            yield {**self._chunk(), **more}

    def _rendered(self, choice: int, part: ReplyPart) -> Chunk:
        match part:
            case ReasoningText(text):
                return self._of(choice, {"reasoning": text, "reasoning_content": text})
            case AnswerText(text):
                return self._of(choice, {"content": text})
            case AnswerEnd(finish, tokens):
                self._answer_tokens += tokens
                return self._of(choice, {}, finish)

    def _of(self, choice: int, delta: Chunk, finish: str | None = None) -> Chunk:
        entry = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._chunk(), "choices": [entry]}

    def _chunk(self) -> Chunk:
        made: Chunk = {"id": self._job.id, "object": "chat.completion.chunk"}
        made |= {"created": self._job.created, "model": self._job.alias.name, "choices": []}
        return made | ({"usage": self._so_far()} if self._options.include_usage else {})

    def _so_far(self) -> dict[str, int] | None:
        """OpenAI has null in all chunks but the last, vLLM counts in each for who asks."""
        wanted = self._options.continuous_usage_stats
        return usage_so_far(self._runs.values()) if wanted else None
