"""What came of one question in one arm, and what went wrong on the way. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evals.copies import copied
from evals.tutorial_loop import TutorialChain
from reasoning.events import Answer, Event, Failed, Notice, Retry, Step, Trace
from reasoning.prompts import prompt_text
from reasoning.think import find_way
from reasoning.traces import trace_to_json
from reasoning.voting import ends_open, final_answer, numbers, spelled_numbers
from reasoning.way import Way

Failure = Literal["unusable", "repeat", "copied", "contradicted", "cut", "cap", "no_answer"]
FAILURES: dict[Failure, str] = {  # with the titles that a report gives them
    "unusable": "unusable reply",  # whole, and no step
    "repeat": "repeat",  # a step that says again what an earlier one said; a reply that loops
    "copied": "copied",  # a step that says what its prompts say, and the question does not
    "contradicted": "contradicted",  # an answer whose number is none of those in the last step
    "cut": "cut",  # a reply that ends where its tokens ended
    "cap": "cap reached",  # no step concluded: the cap, the budget or the context ended it
    "no_answer": "no answer",  # nothing came that could be marked
}
CAUSES: dict[str, Failure] = {  # of the core's retries; a server's own failures are not among them
    "cut": "cut",
    "loop": "repeat",
    "repeat": "repeat",
    "empty": "unusable",
    "not_json": "unusable",
    "no_content": "unusable",
}
NOTICES: dict[str, Failure] = {
    "unreadable": "unusable",
    "repeat": "repeat",
    "budget": "cap",
    "context": "cap",
}
MODELS_FAULT = ("empty", "budget", "too_long")  # codes of a Failed that asking again cannot cure


class NotAsked(Exception):
    """The server gave no reply for a reason of its own: the question is open, not failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An arm's answer to a question and what it cost.

    `tokens` are completion tokens, failed attempts included; `seconds` is the wall time
    from the question to the whole answer. `left` counts the failures that stayed in the
    chain, `mended` those that another attempt cured, by kind.
    """

    content: str
    tokens: int
    seconds: float
    steps: int = 0
    left: dict[str, int] = field(default_factory=dict)
    mended: dict[str, int] = field(default_factory=dict)
    traces: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Marked:
    """One arm's answer to one question. `left` and `mended` count failures by kind."""

    arm: str
    task: str
    number: int
    correct: bool
    answer: str
    tokens: int
    seconds: float
    steps: int
    left: dict[str, int]
    mended: dict[str, int]


def of_trace(trace: Trace, seconds: float) -> Outcome:
    """What came of a chain of ours. Raises NotAsked where the server was at fault."""
    end = trace.end
    if isinstance(end, Failed) and end.code not in MODELS_FAULT:
        raise NotAsked(f"{end.message} {end.remedy}".strip())
    content = trace.answer.content if trace.answer else ""
    failures, told = _failures(trace), (trace_to_json(trace),)
    left, mended = dict(+failures.left), dict(failures.mended)
    return Outcome(content, trace.tokens, seconds, len(trace.steps), left, mended, told)


def of_tutorial(chain: TutorialChain, seconds: float) -> Outcome:
    """What came of the tutorial's loop, which mends nothing."""
    counts = {
        "unusable": chain.unusable,
        "repeat": chain.repeats,
        "copied": chain.copied,
        "contradicted": int(contradicts(chain.answer, chain.steps)),
        "cut": chain.cut,
        "cap": int(chain.capped),
        "no_answer": int(not chain.answer.strip()),
    }
    left = {kind: count for kind, count in counts.items() if count}
    told = ({"steps": chain.steps, "answer": chain.answer},)
    return Outcome(chain.answer, chain.tokens, seconds, len(chain.steps), left, {}, told)


def of_reply(content: str, tokens: int, seconds: float, cut: bool) -> Outcome:
    """What came of a single reply of which nothing more is known."""
    counts = {"cut": int(cut), "no_answer": int(not content.strip())}
    return Outcome(content, tokens, seconds, left={k: n for k, n in counts.items() if n})


def join_outcomes(chosen: str, outcomes: list[Outcome], seconds: float) -> Outcome:
    """Several chains as one outcome, which answers with `chosen`."""
    left: Counter[str] = sum((Counter(one.left) for one in outcomes), Counter())
    mended: Counter[str] = sum((Counter(one.mended) for one in outcomes), Counter())
    return Outcome(
        chosen,
        sum(one.tokens for one in outcomes),
        seconds,
        sum(one.steps for one in outcomes),
        dict(left),
        dict(mended),
        tuple(trace for one in outcomes for trace in one.traces),
    )


@dataclass(slots=True)
class _Failures:
    """The failures of a chain so far; `open` are those of the attempts at what is due now."""

    left: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    open: list[Failure] = field(default_factory=list)

    def note(self, event: Event) -> None:
        match event:
            case Retry(cause=cause) if cause in CAUSES:
                self.open.append(CAUSES[cause])
            case Step(cut=True):
                self._give_up(self.open[-1] if self.open else "cut")
            case Notice(code=code) if code in NOTICES:
                self._give_up(NOTICES[code])
            case Step() | Answer():
                self.mended.update(self.open)
                self.open.clear()
                self.left["cut"] += isinstance(event, Answer) and event.cut
            case Failed():
                self._give_up("no_answer")

    def _give_up(self, kind: Failure) -> None:
        self.left[kind] += 1
        self.open.clear()


def _failures(trace: Trace) -> _Failures:
    failures = _Failures()
    for event in trace.events:
        failures.note(event)
    failures.left["cap"] += _capped(trace)
    failures.left["copied"] += _copied(trace)
    answer = trace.answer.content if trace.answer else ""
    failures.left["contradicted"] += contradicts(answer, [step.content for step in trace.steps])
    return failures


def contradicts(answer: str, steps: Sequence[str]) -> bool:
    """Whether the answer is a number, and the chain's own result another.

    Its result is among the numbers from the last step on that has any. Where that ends in a
    calculation without a result, the chain has none: the answer only finishes it.
    """
    told = final_answer(answer)
    last = max((at for at, step in enumerate(steps) if numbers(step)), default=len(steps))
    end = "\n".join(steps[last:])
    found = numbers(end) | spelled_numbers(end)
    return bool(found) and not ends_open(steps[last]) and told in numbers(told) - found


def _way_of(trace: Trace) -> Way | None:
    """None where it has not begun, or in a way that nobody knows."""
    return find_way(trace.started.way) if trace.started else None


def _copied(trace: Trace) -> int:
    """How many steps are copied from what the chain was told before its answer was asked for."""
    started, way = trace.started, _way_of(trace)
    if started is None or way is None:
        return 0
    names = [name for name in way.prompts if name != "answer"]
    told = [started.prompts.get(name) or prompt_text(started.language, name) for name in names]
    return sum(copied(step.title, step.content, told, started.question) for step in trace.steps)


def _capped(trace: Trace) -> bool:
    """Whether the chain had to conclude at its last step; not every way heeds a cap."""
    started, way = trace.started, _way_of(trace)
    if started is None or way is None or "max_steps" not in way.settings:
        return False
    return len(trace.steps) >= started.settings.max_steps
