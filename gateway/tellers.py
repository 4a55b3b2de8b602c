"""Who tells of which chain, and into which choice of the reply. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from gateway.majority import Majority
from gateway.schema import ChatRequest
from gateway.telling import Telling, Told
from reasoning.events import Event


@dataclass(frozen=True, slots=True)
class Teller:
    """Takes the events of one chain, and tells what choice number `choice` gets of them.

    Raises telling.ChainFailed where that choice will have no answer.
    """

    choice: int
    take: Callable[[Event], Iterator[Told]]


def tellers(request: ChatRequest, votes: int) -> list[Teller]:
    """One for each chain: each is a choice, or up to `votes` of them make one."""
    if votes == 1:
        return [Teller(choice, Telling().take) for choice in range(request.choices)]
    ballots = [Majority(votes, request.answer_form.format) for _ in range(request.choices)]
    return [
        Teller(choice, partial(vote.take, chain))
        for choice, vote in enumerate(ballots)
        for chain in range(votes)
    ]
