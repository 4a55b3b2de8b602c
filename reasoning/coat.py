"""Satori's chain of action and thought: one completion, cut at its meta-action tokens.

Prompt, sampling and stop tokens are those of the model card of
Satori-reasoning/Satori-7B-Round2 (paper: arXiv 2502.02508): no system turn,
temperature 0 (but for several chains, and for a step that must be another one). The
answer is the last balanced box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reasoning.attempt import Attempt
from reasoning.boxes import find_boxes, same_answer
from reasoning.budget import NEARLY_SPENT
from reasoning.endpoint import Piece, Request
from reasoning.errors import BudgetSpent, EmptyAnswer, TooLong
from reasoning.events import Answer, Correction, Emit, Event, Notice, Retry, Step
from reasoning.splitting import END_TOKENS, META_ACTIONS, CoatSplitter, Cut
from reasoning.step_builder import StepBuilder
from reasoning.task import MARGIN, Task, tokens_at_most
from reasoning.way import ALL_STEERS, Way

TOKENS: dict[str, str] = {kind: token for token, kind in META_ACTIONS.items()}
DEFAULT_CONTEXT = 4096  # Qwen2.5-Math's; the card says no more
MAX_TOKENS = 4096  # the card's
TURN_END = "<|im_end|>\n"
ROOM_TO_CONCLUDE = 96  # tokens for a box
ANOTHER = 0.7  # the temperature of a chain in which a step must be another one
CONCLUSION = "Therefore, the final answer is: $$ \\boxed{"


async def coat(task: Task, emit: Emit) -> Answer:
    """A Satori chain, and its answer. Raises StepwiseError.

    Given finished steps, the completion goes on after them; given ones that end
    where the context ended, or a reader who wants no more, it is asked for the box at once.
    """
    chain = Coat(task, emit)
    await emit(*await chain.recall())
    for step in task.inquiry.steps:
        await emit(*chain.keep(step))
    if not chain.may_think():
        await emit(NEARLY_SPENT)
    at_once = chain.concludes() or not chain.may_think()
    return await (chain.conclude() if at_once else chain.think())


class Coat:
    """One chain: the steps so far, and how the transcript reads as a prompt."""

    def __init__(self, task: Task, emit: Emit) -> None:
        self._task, self._emit = task, emit
        self._context = task.model.max_model_len or DEFAULT_CONTEXT
        self._steps: list[Step] = []
        number = len(task.inquiry.steps) + 1
        self._attempt = Attempt(task.clock, number)
        self._builder = StepBuilder(number, task.clock, task.inquiry.language)
        self._splitter = CoatSplitter()
        self._hidden_said = bool(task.inquiry.steps)
        self._earlier = ""  # the conversation before the question, as text

    async def recall(self) -> tuple[Notice, ...]:
        """The conversation so far becomes text, in the form the model was trained with."""
        inquiry = self._task.inquiry
        needed = tokens_at_most(inquiry.instructions) + tokens_at_most(inquiry.question)
        needed += self._context // 4
        turns, notices = await self._task.earlier(needed, self._context)
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            self._earlier += self._asked(question["content"]) + answer["content"] + TURN_END
        return notices

    def concludes(self) -> bool:
        how = self._task.inquiry.asked_of(self._builder.number)
        cut = bool(self._task.inquiry.steps) and self._task.inquiry.steps[-1].cut
        return how == "answer" or (cut and how not in ("again", "doubt"))

    def may_think(self) -> bool:
        """Whether the budget holds another step beside the box."""
        return self._left() >= self._task.budget.least_step

    def _left(self) -> int:
        budget = self._task.budget
        return budget.left - min(ROOM_TO_CONCLUDE, budget.answer_share)

    async def think(self) -> Answer:
        """The completion, and the answer that it names; one that ends early is asked for a box."""
        spent = False
        try:
            await self._transcript()
        except BudgetSpent:  # on tries that broke off; the box's share is left
            spent = True
        cut = self._attempt.cut
        for step in self._builder.close(self._attempt.tokens, cut):
            await self._emit(*self._finished(step))
        spent = spent or (cut and not self.may_think())
        if not self._steps and not spent:
            raise EmptyAnswer("The model wrote nothing.", "Ask again, or serve another model.")
        if spent:
            await self._emit(NEARLY_SPENT)
            if not any(find_boxes(step.content) for step in self._steps):
                return await self.conclude()
        return await self._answer(cut)

    async def _transcript(self) -> None:
        """The completion, read into steps; a try that breaks off goes on after the last one."""
        self._most = await self._begin()

        def request() -> Request:
            return replace(self._most, max_tokens=min(self._most.max_tokens, self._left()))

        await self._emit(*self._written(self._splitter.feed(self._opening())))
        await self._task.read(self._attempt, request, self._take, self._again)
        await self._emit(*self._written(self._splitter.end()))

    async def _take(self, piece: Piece) -> None:
        await self._emit(*self._written(self._splitter.feed(piece.text)))
        await self._look_for_tokens()

    async def _again(self, why: Retry | Notice) -> None:
        await self._emit(why)
        self._most = await self._begin()
        await self._emit(*self._written(self._splitter.feed(self._opening())))
        await self._look_for_tokens()

    async def _look_for_tokens(self) -> None:
        if self._splitter.hidden and not self._hidden_said:
            self._hidden_said = True
            await self._emit(Notice("no_tokens", "The server hides the model's step tokens."))

    async def _begin(self) -> Request:
        """A try begins: what was read of an earlier one is void, the finished steps stay."""
        self._splitter = CoatSplitter()
        self._builder.begin()
        return await self._request(self._opening())

    def _written(self, cuts: list[Cut]) -> Iterator[Event]:
        for cut in cuts:
            first = self._attempt.first_token if not self._builder.steps else None
            for event in self._builder.take(cut, self._attempt.tokens, first):
                if isinstance(event, Step):
                    yield from self._finished(event)
                else:
                    yield event
        self._attempt.turn_to(self._builder.number)

    def _finished(self, step: Step) -> Iterator[Event]:
        if self._task.inquiry.asked_of(step.number) == "doubt":
            step = replace(step, asked="doubt")
        yield step
        yield from self.keep(step)

    def _opening(self) -> str:
        """The token that a step asked to doubt begins with; the model chooses the others."""
        how = self._task.inquiry.asked_of(self._builder.number)
        return TOKENS["reflect"] if how == "doubt" else ""

    def keep(self, step: Step) -> Iterator[Correction]:
        """The step is the chain's; what it overturns of an earlier answer is said."""
        earlier = [box for done in self._steps for box in find_boxes(done.content)]
        self._steps.append(step)
        for box in find_boxes(step.content):
            if earlier and not same_answer(earlier[-1], box):
                yield Correction(step.number, earlier[-1], box)
            earlier.append(box)

    async def _request(self, ending: str = "") -> Request:
        task, number = self._task, self._builder.number
        question = "\n\n".join(filter(None, (task.inquiry.instructions, task.inquiry.question)))
        asked = self._asked(await task.plain(question))
        text = self._earlier + asked + await self._so_far() + ending
        room = self._context - await task.tokens(text) - MARGIN
        if room < ROOM_TO_CONCLUDE:
            raise self._too_long()
        return Request(
            task.model,
            (),
            min(room, MAX_TOKENS),
            self._warmth(),
            task.inquiry.seed(number=number),
            prompt=text,
            stop=END_TOKENS,
            special_tokens=True,
        )

    def _too_long(self) -> TooLong:
        who, remedy = "The question leaves", "Ask a shorter one."
        if self._steps:
            who, remedy = "The steps leave", "Ask for the answer now, or a shorter question."
        room = f"{who} no room in the model's context of {self._context:,} tokens."
        return TooLong(room, remedy)

    def _asked(self, question: str) -> str:
        return self._task.prompt("satori", question=question) + "\n"

    def _warmth(self) -> float:
        """Greedy, as the card has it, unless several chains or another step are wanted."""
        settings = self._task.inquiry.settings
        if self._task.inquiry.asked_of(self._builder.number) == "again":
            return max(settings.temperature, ANOTHER)
        return 0.0 if settings.seed is None else settings.temperature

    async def _so_far(self) -> str:
        texts = [TOKENS[_kind(step)] + await self._task.plain(step.raw) for step in self._steps]
        return "".join(texts)

    # -- the answer

    async def _answer(self, cut: bool) -> Answer:
        """The last box with the step that holds it; without one, the last step."""
        tokens = self._attempt.tokens - sum(step.tokens for step in self._builder.steps)
        for step in reversed(self._steps):
            if found := find_boxes(step.content):
                content = self._until_stop(f"{_boxed(found[-1])}\n\n{step.content}")
                return Answer(content, 0.0, max(0, tokens), cut=cut)
        why = "The model named no answer in a box; this is its last step."
        await self._emit(Notice("no_box", why))
        last = self._until_stop(self._steps[-1].content)
        return Answer(last, 0.0, max(0, tokens), cut=cut)

    def _until_stop(self, content: str) -> str:
        """The server is not asked to stop there: a step may say the same."""
        for stop in self._task.inquiry.answer_form.stop:
            content = content.split(stop, 1)[0]
        return content.rstrip()

    async def conclude(self) -> Answer:
        """The box alone, after as much of the chain as leaves room for it."""
        request = await self._conclusion()
        attempt = Attempt(self._task.clock, self._builder.number)

        async def take(piece: Piece) -> None:
            """Nothing is shown of it before it is whole."""

        await self._task.read(attempt, lambda: request, take, self._emit)
        cost = (attempt.seconds, attempt.tokens, attempt.first_token)
        if found := find_boxes("\\boxed{" + attempt.text):
            return Answer(self._until_stop(_boxed(found[0])), *cost)
        if attempt.cut and attempt.text.strip():
            return Answer(self._until_stop(attempt.text.strip()), *cost, cut=True)
        raise EmptyAnswer("The model named no answer.", "Ask again, perhaps in other words.")

    async def _conclusion(self) -> Request:
        while True:
            try:
                request = await self._request(TOKENS["continue"] + CONCLUSION)
            except TooLong:
                if len(self._steps) < 2:
                    raise
                del self._steps[len(self._steps) // 2]
            else:
                return replace(request, max_tokens=min(request.max_tokens, ROOM_TO_CONCLUDE))


def _boxed(answer: str) -> str:
    return f"$$\\boxed{{{answer}}}$$"


def _kind(step: Step) -> str:
    return step.action if step.action in TOKENS else "continue"


COAT = Way(
    coat,
    prompts=("satori",),
    steers=ALL_STEERS,
    settings=frozenset({"seed", "top_p", "budget"}),  # with a seed the temperature too
    names_actions=True,
    ends=lambda last: last.cut,
    answers_json=False,
)
