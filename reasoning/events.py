"""The values that flow from a model to a reader: what happened while it thought.

Every way of thinking yields these events, in this order:

    Started  (Queued* Delta* Retry* Notice* Step Correction?)*  Delta*  Answer
                                                         or  Failed
                                                         or  Stopped

and every reader (page, terminal, gateway, history) knows nothing but them.
They are pure values: they import nothing of ours, hold no connection and no
clock. Times are seconds; counts of tokens are the server's own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol, get_args

TRACE_VERSION = 1

Action = Literal["continue", "final_answer", "reflect", "explore"]
Part = Literal["action", "title", "content", "answer", "tentative"]
Steering = Literal["edit", "again", "doubt", "answer"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What bounds a chain. The defaults are the ones the page and terminal use."""

    max_steps: int = 25
    min_steps: int = 1  # more are forced by grammar, and mostly say again what was said
    step_tokens: int = 600  # twice what an 8 B model writes in a step; a cut costs a retry
    answer_tokens: int = 1500
    temperature: float = 0.2  # a little, so that a question asked again may go another way
    attempts: int = 3
    seed: int | None = None  # one of several chains has its own; None leaves it to the server
    top_p: float | None = None  # None leaves it to the server
    budget: int | None = None  # completion tokens of the whole chain, the answer's too
    step_seconds: float | None = None  # until the next step; None leaves these two to the
    chain_seconds: float | None = None  # environment (deadline.py), 0 is no deadline

    def __post_init__(self) -> None:
        """Raises ValueError, in one line, where a bound cannot hold."""
        if not 1 <= self.min_steps <= self.max_steps:
            got = f"{self.min_steps} and {self.max_steps}"
            raise ValueError(f"expected 1 <= min_steps <= max_steps, got {got}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"expected 0 < top_p <= 1, got {self.top_p}")
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"expected a budget of at least 1 token, got {self.budget}")
        for name in ("step_seconds", "chain_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 <= seconds < float("inf"):
                raise ValueError(f"expected 0 or more {name}, got {seconds}")


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier question of a conversation and its answer; `reasoning` where it is sent too."""

    question: str
    answer: str
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Steer:
    """What a reader asks of the chain after its finished steps.

    "edit": go on, the last of them was changed by the reader.
    "again": another step in the place of one that said `instead_of`.
    "doubt": the next step examines the last one again, by another method.
    "answer": no more steps, the answer.
    """

    how: Steering
    instead_of: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """A run began. `at` is wall-clock time, in seconds since the epoch.

    `history` are the earlier turns that the model was given, oldest first, `steer` what
    a reader asked for, `prompts` the prompts that he wrote in the place of ours, by name,
    `instructions` a caller's own system prompt, which stands behind ours.
    """

    question: str
    model: str
    way: str
    language: str
    at: float
    settings: Settings = field(default_factory=Settings)
    history: tuple[Turn, ...] = ()
    steer: Steer | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    instructions: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """More text of what is being written: append `text` to that part of step `number`.

    `part` is "answer" for the answer, with the number after the last step's, and
    "action" where a step's action is known before its text. "tentative" is text that may turn
    out to be that step's, the answer or what leads to either: the next event of another kind
    or part makes it void, and tells the text in its place. A run that ends without an answer
    leaves it as it is.
    """

    number: int
    part: Part
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step.

    `raw` is the model's own text, sent back to it to the letter. `cut` says that
    three attempts gave no whole step and this is what could be read. `seconds`
    is the model's time over all `attempts`, `first_token` the time to the first
    token of the attempt that counted; waiting between attempts is in neither.
    `edited` says that a reader changed the text; the figures are still the model's.
    `asked` is "doubt" for a step that was asked to examine the one before it.
    """

    number: int
    title: str
    content: str
    action: Action
    seconds: float
    tokens: int
    attempts: int = 1
    first_token: float | None = None
    cut: bool = False
    raw: str = ""
    edited: bool = False
    asked: Literal["", "doubt"] = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """Attempt number `attempt` at step `number` failed and another follows.

    What was streamed of it is void: a reader clears its draft. `cause` is a
    stable word ("cut", "repeat", "unreachable", ...), `detail` a sentence, `wait`
    the seconds waited before the next attempt (0 for a bad reply).
    """

    number: int
    attempt: int
    cause: str
    detail: str
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Queued:
    """The server is full, and the chain's request waits there; `place` counts from 1.

    0 says that its turn has come. It holds until the next event, and is no part of what is kept.
    """

    place: int

    @property
    def ordinal(self) -> str:
        """1st, 2nd, 3rd, 11th."""
        teen = self.place % 100 in (11, 12, 13)
        return f"{self.place}{'th' if teen else ENDINGS.get(self.place % 10, 'th')}"


ENDINGS = {1: "st", 2: "nd", 3: "rd"}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the reader should know that is no step: `code` is a stable word.

    `seconds` and `tokens` are what was spent on attempts that gave no step.

    "format": the server refused the schema; `detail` names the format used now.
    "history": the oldest turns of the conversation did not fit and were not sent.
    "context": the context is nearly full, the answer is asked for now.
    "budget": the chain's budget is nearly spent, the answer is asked for now.
    "repeat": the model repeats itself, the answer is asked for now.
    "unreadable": three attempts gave nothing readable, the answer is asked for now.
    "no_tokens": the server hides the model's step tokens; its words tell the steps.
    "no_box": the model named no answer in a box; its last step stands for one.
    "no_going_on": the server does not go on from a message of the model's, and is asked to.
    "no_thinking": the model showed no thinking of its own, only an answer.
    "damaged": so many of the run's events could not be read in the history, and are left out.
    """

    code: str
    detail: str
    seconds: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Correction:
    """In step `number` the model overturned an answer of its own: `earlier`, then `later`."""

    number: int
    earlier: str
    later: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer, in Markdown. `cut` says that it ends where its tokens ended."""

    content: str
    seconds: float
    tokens: int
    first_token: float | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The run ended without an answer; the finished steps stay.

    `code` is a stable word, `message` says what happened, `remedy` what to do.
    `seconds` is the model's time spent on what was not finished.
    """

    code: str
    message: str
    remedy: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """A person stopped the run. `seconds` is as in Failed."""

    seconds: float = 0.0


Event = Started | Delta | Step | Retry | Queued | Notice | Correction | Answer | Failed | Stopped
KINDS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in get_args(Event)}
ENDS = (Answer, Failed, Stopped)


def is_tentative(event: Event) -> bool:
    return isinstance(event, Delta) and event.part == "tentative"


def voids_tentative(event: Event) -> bool:
    """Whether text that had no place yet is void by it: by all but an end without an answer."""
    return not (is_tentative(event) or isinstance(event, (Failed, Stopped)))


class Emit(Protocol):
    """Tells a reader of events, in this order; returns when he has taken the last of them."""

    async def __call__(self, *events: Event) -> None: ...


@dataclass(frozen=True, slots=True)
class Trace:
    """A run so far: its events, and what follows from them."""

    events: tuple[Event, ...]
    version: ClassVar[int] = TRACE_VERSION

    @property
    def started(self) -> Started | None:
        return next((e for e in self.events if isinstance(e, Started)), None)

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(e for e in self.events if isinstance(e, Step))

    @property
    def answer(self) -> Answer | None:
        return next((e for e in self.events if isinstance(e, Answer)), None)

    @property
    def end(self) -> Answer | Failed | Stopped | None:
        return next((e for e in self.events if isinstance(e, ENDS)), None)

    @property
    def seconds(self) -> float:
        """The total thinking time: the model's time, without waiting for retries."""
        timed = (Step, Notice, Answer, Failed, Stopped)
        return sum(e.seconds for e in self.events if isinstance(e, timed))

    @property
    def waited(self) -> float:
        """Seconds spent waiting before retries."""
        return sum(e.wait for e in self.events if isinstance(e, Retry))

    @property
    def tokens_per_second(self) -> float:
        """How fast the model wrote; 0 where the server counts no tokens."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def tokens(self) -> int:
        """Completion tokens of all steps and the answer, failed attempts included."""
        return sum(e.tokens for e in self.events if isinstance(e, (Step, Notice, Answer)))


def to_dict(event: Event) -> dict[str, Any]:
    """The event as JSON values, with its kind under "kind"."""
    return {"kind": type(event).__name__.lower(), **asdict(event)}


def from_dict(values: dict[str, Any]) -> Event:
    """The inverse of `to_dict`. Raises ValueError for an unknown kind or bad fields."""
    kind = KINDS.get(values.get("kind", ""))
    if kind is None:
        raise ValueError(f"expected an event kind of {sorted(KINDS)}, got {values.get('kind')!r}")
    known = {f.name for f in fields(kind)}
    given = {key: value for key, value in values.items() if key in known}
    try:
        if kind is Started:
            given |= _started(given)
        event: Event = kind(**given)
    except TypeError as error:
        raise ValueError(f"expected the fields {sorted(known)}: {error}") from None
    return event


def _started(given: dict[str, Any]) -> dict[str, Any]:
    """The values inside a Started, which JSON holds as dicts and lists."""
    settings, steer = given.get("settings") or {}, given.get("steer")
    return {
        "settings": Settings(**settings),
        "history": tuple(Turn(**turn) for turn in given.get("history") or ()),
        "steer": Steer(**steer) if steer else None,
    }
