"""Chain of thought: one message in the model's own voice.

The model is asked once, without an example (Kojima et al. 2022, arXiv 2205.11916; an example
is copied by small models), and its message is cut into steps as it comes (continuation.py), at
the structure that it has: headings that were asked for cost answers (docs/evals.md).
The loop steps in only where it must, by letting the model go on from the message as it
stands: a step that repeats another is taken out, and a chain that has no room left is led to
its answer. So a chain is one request as a rule. It is not made to check an early answer: asked
to, a model repeats itself (docs/evals.md), as others found (arXiv 2310.01798).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from reasoning.answering import Answering
from reasoning.attempt import Attempt
from reasoning.budget import LEAST_ANSWER, LEAST_STEP, NEARLY_SPENT
from reasoning.conclusions import find_answer, strip_heading
from reasoning.continuation import Continuation, Cost, End, add_costs
from reasoning.direct import LEAST
from reasoning.endpoint import Piece, Request
from reasoning.errors import RequestError, TooLong
from reasoning.events import Answer, Emit, Event, Notice, Retry, Step
from reasoning.inquiry import AnswerForm
from reasoning.prompts import ANSWER, DOUBT, format_heading
from reasoning.repeats import find_repeat
from reasoning.step_builder import StepBuilder
from reasoning.task import MARGIN, Task, raised_temperature, within_bounds
from reasoning.transcript import Transcript, Voice
from reasoning.way import ALL_SETTINGS, ALL_STEERS, Way, is_concluding

UNTOLD = 2048  # tokens to ask for where a server tells no context: it may have 4,096
OFTEN = 2  # replies that repeat; after as many the chain is led to its answer

CAUSES: dict[End, str] = {  # of a reply that came to nothing
    "repeat": "The reply repeats an earlier step.",
    "loop": "The reply went round in circles.",
    "empty": "The reply is empty.",
}


@dataclass(frozen=True, slots=True)
class Lead:
    """How a model is made to go on: under `heading`, or where a server cannot, by our `words`.

    `tried` is the number of replies that came to nothing: the more, the warmer.
    """

    words: str = ""
    heading: str = ""
    tried: int = 0


async def cot(task: Task, emit: Emit) -> Answer:
    """A chain of thought in one voice, and its answer. Raises StepwiseError."""
    return await ChainOfThought(task, emit).answered()


def step_text(step: Step) -> str:
    """The model's own text; what a reader changed of it, under its heading."""
    if step.edited:
        return f"{format_heading(step.title)}{step.content}\n\n"
    return step.raw or step.content


class ChainOfThought:
    """One chain; given finished steps, it goes on from the message that they make."""

    def __init__(self, task: Task, emit: Emit) -> None:
        self._task, self._settings, self._emit = task, task.inquiry.settings, emit
        self.steps: list[Step] = list(task.inquiry.steps)
        self._transcript = Transcript(task, Voice("cot", step_text))
        # the steps must be free of what the answer is held to, so they are two requests
        self.apart = task.inquiry.answer_form != AnswerForm()
        self.step_tokens = min(self._settings.step_tokens, task.context // 8)
        self.answer_tokens = min(self._settings.answer_tokens, task.context // 4)
        self._room = 0  # tokens that the context holds for thought, beside the answer's
        self._failures = self._tries = 0  # replies that came to nothing: in all, at this step
        self._owed: Cost = (0.0, 0)  # what no event has told yet
        self._end: End = ""  # of the last reply
        self._answer: str | None = None  # as far as it told one
        self._begun = ""  # of an answer whose tokens ended before it did
        self._lead = Lead()
        self._attempt = Attempt(task.clock, self.number)

    @property
    def number(self) -> int:
        """The number of the step, or the answer, that is written now."""
        return len(self.steps) + 1

    @property
    def most(self) -> int:
        """The number of the last step that there may be; one that a reader asks for may be more."""
        asked = self._task.inquiry.asked_of(len(self._task.inquiry.steps) + 1)
        more = len(self._task.inquiry.steps) + 1 if asked in ("again", "doubt") else 0
        return max(self._settings.max_steps, more)

    async def answered(self) -> Answer:
        """The answer; what happens from the next step on is emitted. Raises StepwiseError."""
        await self._emit(*await self._transcript.open(self._task.context // 4))
        await self._thought()
        if told := strip_heading(self._answer or "", whole=True).strip():
            return Answer(told, *self._owed, cut=self._end in ("long", "full"))
        return await self._conclude()

    # -- the thought

    async def _thought(self) -> None:
        """Reply after reply, mostly one, until the answer is there or must be asked for."""
        lead = self._first()
        while lead is not None:
            await self._measure()
            if notice := self._no_room():
                await self._emit(notice)
                return
            if await within_bounds(self._replied(lead), self.steps, self._emit) is None:
                return
            await self._emit(*self._judged())
            lead = self._next()

    def _first(self) -> Lead | None:
        """What the chain begins with, or goes on with after finished steps."""
        number, how = self.number, self._task.inquiry.asked_of(self.number)
        if how == "doubt":
            words = self._task.prompt("doubt", number=number, before=number - 1)
            return Lead(words, DOUBT[self._task.inquiry.language].format(number - 1))
        if not self.steps:
            return Lead(tried=int(how == "again"))
        done = is_concluding(self.steps[-1]) or number > self._settings.max_steps or how == "answer"
        if done and how != "again":
            return None
        return Lead(self._task.prompt("go_on"), tried=int(how == "again"))

    def _next(self) -> Lead | None:
        """What follows a reply that has ended; None where the answer does."""
        if self._end in CAUSES and self._may_fail():
            words = self._lead.words or (self._task.prompt("go_on") if self.steps else "")
            return Lead(words, self._lead.heading, self._failures)
        if self._end != "stop" or self._answer is not None:
            return None
        if not self.apart:
            self._answer = find_answer(self.steps[-1].content)
        return None

    async def _measure(self) -> None:
        await self._transcript.add(self.steps)
        used = await self._transcript.used() + 2 * MARGIN
        self._room = self._task.context - used - self.answer_tokens

    def _no_room(self) -> Notice | None:
        """Why there is no room for more thought and then the answer; None where there is."""
        if self._room < LEAST_STEP:
            return Notice("context", "The context is nearly full.")
        return None if self._task.budget.may_think else NEARLY_SPENT

    def _judged(self) -> Iterator[Event]:
        """What is to be said of a reply that came to nothing, or ended where its tokens did."""
        if self._end in CAUSES:
            self._failures, self._tries = self._failures + 1, self._tries + 1
            yield self._failed(CAUSES[self._end])
        elif self._end == "full" and self._answer is not None:
            self._leave_open()
        elif self._end == "full" and not self._task.budget.may_think:
            yield NEARLY_SPENT
        elif self._end == "full" and self._task.model.max_model_len:
            yield Notice("context", "The context is nearly full.")

    def _leave_open(self) -> None:
        """An answer that used up the thought's tokens goes on with those that are kept for it."""
        budget = self._task.budget
        needed = min(LEAST_ANSWER, budget.answer_share)
        if self._task.fallback.goes_on and self.steps and budget.left >= needed:
            self._begun, self._answer = self._answer or "", None

    def _may_fail(self) -> bool:
        """Whether another reply is asked for after one that came to nothing."""
        return self._failures < (self._settings.attempts if self._end == "empty" else OFTEN)

    def _failed(self, detail: str) -> Event:
        if self._may_fail():
            return self._attempt.fail(self._end, detail)
        owed, self._owed = self._owed, (0.0, 0)
        code = "unreadable" if self._end == "empty" else "repeat"
        return Notice(code, "The model repeats itself." if code == "repeat" else detail, *owed)

    # -- one reply

    async def _replied(self, lead: Lead) -> End:
        """One streamed reply, cut into steps: why it has ended."""
        self._lead, self._end, self._answer = lead, "", None
        self._attempt = Attempt(self._task.clock, self.number, self._attempt.failed)
        self._begin()
        await self._task.read(self._attempt, self._request, self._take, self._again, self._cure)
        await self._emit(*self._reply.ended())
        self._owed = self._reply.cost
        self._end, self._answer = self._reply.end, self._reply.answer
        return self._end

    def _begin(self) -> None:
        """A try begins: nothing of an earlier one counts but its finished steps."""
        builder = StepBuilder(self.number, self._task.clock, self._task.inquiry.language)
        heading = self._lead.heading if self._transcript.is_led else ""
        self._reply = Continuation(self, self._attempt, builder, heading)

    async def _take(self, piece: Piece) -> bool:
        await self._emit(*self._reply.taken(piece))
        return bool(self._reply.end)

    async def _again(self, why: Retry | Notice) -> None:
        await self._emit(why)
        await self._measure()
        self._begin()

    def _request(self) -> Request:
        self._reply.builder.begin(-self._owed[1], self._owed[0])
        led, transcript, tried = self._transcript.is_led, self._transcript, self._lead.tried
        most = self._settings.max_steps * self.step_tokens + self.answer_tokens
        if self._task.model.max_model_len is None:
            most = min(most, UNTOLD)
        return Request(
            self._task.model,
            transcript.going_on(self._lead.heading) if led else transcript.asking(self._lead.words),
            max(1, min(most, self._room, self._task.budget.left_to_think)),
            max(self._settings.temperature, raised_temperature(tried)),
            self._task.inquiry.seed(self._failures, self.number),
            think=False,
            go_on=led,
        )

    def _cure(self, error: RequestError) -> Notice | None:
        """What is too long is shortened."""
        return self._transcript.forget() if isinstance(error, TooLong) else None

    def is_repeated(self, step: Step) -> bool:
        """Whether an earlier step says the same, or the one that it is to replace."""
        earlier = [one.content for one in self.steps]
        again = find_repeat(step.content, [*earlier, *self._task.inquiry.instead_of(step.number)])
        if again == 0 and self._transcript.is_led and not self._reply.builder.steps[:-1]:
            self._task.fallback.began_anew()
        return again is not None

    def keep(self, step: Step, final: bool) -> Step:
        """The step is the chain's."""
        doubts = self._task.inquiry.asked_of(step.number) == "doubt"
        step = replace(
            step,
            action="final_answer" if final else step.action,
            attempts=self._tries + 1,
            asked="doubt" if doubts else "",
        )
        self.steps.append(step)
        self._attempt.turn_to(self.number)
        self._tries, self._owed = 0, (0.0, 0)
        self._lead = Lead(self._task.prompt("go_on"), tried=self._lead.tried)
        return step

    # -- the answer

    async def _conclude(self) -> Answer:
        """The model is led to its answer: it goes on under a heading, or is asked for it."""
        await self._shorten()
        words = await self._task.in_form(self._task.prompt("answer"))
        tokens = max(1, min(self.answer_tokens, self.answer_tokens + self._room))

        def ask() -> Request:
            led = self._transcript.is_led and not self.apart
            heading = (ANSWER[self._task.inquiry.language], self._begun)
            turns = self._transcript.going_on(*heading) if led else self._transcript.asking(words)
            return Request(self._task.model, turns, tokens, think=False, go_on=led)

        reads = (self._read_answer, self._cure, strip_heading(self._begun, whole=False))
        answer = await Answering(self._task, self.number, ask, *reads).answer(self._emit)
        seconds, cost = add_costs(self._owed, (answer.seconds, answer.tokens))
        return replace(answer, seconds=seconds, tokens=cost)

    def _read_answer(self, text: str, whole: bool) -> str:
        begun = self._begun if self._transcript.is_led else ""
        return strip_heading(f"{begun}{text}", whole)

    async def _shorten(self) -> None:
        """Makes room for the answer, as far as that can be done."""
        await self._measure()
        while self.answer_tokens + self._room < LEAST:
            if (notice := self._transcript.forget()) is None:
                raise TooLong("The question leaves no room in the context.", "Ask a shorter one.")
            await self._emit(notice)
            await self._measure()


COT = Way(
    cot,
    prompts=("cot", "go_on", "doubt", "answer"),
    steers=ALL_STEERS,
    settings=ALL_SETTINGS - {"min_steps"},
    ends=is_concluding,
)
