"""Chain of thought: one message in the model's own voice, under short headings.

The model is asked once, without an example (Kojima et al. 2022, arXiv 2205.11916; an example
is copied by small models), and its message is cut into steps as it comes. The loop steps in
only where it must, by letting the model go on from the message as it stands: a step that
repeats another is taken out, a hasty answer is checked once, and a chain that has no room
left is led to its answer. So a chain is one request as a rule.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal

from reasoning.answering import Answering
from reasoning.conclusions import answer_told, without_heading
from reasoning.direct import LEAST
from reasoning.endpoint import Piece, Request
from reasoning.errors import BudgetSpent, Refused, RequestError, TooLong
from reasoning.events import Answer, Delta, Event, Notice, Retry, Step
from reasoning.prompts import ANSWER, CHECK, DOUBT, under
from reasoning.reading import Reading
from reasoning.repeats import repeats
from reasoning.splitting import Conclusion, Cut, HeadingSplitter, Opening
from reasoning.step_loop import ends
from reasoning.task import (
    LEAST_ANSWER,
    LEAST_STEP,
    MARGIN,
    NEARLY_SPENT,
    AnswerForm,
    Task,
    warmer,
)
from reasoning.titles import is_title
from reasoning.transcript import Transcript
from reasoning.writing import Writer

UNTOLD = 2048  # tokens to ask for where a server tells no context: it may have 4,096
BYTES_PER_TOKEN = 4  # of English, while a server has counted nothing yet
OFTEN = 2  # replies that repeat; after as many the chain is led to its answer

# Why a reply has ended: it came to nothing (CAUSES), by itself, for want of steps, of a step's
# own tokens or of any, or because the answer that it begins is asked for apart.
End = Literal["", "repeat", "loop", "empty", "stop", "steps", "long", "full", "told"]
CAUSES: dict[End, str] = {
    "repeat": "The reply repeats an earlier step.",
    "loop": "The reply went round in circles.",
    "empty": "The reply is empty.",
}


@dataclass(frozen=True, slots=True)
class Lead:
    """How a model is made to go on: under `heading`, or where a server cannot, by our `words`.

    `attempt` is the number of replies that came to nothing: the more, the warmer.
    """

    words: str = ""
    heading: str = ""
    attempt: int = 0


def cot(task: Task) -> AsyncGenerator[Event, None]:
    """The events of a chain of thought in one voice. Raises StepwiseError."""
    return ChainOfThought(task).events()


class ChainOfThought:
    """One chain; given finished steps, it goes on from the message that they make."""

    def __init__(self, task: Task) -> None:
        self._task, self._settings = task, task.settings
        self._steps: list[Step] = list(task.steps)
        self._transcript = Transcript(task)
        self._goes_on = task.model.vllm and task.server.goes_on
        # the steps must be free of what the answer is held to, so they are two requests
        self._apart = task.answer_form != AnswerForm()
        self._step_tokens = min(self._settings.step_tokens, task.context // 8)
        self._answer_tokens = min(self._settings.answer_tokens, task.context // 4)
        self._room = 0  # tokens that the context holds for thought, beside the answer's
        self._failures = self._tries = 0  # replies that came to nothing: in all, at this step
        self._hasty = self._checked = False
        self._owed = (0.0, 0)  # seconds and tokens that no event has told yet
        self._begun = ""  # of an answer whose tokens ended before it did
        self._is_refused = False  # the server would not go on from the message
        self._lead = Lead()
        self._fresh()

    def _fresh(self) -> None:
        self._reading = Reading(self._task.clock)
        self._begin()

    def _begin(self) -> None:
        """A try begins: nothing of an earlier one counts but its finished steps."""
        self._splitter = HeadingSplitter()
        self._writer = Writer(self._number, self._task.clock, self._task.language)
        self._counted = 0  # tokens when the open step or the answer began
        self._dropped = (0.0, 0)  # what the step that was taken out has cost
        self._answer: str | None = None
        self._end: End = ""
        if self._is_led and self._lead.heading:
            self._splitter.feed(under(self._lead.heading))

    @property
    def _number(self) -> int:
        return len(self._steps) + 1

    @property
    def _is_led(self) -> bool:
        """Whether the server is asked to go on from the message, and not by our words."""
        return self._goes_on and bool(self._transcript.message)

    async def events(self) -> AsyncGenerator[Event, None]:
        for notice in await self._transcript.open(self._task.context // 4):
            yield notice
        async with aclosing(self._thought()) as events:
            async for event in events:
                yield event
        if told := without_heading(self._answer or "", whole=True).strip():
            yield self._answered(told)
            return
        async with aclosing(self._conclude()) as events:
            async for event in events:
                yield event

    # -- the thought

    async def _thought(self) -> AsyncGenerator[Event, None]:
        """Reply after reply, mostly one, until the answer is there or must be asked for."""
        lead = self._first()
        while lead is not None:
            await self._measure()
            if notice := self._no_room():
                yield notice
                return
            try:
                async with aclosing(self._reply(lead)) as events:
                    async for event in events:
                        yield event
            except TooLong:
                if not self._steps:
                    raise
                yield Notice("context", "The context is full.")
                return
            except BudgetSpent:  # on tries that broke off; the answer's share is left
                yield NEARLY_SPENT
                return
            for said in self._judged():
                yield said
            lead = self._next()

    def _first(self) -> Lead | None:
        """What the chain begins with, or goes on with after finished steps."""
        number, how = self._number, self._task.asked_of(self._number)
        if how == "doubt":
            words = self._task.prompt("doubt", number=number, before=number - 1)
            return Lead(words, DOUBT[self._task.language].format(number - 1))
        if not self._steps:
            return Lead(attempt=int(how == "again"))
        done = ends(self._steps[-1]) or number > self._settings.max_steps or how == "answer"
        if done and how != "again":
            return None
        return Lead(self._task.prompt("go_on"), attempt=int(how == "again"))

    def _next(self) -> Lead | None:
        """What follows a reply that has ended; None where the answer does."""
        if self._end in CAUSES and self._may_fail():
            words = self._lead.words or (self._task.prompt("go_on") if self._steps else "")
            return Lead(words, self._lead.heading, self._failures)
        if self._end != "stop" or self._answer is not None:
            return None
        if self._is_early(len(self._steps)):
            self._checked = True
            return Lead(self._task.prompt("check"), CHECK[self._task.language])
        if not self._apart:
            self._answer = answer_told(self._steps[-1].content)
        return None

    def _is_early(self, steps: int) -> bool:
        """Whether a chain that ends after so many steps is to be checked first, once."""
        return not self._checked and (self._hasty or steps < self._settings.min_steps)

    async def _measure(self) -> None:
        await self._transcript.add(self._steps)
        used = await self._transcript.used() + 2 * MARGIN
        self._room = self._task.context - used - self._answer_tokens

    def _no_room(self) -> Notice | None:
        """Why there is no room for more thought and then the answer; None where there is."""
        if self._room < LEAST_STEP:
            return Notice("context", "The context is nearly full.")
        return None if self._task.may_think else NEARLY_SPENT

    def _judged(self) -> Iterator[Event]:
        """What is to be said of a reply that came to nothing, or ended where its tokens did."""
        if self._end in CAUSES:
            self._failures, self._tries = self._failures + 1, self._tries + 1
            yield self._failed(CAUSES[self._end])
        elif self._end == "full" and self._answer is not None:
            self._leave_open()
        elif self._end == "full" and not self._task.may_think:
            yield NEARLY_SPENT
        elif self._end == "full" and self._task.model.max_model_len:
            yield Notice("context", "The context is nearly full.")

    def _leave_open(self) -> None:
        """An answer that used up the thought's tokens goes on with those that are kept for it."""
        if self._goes_on and self._steps and self._task.left >= LEAST_ANSWER:
            self._begun, self._answer = self._answer or "", None

    def _may_fail(self) -> bool:
        """Whether another reply is asked for after one that came to nothing."""
        return self._failures < (self._settings.attempts if self._end == "empty" else OFTEN)

    def _failed(self, detail: str) -> Event:
        if self._may_fail():
            return Retry(self._number, self._tries, self._end, detail)
        owed, self._owed = self._owed, (0.0, 0)
        code = "unreadable" if self._end == "empty" else "repeat"
        return Notice(code, "The model repeats itself." if code == "repeat" else detail, *owed)

    # -- one reply

    async def _reply(self, lead: Lead) -> AsyncGenerator[Event, None]:
        """One streamed reply, cut into steps; `_end` says afterwards why it ended."""

        def request() -> Request:
            self._writer.begin(-self._owed[1], self._owed[0])
            return self._request()

        self._lead = lead
        self._fresh()
        items = self._task.read_cured(self._reading, self._number, request, self._cure)
        async with aclosing(items):
            async for item in items:
                if isinstance(item, Piece):
                    for event in self._taken(item):
                        yield event
                    if self._end:
                        break
                else:
                    yield replace(item, number=self._number) if isinstance(item, Retry) else item
                    await self._measure()
                    self._begin()
        self._remember()
        for event in self._ended():
            yield event
        self._owed = _sum(self._dropped, self._writer.cost(self._reading.tokens))

    def _request(self) -> Request:
        led, transcript, attempt = self._is_led, self._transcript, self._lead.attempt
        most = self._settings.max_steps * self._step_tokens + self._answer_tokens
        if self._task.model.max_model_len is None:
            most = min(most, UNTOLD)
        return Request(
            self._task.model,
            transcript.going_on(self._lead.heading) if led else transcript.asking(self._lead.words),
            max(1, min(most, self._room, self._task.left_to_think)),
            max(self._settings.temperature, warmer(attempt)),
            self._task.seed(self._failures, self._number),
            think=False,
            go_on=led,
        )

    def _cure(self, error: RequestError) -> Notice | None:
        """A server that cannot go on is told to by our words; what is too long is shortened."""
        if isinstance(error, Refused) and self._is_led:
            self._goes_on, self._is_refused = False, True
            return Notice("no_going_on", "The server does not go on from a message.")
        return self._transcript.forget() if isinstance(error, TooLong) else None

    def _remember(self) -> None:
        """What has worked in the place of going on, works for the next chain too."""
        if self._is_refused:
            self._task.server.goes_on = False

    def _taken(self, piece: Piece) -> Iterator[Event]:
        for cut in self._splitter.feed(piece.text):
            yield from self._written(cut)
            if self._end:
                return
        if self._reading.finish_reason is None:
            yield from self._bounded()

    def _written(self, cut: Cut | Conclusion) -> Iterator[Event]:
        if isinstance(cut, str) and self._answer is not None:
            yield from self._say(cut)
        elif isinstance(cut, str):
            yield from self._take(cut)
        else:
            final = isinstance(cut, Conclusion) and not self._is_early(self._number)
            yield from self._close(final=final or self._number >= self._most)
            if not self._end:
                yield from self._opened(cut)

    def _opened(self, cut: Opening | Conclusion) -> Iterator[Event]:
        if isinstance(cut, Opening):
            if len(self._steps) >= self._most:
                self._end = "steps"
                return
            last = self._steps[-1].title if self._steps else ""
            title = cut.title if is_title(cut.title, last) else ""  # else the step's first words
            yield from self._take(replace(cut, title=title))
        elif self._is_early(len(self._steps)):  # an answer to be checked is a step like others
            self._hasty = True
            yield from self._take(Opening("continue", raw="" if cut.told else cut.raw))
            yield from self._take(cut.raw) if cut.told else ()
        elif self._apart:
            self._end = "told"
        else:
            self._answer = ""
            yield from self._say(f"{cut.told}\n")

    @property
    def _most(self) -> int:
        """The number of the last step that there may be; one that a reader asks for may be more."""
        asked = self._task.asked_of(len(self._task.steps) + 1)
        more = len(self._task.steps) + 1 if asked in ("again", "doubt") else 0
        return max(self._settings.max_steps, more)

    def _take(self, cut: Cut) -> Iterator[Event]:
        first = None if self._writer.steps else self._reading.first_token
        yield from self._writer.take(cut, self._reading.tokens, first)

    def _say(self, text: str) -> Iterator[Event]:
        """A model may write a heading of its own under the one that announces the answer."""
        shown = without_heading(self._answer or "", whole=False)
        self._answer = f"{self._answer}{text if self._answer else text.lstrip()}"
        if news := without_heading(self._answer, whole=False)[len(shown) :]:
            yield Delta(self._number, "answer", news)

    def _bounded(self) -> Iterator[Event]:
        """Ends the reply where a step, or the answer, has more tokens than it may."""
        if self._answer is not None:
            if self._spent(self._answer) > self._answer_tokens:
                self._end = "long"
        elif self._spent(self._writer.text) > self._step_tokens:
            yield from self._close(cut=True)
            self._end = self._end or "long"

    def _spent(self, text: str) -> int:
        if self._reading.tokens:
            return self._reading.tokens - self._counted
        return len(text.encode()) // BYTES_PER_TOKEN

    def _ended(self) -> Iterator[Event]:
        """What was held back, and why the reply has ended where that is not known yet."""
        for cut in () if self._end else self._splitter.end():
            yield from self._written(cut)
        if self._end:
            return
        reading, thinks = self._reading, self._answer is None
        if thinks and reading.finish_reason == "repetition":
            self._end = "loop"
            return
        if thinks:
            final = not reading.cut and not self._is_early(self._number)
            yield from self._close(reading.cut, final)
        if thinks and not self._steps and not self._end:
            self._answer, thinks = reading.refusal or None, not reading.refusal
        empty = thinks and not self._steps and not reading.cut
        self._end = self._end or ("empty" if empty else "full" if reading.cut else "stop")

    def _close(self, cut: bool = False, final: bool = False) -> Iterator[Step]:
        """The open step, finished; one that repeats another ends the reply and is none."""
        for step in self._writer.close(self._reading.tokens, cut):
            self._counted = self._reading.tokens
            if self._is_repeated(step):
                self._end, self._dropped = "repeat", (step.seconds, step.tokens)
            else:
                yield self._kept(step, final)

    def _is_repeated(self, step: Step) -> bool:
        steer = self._task.steer if self._task.asked_of(step.number) == "again" else None
        earlier = [one.content for one in self._steps]
        again = repeats(step.content, [*earlier, *([steer.instead_of] if steer else [])])
        if again == 0 and self._is_led and not self._writer.steps[:-1]:
            self._goes_on = False  # what begins its message anew does not go on from it
        return again is not None

    def _kept(self, step: Step, final: bool) -> Step:
        doubts = self._task.asked_of(step.number) == "doubt"
        step = replace(
            step,
            action="final_answer" if final else step.action,
            attempts=self._tries + 1,
            asked="doubt" if doubts else "",
        )
        self._steps.append(step)
        self._tries, self._owed = 0, (0.0, 0)
        self._lead = Lead(self._task.prompt("go_on"), attempt=self._lead.attempt)
        return step

    # -- the answer

    def _answered(self, content: str) -> Answer:
        cut = self._end in ("long", "full")
        return Answer(content, *self._owed, cut=cut)

    async def _conclude(self) -> AsyncGenerator[Event, None]:
        """The model is led to its answer: it goes on under a heading, or is asked for it."""
        async for notice in self._shortened():
            yield notice
        words = await self._task.in_form(self._task.prompt("answer"))
        tokens = max(1, min(self._answer_tokens, self._answer_tokens + self._room))

        def ask() -> Request:
            led = self._is_led and not self._apart
            heading = (ANSWER[self._task.language], self._begun)
            turns = self._transcript.going_on(*heading) if led else self._transcript.asking(words)
            return Request(self._task.model, turns, tokens, think=False, go_on=led)

        answering = Answering(self._task, self._number, ask, self._read_answer, self._cure)
        shown = len(self._begun)
        async with aclosing(answering.events()) as events:
            async for event in events:
                if isinstance(event, Delta):  # what was shown of the answer is not shown again
                    event, shown = _from(event, shown), max(0, shown - len(event.text))
                elif isinstance(event, Retry):
                    shown = 0
                elif isinstance(event, Answer):
                    seconds, cost = _sum(self._owed, (event.seconds, event.tokens))
                    event = replace(event, seconds=seconds, tokens=cost)
                yield event
        self._remember()

    def _read_answer(self, text: str, whole: bool) -> str:
        if self._begun and self._is_led:
            return f"{self._begun}{text}"
        return without_heading(text, whole)

    async def _shortened(self) -> AsyncGenerator[Notice, None]:
        """Makes room for the answer, as far as that can be done."""
        await self._measure()
        while self._answer_tokens + self._room < LEAST:
            if (notice := self._transcript.forget()) is None:
                raise TooLong("The question leaves no room in the context.", "Ask a shorter one.")
            yield notice
            await self._measure()


def _from(delta: Delta, start: int) -> Delta:
    return replace(delta, text=delta.text[start:])


def _sum(one: tuple[float, int], other: tuple[float, int]) -> tuple[float, int]:
    return one[0] + other[0], one[1] + other[1]
