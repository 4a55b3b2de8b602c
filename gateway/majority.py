"""Several chains on one question -> the answer of the most of them. Pure.

Chains think at the same time, and one text cannot hold five that grow. So a reader is
told of each chain as it ends, then the steps of the one that stands for the majority.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from gateway.telling import ON_THE_WAY, Telling, Thought, Told
from reasoning.endpoint import Format
from reasoning.events import ENDS, Answer, Event, Failed, Trace
from reasoning.voting import count_votes, final_answer

SHOWN = 200  # characters of an answer in the line that says how a chain ended


class Majority:
    """A vote of `chains`. Chains without an answer do not vote; unclear answers agree with none."""

    def __init__(self, chains: int, format: Format = "text") -> None:
        self._json = format != "text"
        self._events: list[list[Event]] = [[] for _ in range(chains)]
        self._running = chains

    def take(self, chain: int, event: Event) -> Iterator[Told]:
        """An event of chain number `chain`, from 0. Raises telling.ChainFailed if none answers."""
        self._events[chain].append(event)
        if isinstance(event, ENDS):
            self._running -= 1
            outcome = self._outcome(event)
            yield Thought(f"*Chain {chain + 1} of {len(self._events)}: {outcome}*\n\n")
            if not self._running:
                yield from self._decide()

    def _outcome(self, end: Event) -> str:
        if isinstance(end, Answer):
            value = end.content if self._json else final_answer(end.content)
            return " ".join(value.split())[:SHOWN] or "no clear answer"
        return f"no answer ({end.code})" if isinstance(end, Failed) else "stopped"

    def _decide(self) -> Iterator[Told]:
        answers = [Trace(tuple(events)).answer for events in self._events]
        voters = [number for number, answer in enumerate(answers) if answer is not None]
        if not voters:
            yield from Telling().take(self._events[0][-1])
            return
        ballots = self._ballots([answer.content for answer in answers if answer is not None])
        if ballots:
            votes = f"{len(ballots[0])} of {len(self._events)}"
            yield Thought(f"*{votes} chains agree on the answer of this one.*\n\n")
        winner = voters[ballots[0][0] if ballots else 0]
        teller = Telling()
        for event in self._events[winner]:
            if not isinstance(event, ON_THE_WAY):
                yield from teller.take(event)

    def _ballots(self, answers: Sequence[str]) -> list[Sequence[int]]:
        """The indices of the answers that agree, the most votes first."""
        if not self._json:
            return [ballot.members for ballot in count_votes(answers)]
        groups: dict[str, list[int]] = {}
        for index, answer in enumerate(answers):
            if value := _same_json(answer):
                groups.setdefault(value, []).append(index)
        return sorted(groups.values(), key=lambda members: -len(members))


def _same_json(answer: str) -> str:
    """One text for JSON that says the same; "" for what is none."""
    try:
        return json.dumps(json.loads(answer), sort_keys=True)
    except (ValueError, RecursionError):
        return ""
