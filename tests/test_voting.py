"""What answers come down to, and how many of them agree."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.voting import (
    Ballot,
    count_votes,
    ends_open,
    final_answer,
    numbers,
    same_final,
    spelled_numbers,
)

UNCLEAR = "It depends on what one takes for granted, as the steps above have shown at length."


@pytest.mark.parametrize(
    ("content", "final"),
    [
        # a box, the last one
        (r"So $$\boxed{5050}$$", "5050"),
        (r"\boxed{18}, no: \boxed{204}", "204"),
        (r"The final answer is: $\boxed{\dfrac{1}{2}}$", "0.5"),
        (r"\boxed{x = -3}", "-3"),
        (r"\boxed{\$1,234.50}", "1234.5"),
        (r"\boxed{5{,}050}", "5050"),
        (r"\boxed{18 \text{ dollars}}", "18"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{10\%}", "10"),
        (r"\boxed{\text{(B)}}", "b"),
        (r"\boxed{x + 1}", "x+1"),
        (r"\boxed{5x}", "5x"),
        (r"\boxed{(1, 2)}", "(1,2)"),
        (r"\boxed{\text{yes}}", "yes"),
        # "the answer is"
        ("Mary has 3 apples and eats 1. So the answer is 2.", "2"),
        ("The answer is 3? No: the answer is **4**, for 2 + 2.", "4"),
        ("**Answer:** 9 sheep", "9"),
        ("Final Answer: 3", "3"),
        ("The answer to the question about 17 sheep is 9.", "9"),
        ("The correct answer is (B), because 42 is even.", "b"),
        ("The answer is Paris.", "paris"),
        ("因此答案是 9 只。", "9"),
        ("答案：三个", "3"),
        # the first sentence
        ("There are **3** R's in **strawberry**. It has 10 letters.", "3"),
        ("The word has three R's.", "3"),
        ("The sum of the first 100 whole numbers is 5,050. Pair 1 with 100.", "5050"),
        ("5050 is the sum of the first 100 whole numbers.", "5050"),
        ("12 + 5 = 17, so 17 - 3 = 14.", "14"),
        ("The value of k in the equation k - 19 = -7 is 12.", "12"),
        ("The value of w in 13*w - 2 = 596 is 46, or w = 46.", "46"),
        ("x = 7 when y is 3.", "7"),
        ("方程 k - 19 = -7 的解是 12。", "12"),
        ("Yes, 17 is prime.", "yes"),
        ("不是，它有因数 3。", "no"),
        ("B. Paris", "b"),
        (".9 is larger than .11.", "0.9"),
        ("## Final Answer\n\n9 sheep are left. 17 minus 8.", "9"),
        ("从1加到100等于5050。因为有50对。", "5050"),
        ("还剩9只羊。因为除了9只以外都跑了。", "9"),
        ("It costs $5.", "5"),
        ("It leaves at 12:30.", "it leaves at 12:30"),
        # else the last one
        ("To add the first 100 numbers, pair them. All pairs together are 5050.", "5050"),
        ("我们先数 10 个字母。一共有3个 r。", "3"),
        # a short text
        ("Paris", "paris"),
        ("\uff19\uff0e\uff10", "9"),
        ("No one knows.", "no one knows"),
        ("One", "1"),
        # unclear
        (UNCLEAR, ""),
        (" \n ", ""),
        ("...", ""),
    ],
)
def test_an_answer_comes_down_to(content: str, final: str) -> None:
    assert final_answer(content) == final


@pytest.mark.parametrize(
    ("text", "found", "spelled"),
    [
        ("Half of 12 is $\\frac{12}{2}$.", {"12", "6"}, set()),
        ("It appears once, or three times of 1,000.", {"1000"}, {"1", "3"}),
        ("一共有三只。", set(), {"1", "3"}),
        ("Nobody knows.", set(), set()),
    ],
)
def test_the_numbers_of_a_text(text: str, found: set[str], spelled: set[str]) -> None:
    assert (numbers(text), spelled_numbers(text)) == (found, spelled)


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("Now we add the third number: $151 + 79$", True),
        ("0 = -351 + 39*x", True),
        ("Then $9 + x$.\n\\]", True),
        ("151 + 79 = 230.", False),
        ("So x = -9", False),
        ("46 - 12 is 34 apples", False),
        ("", False),
    ],
)
def test_a_calculation_without_a_result_is_open(text: str, is_open: bool) -> None:
    assert ends_open(text) == is_open


VALUES = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=64)


def ways_to_write(value: Fraction) -> list[str]:
    above, below = value.numerator, value.denominator
    sign = "-" if above < 0 else ""
    return [
        f"{above}/{below}",
        f"{3 * above}/{3 * below}",
        rf"{sign}\frac{{{abs(above)}}}{{{below}}}",
        *([str(above), f"{above:,}", f"{above}.00", f"${above}$"] if below == 1 else []),
        *([f"{above / below:.6f}"] if 10**6 % below == 0 else []),
    ]


@given(VALUES)
def test_a_number_is_the_same_however_it_is_written(value: Fraction) -> None:
    written = ways_to_write(value)
    assert len({final_answer(rf"\boxed{{{text}}}") for text in written}) == 1, written
    assert len({final_answer(f"The answer is {text}.") for text in written}) == 1, written


@given(VALUES, VALUES)
def test_two_numbers_are_the_same_only_if_they_are_equal(one: Fraction, other: Fraction) -> None:
    assert same_final(rf"\boxed{{{one}}}", rf"\boxed{{{other}}}") == (one == other)


PIECES = st.sampled_from(
    [
        *("The answer is ", "answer:", "答案是", "\\boxed{", "}", "\\frac{1}{2}", "\\text{", "$"),
        *("3", "1/0", "1/2/3", "-", ",", ".", ". ", "\n", "**", "(B)", "yes", "三", "x = ", "%"),
        *("\ud800", "\x00", "²", "٣", "9" * 80, "word ", "。"),
    ]
)
TEXTS = st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=12).map("".join))


@given(TEXTS)
def test_any_text_has_a_final_answer_or_none(text: str) -> None:
    assert same_final(text, text) == bool(final_answer(text))


@given(st.lists(st.one_of(TEXTS, st.sampled_from(["3", "3.0", "4", "", UNCLEAR])), max_size=16))
def test_each_clear_answer_has_one_vote_and_an_unclear_one_none(answers: list[str]) -> None:
    ballots = count_votes(answers)
    voted = [index for ballot in ballots for index in ballot.members]
    assert sorted(voted) == [index for index, text in enumerate(answers) if final_answer(text)]
    for ballot in ballots:
        assert {final_answer(answers[index]) for index in ballot.members} == {ballot.value}
    assert len({ballot.value for ballot in ballots}) == len(ballots)


@given(st.lists(st.sampled_from(["3", "3.0", "three", "4", "Paris", UNCLEAR]), max_size=16))
def test_the_most_votes_come_first_and_among_equals_the_earlier_answer(answers: list[str]) -> None:
    ballots = count_votes(answers)
    order = [(-len(ballot.members), ballot.members[0]) for ballot in ballots]
    assert order == sorted(order)


def test_of_as_many_votes_the_shorter_chains_win() -> None:
    values = [ballot.value for ballot in count_votes(["3", "4", "Paris"], [9, 5, 7])]
    assert values == ["4", "paris", "3"]


def test_a_ballot_is_shown_as_its_first_answer_put_it() -> None:
    answers = [r"\boxed{4}", r"\boxed{\frac{1}{2}}", UNCLEAR, "The answer is 0.5.", "**1/2**"]
    assert count_votes(answers) == (
        Ballot("0.5", r"\frac{1}{2}", (1, 3, 4)),
        Ballot("4", "4", (0,)),
    )


def test_unclear_answers_agree_with_nobody() -> None:
    assert not same_final(UNCLEAR, UNCLEAR)
    assert count_votes([UNCLEAR, UNCLEAR]) == ()
