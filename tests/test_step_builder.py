"""A step's title is its first words, known as soon as they are and never changed after."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.step_builder import TITLE_LENGTH, headline

TITLES = {
    "First, we count. Then we add.": "First, we count",
    "## **Counting**\nWe count.": "Counting",
    "We find $x = 3$ at once.": "We find x = 3 at once",
    "We find $x^2 = 9$ at once.": "We find",
    "Divide both sides by 2 to solve for \\( B \\):\n\\[ B = 0.05 \\]": (
        "Divide both sides by 2 to solve for B"
    ),
    "Solve for $x": "Solve for",
    "It costs $5 and then $6, or $7.": "It costs",
    "$$ s = 3 $$ After simplifying, the answer is: $$ \\boxed{192} $$": (
        "After simplifying, the answer is"
    ),
    "$x$ and $y$ differ.": "x and y differ",
    "$\\frac{1}{2}$ and $y$ differ.": "and y differ",
    "\\[ x = 1 \\]\nSo it is one.": "So it is one",
    "$$ s = 3 $$": "",
    "$$ s = 3": "",
    "$5 is the price. It is low.": "$5 is the price",
    "这里有三个字母。第二句。": "这里有三个字母",
    "word " * 30: "word " * 11 + "word ...",
}


@pytest.mark.parametrize(("text", "title"), TITLES.items())
def test_a_title_is_the_first_words_and_what_reads_as_words(text: str, title: str) -> None:
    assert headline(text, whole=True) == title


@given(st.one_of(st.sampled_from(list(TITLES)), st.text("ab .,$*`\\[]()5+\n", max_size=150)))
def test_a_title_that_was_shown_early_is_the_title_of_the_whole_step(text: str) -> None:
    early = next(
        (title for at in range(1, len(text)) if (title := headline(text[:at], whole=False))), None
    )
    assert early in (None, headline(text, whole=True))


def test_a_comma_where_the_title_may_end_does_not_end_it_early() -> None:
    text = "word " * 11 + "fives, and more"
    early = {headline(text[:at], whole=False) for at in range(len(text))}
    assert early == {"", headline(text, whole=True)}


@given(st.text("ab .", min_size=200, max_size=400))
def test_a_title_is_short(text: str) -> None:
    assert len(headline(text, whole=True)) <= TITLE_LENGTH + len(" ...")
