"""A vote that stops when it is decided: how many chains are drawn, and who wins.

Self-consistency (Wang et al. 2022, arXiv 2203.11171) draws N chains and gives the answer of
most of them. Most questions are decided earlier, so N is only the bound here, as in adaptive
consistency (Aggarwal et al. 2023, arXiv 2305.11860) and early-stopping self-consistency (Li
et al. 2024, arXiv 2401.10480):

* Three chains are drawn at first. If all three agree the vote is over. This is a bet: with N
  of 7 or more the rest could have outvoted them.
* If most of these three tell no answer that can be compared it is over too: a vote cannot
  decide between sentences. (Four answers of which no two agree do not end it: of a weak model
  the right one is often found only among eight. docs/evals.md has the figures.)
* Else chains are drawn until no other answer can reach the first one's votes any more, even
  if all that are left voted for it. So the winner is the one that all N would have chosen.

The rule is pure; `draw_chains` runs chains by it, and knows nothing of what a chain is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

FIRST = 3  # chains; two that agree by chance are too common, more cost the easy questions
MOST = 8  # chains of a vote where nobody says how many

Chain = TypeVar("Chain")


@dataclass(frozen=True, slots=True)
class Vote:
    """A chain that has ended: what its answer comes down to ("" for no vote), and its tokens."""

    value: str
    tokens: int = 0


def rank_answers(votes: Sequence[Vote]) -> list[tuple[int, ...]]:
    """The votes that agree, by their indices: the winners first.

    Of as many votes those win that took fewer tokens, for a chain that rambles is more often
    wrong; of as many tokens those that came first.
    """
    groups: dict[str, list[int]] = {}
    for index, vote in enumerate(votes):
        if vote.value:
            groups.setdefault(vote.value, []).append(index)
    found = [tuple(members) for members in groups.values()]
    return sorted(found, key=lambda them: (-len(them), sum(votes[it].tokens for it in them)))


def count_needed(votes: Sequence[Vote], most: int) -> int:
    """How many more of at most `most` chains must end before the vote can be decided; 0: it is.

    `votes` are those of the chains that have ended, in the order in which they did.
    """
    left = most - len(votes)
    first, second, *_ = [*map(len, rank_answers(votes)), 0, 0]
    # so many more for the first leave too few for the second to reach it
    majority = max(0, (second + left - first) // 2 + 1)
    return min(
        left, majority, _until_three_agree(votes, left), _until_most_are_unclear(votes, left)
    )


def _until_three_agree(votes: Sequence[Vote], otherwise: int) -> int:
    values = [vote.value for vote in votes[:FIRST]]
    agree = "" not in values and len(set(values)) < 2
    return FIRST - len(values) if agree else otherwise


def _until_most_are_unclear(votes: Sequence[Vote], otherwise: int) -> int:
    missing = max(0, FIRST - len(votes))
    unclear = sum(not vote.value for vote in votes[:FIRST])
    return missing if unclear + missing > FIRST // 2 else otherwise


def count_further(votes: Sequence[Vote], running: int, most: int) -> int:
    """How many chains to begin now: three at first, then as many as a decision still needs.

    None of those is in vain: no vote is decided before that many more have ended.
    """
    if not votes and not running:
        return min(FIRST, most)
    return max(0, count_needed(votes, most) - running)


async def draw_chains(
    chain: Callable[[int], Coroutine[Any, Any, Chain]],
    cast: Callable[[Chain], Vote],
    most: int,
) -> dict[int, Chain]:
    """Runs chains until their vote is decided: those that ended, by number, the first to end first.

    `chain(k)` is chain number k, from 0. What still runs at the end, or at a failure, is
    cancelled.
    """
    ended: dict[int, Chain] = {}
    running: dict[asyncio.Task[Chain], int] = {}
    try:
        while count_needed(votes := [cast(one) for one in ended.values()], most):
            begun = len(ended) + len(running)
            for number in range(begun, begun + count_further(votes, len(running), most)):
                running[asyncio.create_task(chain(number))] = number
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=running.__getitem__):
                ended[running.pop(task)] = task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return ended
