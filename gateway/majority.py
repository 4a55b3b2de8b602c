"""Several chains on one question -> the answer of the most of them. Pure.

Chains think at the same time, and one text cannot hold five that grow. So a reader is
told of each chain as it ends, then the steps of the one that stands for the majority.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from gateway.telling import ON_THE_WAY, Telling, Thought, Told
from reasoning.capabilities import Format
from reasoning.events import ENDS, Answer, Event, Failed, Trace
from reasoning.self_consistency import Vote, needed, rank
from reasoning.voting import final_answer

SHOWN = 200  # characters of an answer in the line that says how a chain ended


class Majority:
    """A vote of at most `chains`, told until it is decided; then nothing more is.

    Chains without an answer do not vote; unclear answers agree with none.
    """

    def __init__(self, chains: int, format: Format = "text") -> None:
        self._format = format
        self._events: list[list[Event]] = [[] for _ in range(chains)]
        self._ended: list[Trace] = []
        self._votes: list[Vote] = []

    def take(self, chain: int, event: Event) -> Iterator[Told]:
        """An event of chain number `chain`, from 0. Raises telling.ChainFailed if none answers."""
        most = len(self._events)
        if not needed(self._votes, most):
            return
        self._events[chain].append(event)
        if isinstance(event, ENDS):
            self._ended.append(Trace(tuple(self._events[chain])))
            self._votes.append(vote_of(self._ended[-1], self._format))
            yield Thought(f"*Chain {chain + 1} of at most {most}: {self._outcome(event)}*\n\n")
            if not needed(self._votes, most):
                yield from self._decide()

    def _outcome(self, end: Event) -> str:
        if isinstance(end, Answer):
            value = end.content if self._format != "text" else final_answer(end.content)
            return " ".join(value.split())[:SHOWN] or "no clear answer"
        return f"no answer ({end.code})" if isinstance(end, Failed) else "stopped"

    def _decide(self) -> Iterator[Told]:
        if ranked := rank(self._votes):
            share = f"{len(ranked[0])} of {len(self._ended)} chains"
            if len(self._ended) < len(self._events):
                share += f", of at most {len(self._events)},"
            yield Thought(f"*{share} agree on the answer of this one.*\n\n")
        teller = Telling()
        for event in self._ended[ranked[0][0]].events if ranked else self._unclear():
            if not isinstance(event, ON_THE_WAY):
                yield from teller.take(event)

    def _unclear(self) -> tuple[Event, ...]:
        """Where nothing was voted for: the first chain that answers, else why none does."""
        answers = (trace.events for trace in self._ended if trace.answer is not None)
        return next(answers, self._ended[0].events[-1:])


def vote_of(trace: Trace, format: Format) -> Vote:
    """What a chain that has ended votes for; answers in JSON agree when they say the same."""
    answer = trace.answer.content if trace.answer else ""
    return Vote(final_answer(answer) if format == "text" else _same_json(answer), trace.tokens)


def _same_json(answer: str) -> str:
    """One text for JSON that says the same; "" for what is none."""
    try:
        return json.dumps(json.loads(answer), sort_keys=True)
    except (ValueError, RecursionError):
        return ""
