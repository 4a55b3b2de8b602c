"""The final answer: asked for in the caller's form, and read from the reply.

Shared by the ways that ask for it on its own. An empty answer, or one that is no JSON
although it must be, is asked for again; after the last attempt it is a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reasoning.attempt import Attempt, Tally
from reasoning.endpoint import Piece, Request
from reasoning.errors import EmptyAnswer, FormRefused
from reasoning.events import Answer, Emit, Notice, Retry
from reasoning.json_answers import extract_begun_json, extract_json
from reasoning.task import Cure, Task, raised_temperature

EMPTY, NOT_JSON = "The answer is empty.", "The answer is not the JSON that was asked for."


class Answering:
    """One answer. `ask` gives the messages and the most tokens, anew for each try.

    `read` makes Markdown of the text, whole or as far as it is written; it grows with it.
    `shown` is the beginning of it that a reader has seen already.
    """

    def __init__(
        self,
        task: Task,
        number: int,
        ask: Callable[[], Request],
        read: Callable[[str, bool], str] = lambda text, whole: text,
        cure: Cure = lambda error: None,
        shown: str = "",
    ) -> None:
        self._task, self._number, self._form = task, number, task.inquiry.answer_form
        self._ask, self._read, self._cure = ask, read, cure
        self._shown = shown
        task.fallback.answer_in(self._form.format)

    async def answer(self, emit: Emit) -> Answer:
        """The answer; what is emitted is its text as it comes. Raises StepwiseError."""
        tally, most = Tally(), self._task.inquiry.settings.attempts
        why, failed = EMPTY, 0
        while tally.attempts < most:
            attempt = Attempt(self._task.clock, self._number, failed)
            await self._attempt(tally.attempts, attempt, emit)
            tally.add(attempt)
            if content := self._content(attempt) or attempt.refusal:
                await emit(*attempt.news("answer", content))
                cost = (tally.seconds, tally.tokens)
                return Answer(content, *cost, attempt.first_token, attempt.cut)
            why = NOT_JSON if attempt.text.strip() and self._form.format != "text" else EMPTY
            if tally.attempts < most:
                self._shown = ""
                cause = "not_json" if why == NOT_JSON else "empty"
                await emit(attempt.fail(cause, why))
            failed = attempt.failed
        raise _no_answer(why)

    async def _attempt(self, tried: int, attempt: Attempt, emit: Emit) -> None:
        def request() -> Request:
            attempt.show("answer", self._shown)
            return self._request(tried)

        async def take(piece: Piece) -> None:
            await emit(*attempt.news("answer", self._draft(attempt.text)))

        async def again(why: Retry | Notice) -> None:
            if isinstance(why, Retry):  # a reader clears its draft
                self._shown = ""
            await emit(why)

        await self._task.read(attempt, request, take, again, self._cure)

    def _request(self, tried: int) -> Request:
        asked, format = self._ask(), self._task.fallback.format
        return replace(
            asked,
            temperature=max(self._task.inquiry.settings.temperature, raised_temperature(tried)),
            seed=self._task.inquiry.seed(tried),
            format=format,
            schema=self._form.schema if format == "json_schema" else None,
            stop=self._form.stop or asked.stop,
        )

    def _draft(self, text: str) -> str:
        if self._form.format != "text":
            return extract_begun_json(text)
        return self._read(text, False).lstrip()

    def _content(self, attempt: Attempt) -> str:
        """The answer; "" where there is none. JSON that was broken off stays as it is.

        A text that can be read in two ways is read as it was shown: none of that is taken back.
        """
        if self._form.format == "text":
            told, shown = self._read(attempt.text, True).strip(), attempt.shown("answer").strip()
            return told if told.startswith(shown) else shown
        broken = attempt.cut or self._form.stop
        begins = "{" if self._form.format == "json_object" else "{["
        return extract_json(attempt.text, begins) or (attempt.text.strip() if broken else "")


def _no_answer(why: str) -> EmptyAnswer | FormRefused:
    if why == NOT_JSON:
        return FormRefused(NOT_JSON, "Ask again, or a server that can hold its model to JSON.")
    return EmptyAnswer("The model gave no answer.", "Ask again, or serve another model.")
