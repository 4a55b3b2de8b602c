"""A vote that stops when it is decided."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reasoning.self_consistency import (
    FIRST,
    Vote,
    count_further,
    count_needed,
    draw_chains,
    rank_answers,
)

VOTES = st.builds(Vote, st.sampled_from(["a", "a", "b", "c", ""]), st.integers(0, 9))
ALL = st.lists(VOTES, min_size=1, max_size=16)


def votes(text: str, tokens: Sequence[int] = ()) -> list[Vote]:
    """A vote a letter; a dot is a chain without one."""
    return [
        Vote(one.strip("."), size)
        for one, size in zip(text, tokens or [1] * len(text), strict=True)
    ]


def drawn(chains: Sequence[Vote], order: Random) -> tuple[list[Vote], int]:
    """The vote over these chains, which end in some order: the votes cast, and how many begun."""
    cast: list[Vote] = []
    running: list[Vote] = []
    begun = 0
    while count_needed(cast, len(chains)):
        more = count_further(cast, len(running), len(chains))
        running += chains[begun : begun + more]
        begun += more
        cast.append(running.pop(order.randrange(len(running))))
    return cast, begun


def first_three_agree(chains: Sequence[Vote]) -> bool:
    values = {vote.value for vote in chains[:FIRST]}
    return len(chains) > FIRST and len(values) == 1 and "" not in values


def most_of_three_are_unclear(cast: Sequence[Vote]) -> bool:
    return len(cast) >= FIRST and sum(not vote.value for vote in cast[:FIRST]) > 1


def winner(cast: Sequence[Vote]) -> str:
    ranked = rank_answers(cast)
    return cast[ranked[0][0]].value if ranked else ""


@given(ALL, st.randoms(use_true_random=False))
def test_an_early_end_gives_the_winner_of_all_chains(chains: list[Vote], order: Random) -> None:
    """But for the bets on three that agree or are unclear, and for equals of all ties."""
    cast, _ = drawn(chains, order)
    if most_of_three_are_unclear(cast):
        assert len(cast) == FIRST
        return
    if first_three_agree(chains):
        assert (winner(cast), len(cast)) == (chains[0].value, FIRST)
        return
    last = [(len(them), sum(chains[it].tokens for it in them)) for them in rank_answers(chains)]
    assume(len(last) < 2 or last[0] != last[1])  # else it is the one that came first
    assert winner(cast) == winner(chains)


@given(ALL, st.randoms(use_true_random=False))
def test_no_chain_is_begun_in_vain(chains: list[Vote], order: Random) -> None:
    """What has begun has ended when the vote is decided, but for the third of three."""
    cast, begun = drawn(chains, order)
    assert begun - len(cast) <= (len(chains) == FIRST)
    assert begun <= len(chains)


@given(ALL)
def test_what_is_decided_stays_decided(chains: list[Vote]) -> None:
    open_after = [bool(count_needed(chains[:cast], len(chains))) for cast in range(len(chains) + 1)]
    assert open_after == sorted(open_after, reverse=True)
    assert not open_after[-1]


@pytest.mark.parametrize(
    ("cast", "most", "more"),
    [
        ("", 8, 3),  # three that agree
        ("a", 8, 2),
        ("aa", 8, 1),
        ("aaa", 8, 0),
        ("ab", 8, 4),  # five of eight
        ("aab", 8, 3),
        ("aaba", 8, 2),
        ("aabaa", 8, 1),  # 4, and the other could still have as many
        ("aabaaa", 8, 0),
        ("abcd", 8, 3),
        ("..", 8, 1),
        ("...", 8, 0),
        ("a..", 8, 0),
        ("a.ba", 8, 2),
        ("ab..", 8, 3),
        ("aa", 3, 0),
        ("ab", 3, 1),
        ("a", 2, 1),
        ("", 1, 1),
        ("abababab", 8, 0),
    ],
)
def test_so_many_must_end_before_it_can_be_decided(cast: str, most: int, more: int) -> None:
    assert count_needed(votes(cast), most) == more


@pytest.mark.parametrize(
    ("cast", "running", "most", "more"),
    [
        ("", 0, 8, 3),
        ("", 0, 2, 2),
        ("", 0, 3, 3),
        ("a", 2, 8, 0),  # the three may yet agree
        ("ab", 1, 8, 3),  # they do not: five of eight
        ("a.", 1, 8, 0),  # most may yet be unclear
        ("aab", 0, 8, 3),
        ("aaa", 0, 8, 0),
    ],
)
def test_three_begin_together_then_as_many_as_are_needed(
    cast: str, running: int, most: int, more: int
) -> None:
    assert count_further(votes(cast), running, most) == more


def test_a_tie_goes_to_the_shorter_chains_and_else_to_the_earlier() -> None:
    assert rank_answers(votes("abab", [9, 5, 1, 4])) == [(1, 3), (0, 2)]
    assert rank_answers(votes("abab")) == [(0, 2), (1, 3)]
    assert rank_answers(votes("abb", [1, 9, 9])) == [(1, 2), (0,)]


# -- run by it


class Chains:
    """Chains that end at once in the letters of a text; "-" never ends."""

    def __init__(self, values: str) -> None:
        self.values = values
        self.begun: list[int] = []
        self.cancelled: list[int] = []

    async def run(self, number: int) -> Vote:
        self.begun.append(number)
        try:
            if self.values[number] == "-":
                await asyncio.Event().wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        if self.values[number] == "!":
            raise OSError
        return Vote(self.values[number])


async def draw_all(chains: Chains) -> dict[int, Vote]:
    return await draw_chains(chains.run, lambda vote: vote, len(chains.values))


async def test_no_more_is_drawn_than_decides_it() -> None:
    chains = Chains("aaabbbbb")
    assert list(await draw_all(chains)) == chains.begun == [0, 1, 2]
    chains = Chains("abaaaabb")
    assert list(await draw_all(chains)) == chains.begun == [0, 1, 2, 3, 4, 5]


async def test_what_runs_when_it_is_decided_is_cancelled() -> None:
    chains = Chains("a-a")
    assert list(await draw_all(chains)) == [0, 2]
    assert chains.cancelled == [1]


async def test_a_failure_ends_the_vote_and_all_its_chains() -> None:
    chains = Chains("-!-")
    with pytest.raises(OSError):  # noqa: PT011 - it is the test's own
        await draw_all(chains)
    assert chains.cancelled == [0, 2]


async def test_who_leaves_ends_all_chains() -> None:
    chains = Chains("---")
    task = asyncio.create_task(draw_all(chains))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert chains.cancelled == [0, 1, 2]
