"""A step that says again what an earlier one said is found; one that goes on is not."""

import pytest

from reasoning.repeats import find_repeat, goes_round

LONG = "We count the letters of the word one by one and write down each place where an r stands."


@pytest.mark.parametrize(
    ("content", "earlier"),
    [
        (LONG, LONG),
        (LONG.upper() + "!!", LONG),
        (f"  {LONG}\n", LONG),
        (
            LONG + " " + LONG.replace("word", "name") + " " + LONG,
            LONG + " " + LONG.replace("word", "name"),
        ),
        ("一共有八个苹果。", "一共有八个苹果"),
    ],
)
def test_the_same_words_repeat_whatever_their_dress(content: str, earlier: str) -> None:
    assert find_repeat(content, ["Something else.", earlier]) == 1


@pytest.mark.parametrize(
    ("content", "earlier"),
    [
        ("Letter 3 is r, so the count is 1.", "Letter 8 is r, so the count is 2."),
        ("$2 + 3 = 5$", "$2 - 3 = 5$"),
        (LONG, "A short one."),
        (LONG, LONG + " There are three of them, at the places 3, 8 and 9, so the answer is 3."),
        ("一共有八个苹果。", "一共有九个苹果。"),
    ],
)
def test_a_step_that_differs_in_a_number_or_goes_further_does_not_repeat(
    content: str, earlier: str
) -> None:
    assert find_repeat(content, [earlier]) is None


def test_the_first_step_repeats_nothing() -> None:
    assert find_repeat(LONG, []) is None


ROUND = "So the answer is 12, and I check it again. "


@pytest.mark.parametrize(
    ("text", "round"),
    [
        (ROUND * 10, True),
        (LONG + " " + ROUND * 20, True),
        ("所以答案是十二，再检查一遍。" * 10, True),
        (ROUND * 3, False),  # said again is not yet said for ever
        (" ".join(f"Letter {n} is r, so the count is now {n} of 40." for n in range(40)), False),
        (" ".join(f"{n} * 7 = {7 * n}," for n in range(60)), False),
        ("", False),
    ],
)
def test_a_text_goes_round_when_most_of_it_was_said_before(text: str, round: bool) -> None:
    assert goes_round(text) is round
