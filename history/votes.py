"""Votes that other processes draw: the store is asked for their chains while somebody looks."""

from __future__ import annotations

import time
from collections.abc import Sequence

from history.entries import Entry
from history.followed import LOOK
from history.store import Store, StoreError
from reasoning.self_consistency import count_needed
from reasoning.voting import vote_of

LATE = 2.0  # seconds from a chain's end until the next one is in the store, at most
WITHOUT_VOTE = {"stopped", "interrupted"}


class VotesElsewhere:
    """The store is looked at once in `every` seconds for a vote, however many people look on."""

    def __init__(self, store: Store, every: float = LOOK) -> None:
        self._store = store
        self._every = every
        self._seen: dict[str, tuple[float, list[Entry]]] = {}  # by the first run: when, what

    def chains(self, group: str) -> list[Entry]:
        """The runs that were asked together with this one; none while the store is not read."""
        now = time.monotonic()
        young = {id: seen for id, seen in self._seen.items() if now - seen[0] < self._every}
        if group not in young:
            young[group] = now, self._look(group)
            self._seen = young
        return young[group][1]

    def is_on(self, group: str, most: int) -> bool:
        """Whether one of its chains thinks, or the next of at most `most` is about to begin."""
        return is_undecided(self.chains(group), most, time.time())

    def _look(self, group: str) -> list[Entry]:
        try:
            return self._store.together(group)
        except StoreError:  # whoever reads its runs says so
            return []


def is_undecided(runs: Sequence[Entry], most: int, now: float) -> bool:
    """As the process that draws it finds. One that died begins no chain: then it is over."""
    states, last = {run.state for run in runs}, max((run.ended for run in runs), default=0.0)
    if not runs or "thinking" in states:
        return bool(runs)
    if states & WITHOUT_VOTE or now - last > LATE:
        return False
    chains = [run for run in runs if run.way == runs[0].way]  # and not the plain answer beside
    ended = sorted(chains, key=lambda run: run.ended)
    return count_needed([vote_of(run.answer, run.tokens) for run in ended], most) > 0
