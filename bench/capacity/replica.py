"""One model server under load, as a queue: calls in, when each said its first word and ended out.

It batches as vLLM does. A call waits for a place; its prompt is read, while all others stand
still; then it writes a token in each step of the engine, as every other does, and the more
of them write, the longer a step takes. What it is not: a model of memory that runs out in
the middle, of preemption, of speculation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf

HALF = 0.5  # of a step


@dataclass(frozen=True, slots=True)
class Engine:
    """What a server can do; seconds."""

    token: float  # a step of the engine for one call: a token of it
    more: float  # what each further call adds to a step
    prompt: float  # a token of a prompt that is read
    streams: int  # calls that write at once, at most

    def step(self, streams: int) -> float:
        return self.token + self.more * (streams - 1)


@dataclass(slots=True)
class Call:
    """A request: tokens of its prompt that are not cached, tokens it writes, and when."""

    prompt: float
    tokens: float
    word: float = 1.0  # how many tokens are written when its first word can be read
    after: Call | None = None  # asked as soon as this one has ended: the chain's next step
    asked: float = 0.0
    said: float = 0.0
    ended: float = 0.0

    @property
    def wait(self) -> float:
        """Seconds to the first word."""
        return self.said - self.asked

    @property
    def seconds(self) -> float:
        return self.ended - self.asked


class Replica:
    """The server. `ended` are the calls in the order of their ends."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = self.present_seconds = self.written = 0.0
        self.ended: list[Call] = []
        self._waiting: deque[Call] = deque()
        self._reading: Call | None = None
        self._read = inf  # when its prompt is
        self._writing = 0
        self._steps = 0.0  # steps of the engine so far
        self._marks: list[tuple[float, int, Call, bool]] = []  # a first word or, true, an end
        self._number = count()

    def run(self, arrivals: Iterable[tuple[float, Call]]) -> None:
        """Takes calls in the order of their times, and ends when all have ended."""
        for at, call in arrivals:
            while (soon := self._next) <= at:
                self._happen(soon)
            self._pass_to(at)
            self._take(call)
        while (soon := self._next) < inf:
            self._happen(soon)

    @property
    def present(self) -> int:
        return len(self._waiting) + self._writing + (self._reading is not None)

    @property
    def _next(self) -> float:
        """When the next thing happens, if nobody comes."""
        if self._reading:
            return self._read
        if not self._marks:
            return inf
        return self.clock + (self._marks[0][0] - self._steps) * self.engine.step(self._writing)

    def _happen(self, at: float) -> None:
        self._pass_to(at)
        if self._reading:
            self._begin_to_write(self._reading)
        else:
            self._reach(*heappop(self._marks))

    def _pass_to(self, at: float) -> None:
        seconds = at - self.clock
        self.present_seconds += seconds * self.present
        if self._writing and not self._reading:
            steps = seconds / self.engine.step(self._writing)
            self._steps += steps
            self.written += steps * self._writing
        self.clock = at

    def _take(self, call: Call) -> None:
        call.asked = self.clock
        self._waiting.append(call)
        self._read_next()

    def _read_next(self) -> None:
        if self._waiting and not self._reading and self._writing < self.engine.streams:
            self._reading = self._waiting.popleft()
            self._read = self.clock + self._reading.prompt * self.engine.prompt

    def _begin_to_write(self, call: Call) -> None:
        """It came in the middle of a step, if any is made: in the mean, half a step too early."""
        word = call.word + (HALF if self._writing else 0.0)
        self._reading = None
        self._writing += 1
        for tokens, ends in ((min(word, call.tokens), False), (call.tokens, True)):
            heappush(self._marks, (self._steps + tokens, next(self._number), call, ends))
        self._read_next()

    def _reach(self, steps: float, _: int, call: Call, ends: bool) -> None:
        self._steps = steps  # to the letter, whatever the division rounded
        if not ends:
            call.said = self.clock
            return
        call.ended = self.clock
        self._writing -= 1
        self.ended.append(call)
        if call.after:
            self._take(call.after)
        self._read_next()
