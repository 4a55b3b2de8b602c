"""Steps in JSON: a chain of requests, each for one step, then the answer.

A step is an object with a title, the content and what comes next. The schema is the controller:
which `next_action` a step may end in decides how long the chain is, so at most `max_steps` and
at least `min_steps` hold by grammar where the server constrains the model, and by the loop where
it does not. What is done about a reply that is no step, and what the context and the budget
still hold, is decided here.

It emits events and holds no connection of its own: the server is a protocol.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Literal

from reasoning.answering import Answering
from reasoning.attempt import Attempt, Tally
from reasoning.budget import NEARLY_SPENT
from reasoning.endpoint import Piece, Request
from reasoning.errors import RequestError, TooLong
from reasoning.events import Answer, Emit, Notice, Step
from reasoning.parsing import (
    BEGUN,
    KEYS,
    WENT_ROUND,
    BadReply,
    Draft,
    Reply,
    StepAction,
    parse_answer,
    parse_reply,
    read_partial,
    step_grammar,
    step_schema,
)
from reasoning.prompts import default_title
from reasoning.repeats import find_repeat, goes_round
from reasoning.task import MARGIN, Task, raised_temperature, within_bounds
from reasoning.titles import make_title
from reasoning.transcript import Transcript, Voice
from reasoning.way import ALL_SETTINGS, ALL_STEERS, Way, is_concluding

Actions = tuple[StepAction, ...]
MORE_TOKENS = (1.0, 1.5, 2.0)  # of those that a step may take, for each attempt
FEWER_TOKENS = 0.5  # after a reply that went round in circles: more would only be more of it
STEPS_BESIDE_HISTORY = 3  # the earlier turns of a conversation leave room for as many


GO_ON = step_schema("continue")
DECIDE = step_schema("continue", "final_answer")
CONCLUDE = step_schema("final_answer")
# Constant, so that a server compiles each grammar once; in the order in which chains need them.
SCHEMAS = (DECIDE, CONCLUDE, GO_ON)
BY_ACTIONS = {tuple(schema["properties"]["next_action"]["enum"]): schema for schema in SCHEMAS}
HINTS = {  # the prompt for another attempt, by what was wrong with the last
    "cut": "retry_cut", "loop": "retry_cut", "repeat": "retry_repeat",
}  # fmt: skip


def step_json(reply: Reply) -> str:
    """The step as compact as a server writes it."""
    values = dict(zip(KEYS, (reply.title, reply.content, reply.action), strict=True))
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def begin_step(request: Request) -> Request:
    """The request for a step, with the beginning that all steps have: the reply is the rest."""
    actions = request.schema["properties"]["next_action"]["enum"] if request.schema else ()
    return replace(request, begun=BEGUN, grammar=step_grammar(*actions))


class JsonSteps:
    """One chain. `steps` grows; a chain given finished steps goes on after them."""

    def __init__(self, task: Task, emit: Emit) -> None:
        self._task, self._emit = task, emit
        self.settings, self.language = task.inquiry.settings, task.inquiry.language
        self.steps: list[Step] = []
        self._transcript = Transcript(task, Voice("step", self._written, gap="\n"))
        self._used = 0  # tokens of the context that the turns take, at most
        self._counted = 0  # the same by the server's own count, 0 where it gives none
        self._step_tokens = min(task.inquiry.settings.step_tokens, task.context // 8)
        self._answer_tokens = min(task.inquiry.settings.answer_tokens, task.context // 4)

    async def answer(self) -> Answer:
        """The answer; what happens from the next step on is emitted. Raises StepwiseError."""
        await self._emit(*await self._open())
        await self._chain()
        return await (await self._answering()).answer(self._emit)

    # -- the turns

    async def _open(self) -> tuple[Notice, ...]:
        needed = self._step_tokens * STEPS_BESIDE_HISTORY + self._answer_tokens
        notices = await self._transcript.open(needed)
        self._used = self._transcript.used_at_most
        for step in self._task.inquiry.steps:
            await self._append(step)
        if self.steps and self._no_other():  # by the bound; the server counts better
            self._used = await self._transcript.used()
        return notices

    async def _append(self, step: Step) -> None:
        self.steps.append(step)
        await self._transcript.add(self.steps)
        self._used = self._counted or self._transcript.used_at_most

    def _written(self, step: Step) -> str:
        """The model's own text; what a reader changed of it, in the same form."""
        if not step.edited:
            return step.raw or step.content
        action: StepAction = "final_answer" if step.action == "final_answer" else "continue"
        return step_json(Reply(step.title, step.content, action))

    def _next(self, number: int, asked: str | None) -> str:
        if asked == "doubt":
            return self._task.prompt("doubt", number=number, before=number - 1)
        return self._task.prompt("next", number=number, max_steps=self.settings.max_steps)

    def _room(self) -> int:
        """Tokens that the context still holds for a turn of ours and a reply to it."""
        return self._task.context - self._used - 4 * MARGIN

    def _no_other(self) -> Notice | None:
        """Why there is no room for another step and then the answer; None where there is."""
        if self._room() < self._step_tokens + self._answer_tokens:
            return Notice("context", "The context is nearly full.")
        return None if self._task.budget.may_think else NEARLY_SPENT

    def _cure(self, error: RequestError) -> Notice | None:
        """What is too long is shortened."""
        if not isinstance(error, TooLong) or (notice := self._transcript.forget()) is None:
            return None
        self._used = self._transcript.used_at_most
        return notice

    # -- the steps

    async def _chain(self) -> None:
        """Step after step, until one is final or there is no room for another."""
        while not self._concluded():
            if notice := self._no_other():
                await self._emit(notice)
                return
            step = await within_bounds(self._step(len(self.steps) + 1), self.steps, self._emit)
            if step is None:
                return
            await self._emit(step)
            await self._append(step)

    def _concluded(self) -> bool:
        how = self._task.inquiry.asked_of(len(self.steps) + 1)
        if how == "answer":
            return True
        if how in ("again", "doubt") or not self.steps:
            return False
        return is_concluding(self.steps[-1]) or self.steps[-1].number >= self.settings.max_steps

    async def _step(self, number: int) -> Step | None:
        """The attempts at a step; a Notice tells why none gave one."""
        tally, bad, failed = Tally(), BadReply("empty", ""), 0
        while self._may_try(tally):
            attempt = Attempt(self._task.clock, number, failed)
            await self._read_step(number, tally.attempts, bad, attempt)
            tally.add(attempt)
            outcome = self._judge(number, attempt)
            if isinstance(outcome, Reply):
                return self._finished(number, outcome, attempt, tally)
            bad = outcome
            if self._may_try(tally):
                await self._emit(attempt.fail(bad.cause, bad.detail))
            failed = attempt.failed
        return await self._given_up(number, bad, attempt, tally)

    def _may_try(self, tally: Tally) -> bool:
        return tally.attempts < self.settings.attempts and self._task.budget.may_think

    async def _read_step(self, number: int, tried: int, bad: BadReply, attempt: Attempt) -> None:
        def request() -> Request:
            return self._step_request(number, tried, bad)

        async def take(piece: Piece) -> None:
            draft = read_partial(attempt.text)
            title = self._title(draft, whole=False)
            await self._emit(*attempt.news("title", title))
            await self._emit(*attempt.news("content", draft.content))

        await self._task.read(attempt, request, take, self._emit, self._cure)

    def _step_request(self, number: int, tried: int, bad: BadReply) -> Request:
        how = self._task.inquiry.asked_of(number)
        led = tried == 0 and how != "doubt" and self._transcript.is_led
        words = [self._next(number, how)] if self.steps else []
        if tried:
            hint = HINTS.get(bad.cause, "retry_format")
            words.append(self._task.prompt(hint, number=number))
        transcript = self._transcript
        request = Request(
            self._task.model,
            transcript.going_on() if led else transcript.asking("\n\n".join(words)),
            max_tokens=self._tokens_for(tried, bad),
            temperature=max(
                self.settings.temperature, raised_temperature(tried + (how == "again"))
            ),
            seed=self._task.inquiry.seed(tried, number),
            format=self._task.fallback.format,
            schema=BY_ACTIONS[self._actions(number)],
            go_on=led,
        )
        return begin_step(request) if self._task.fallback.begins else request

    def _tokens_for(self, tried: int, bad: BadReply) -> int:
        more = MORE_TOKENS[min(tried, len(MORE_TOKENS) - 1)]
        share = FEWER_TOKENS if bad.cause == "loop" else more
        most = min(int(self._step_tokens * share), max(1, self._room()))
        return min(most, self._task.budget.left_to_think)

    def _actions(self, number: int) -> Actions:
        """What step `number` may end in."""
        if number >= self.settings.max_steps:
            return ("final_answer",)
        return ("continue",) if number < self.settings.min_steps else ("continue", "final_answer")

    def _judge(self, number: int, attempt: Attempt) -> Reply | BadReply:
        outcome = parse_reply(attempt.text, attempt.finish_reason)
        if isinstance(outcome, BadReply):
            rambles = outcome.cause == "cut" and goes_round(outcome.draft.content)
            return replace(outcome, cause="loop", detail=WENT_ROUND) if rambles else outcome
        earlier = [step.content for step in self.steps]
        again = find_repeat(outcome.content, [*earlier, *self._task.inquiry.instead_of(number)])
        if again is None:
            return outcome
        said = f"step {again + 1}" if again < len(earlier) else "the step it is to replace"
        return BadReply("repeat", f"The reply repeats {said}.")

    def _finished(self, number: int, reply: Reply, attempt: Attempt, tally: Tally) -> Step:
        self._counted = attempt.prompt_tokens and attempt.prompt_tokens + attempt.tokens
        allowed = self._actions(number)
        return Step(
            number,
            self._title(Draft(reply.title, reply.content)) or default_title(self.language, number),
            reply.content,
            reply.action if reply.action in allowed else allowed[0],
            tally.seconds,
            tally.tokens,
            tally.attempts,
            attempt.first_token,
            raw=attempt.text,
            asked=self._asked(number),
        )

    def _title(self, draft: Draft, whole: bool = True) -> str:
        return make_title(draft, self.steps[-1].title if self.steps else "", whole)

    def _asked(self, number: int) -> Literal["", "doubt"]:
        return "doubt" if self._task.inquiry.asked_of(number) == "doubt" else ""

    async def _given_up(
        self, number: int, bad: BadReply, attempt: Attempt, tally: Tally
    ) -> Step | None:
        """What was readable, as a step marked cut; else why the answer is asked for now."""
        spent = tally.attempts < self.settings.attempts
        if bad.cause == "repeat" or not bad.draft.content.strip():
            await self._emit(_no_step(bad, tally, spent))
            return None
        if spent:
            await self._emit(NEARLY_SPENT)
        return Step(
            number,
            self._title(bad.draft) or default_title(self.language, number),
            bad.draft.content,
            "final_answer",
            tally.seconds,
            tally.tokens,
            tally.attempts,
            attempt.first_token,
            cut=True,
            asked=self._asked(number),
        )

    # -- the answer

    async def _answering(self) -> Answering:
        words = await self._task.in_form(self._task.prompt("answer"))

        def ask() -> Request:  # in a turn: the question stands far above, and its wishes with it
            return Request(
                self._task.model,
                self._transcript.asking(words),
                max_tokens=max(1, min(self._answer_tokens, self._room())),
            )

        number = len(self.steps) + 1
        return Answering(
            self._task, number, ask, lambda text, whole: parse_answer(text), self._cure
        )


def _no_step(bad: BadReply, tally: Tally, spent: bool) -> Notice:
    code, detail = "unreadable", bad.detail
    if bad.cause == "repeat":
        code, detail = "repeat", "The model repeats itself."
    if spent:
        code, detail = NEARLY_SPENT.code, NEARLY_SPENT.detail
    return Notice(code, detail, tally.seconds, tally.tokens)


async def json_steps(task: Task, emit: Emit) -> Answer:
    """A chain of JSON steps, and its answer. Raises StepwiseError."""
    return await JsonSteps(task, emit).answer()


JSON_STEPS = Way(
    json_steps,
    prompts=("step", "next", "doubt", "retry_cut", "retry_format", "retry_repeat", "answer"),
    steers=ALL_STEERS,
    settings=ALL_SETTINGS,
    ends=is_concluding,
)
