"""What people ask: how many questions a second in the busiest hour, and what a chain is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from bench.capacity.replica import Call


@dataclass(frozen=True, slots=True)
class Load:
    """A day of it. Each chain is as many calls as it has steps, and one for the answer, or,
    in one voice (docs/thinking.md), a single call.
    """

    users: float = 1
    questions: float = 20  # of each user, a day
    busy: float = 0.1  # of a day's questions are asked in its busiest hour
    steps: float = 8
    tokens: float = 80  # of a step, and of the answer
    prompt: float = 200  # tokens of a chain's first prompt
    cached: float = 0.85  # of what was said before, at each later call
    single: bool = False  # in one voice
    lead: float = 4.0  # tokens before a title's first word

    @property
    def day(self) -> float:
        """Questions of all."""
        return self.users * self.questions

    @property
    def rate(self) -> float:
        """Questions a second in the busiest hour."""
        return self.day * self.busy / 3600

    @property
    def written(self) -> float:
        """Tokens of a chain."""
        return (self.steps + 1) * self.tokens

    @property
    def calls(self) -> float:
        """Of a chain."""
        return 1 if self.single else self.steps + 1

    @property
    def context(self) -> float:
        """Tokens that a call holds in the server's cache, in the mean of a chain."""
        return self.prompt + self.written / 2

    def chains(self, rate: float, count: int, seed: int = 1) -> Iterator[tuple[float, Call]]:
        """So many of them, each by its first call, that come by chance at so many a second."""
        chance, at = Random(seed), 0.0
        for _ in range(count):
            at += chance.expovariate(rate)
            yield at, self._chain(chance)

    def _chain(self, chance: Random) -> Call:
        """Half as many steps as the mean to half as many again; their tokens likewise."""
        parts = [
            chance.uniform(0.5, 1.5) * self.tokens
            for _ in range(1 + round(chance.uniform(0.5, 1.5) * self.steps))
        ]
        if self.single:
            return Call(self.prompt, sum(parts), 1 + self.lead)
        call, said = None, self.prompt + sum(parts)
        for number in range(len(parts), 0, -1):
            said -= parts[number - 1]
            new = self.prompt if number == 1 else (1 - self.cached) * said
            call = Call(new, parts[number - 1], 1 + self.lead, after=call)
        assert call is not None
        return call


def calls_of(chain: Call) -> Iterator[Call]:
    call: Call | None = chain
    while call:
        yield call
        call = call.after
