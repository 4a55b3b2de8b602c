"""Two answers side by side: what differs is marked, and nothing else changes."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import example, given

from page.differences import LONGEST, first_difference, mark_differences
from page.markdown import safe_blocks
from reasoning.events import Step
from tests.examples import examples
from tests.test_page_markdown import TEXTS

SIGN = re.compile(r":(orange|blue)-badge\[≠\](?: |\n\n)")
MARK = re.compile(r":(orange|blue)-background\[((?:[^\[\]\\\n]|\\.)*)\]")


def safe(text: str) -> str:
    return "\n\n".join(safe_blocks(text))


def unmarked(text: str) -> str:
    return MARK.sub(r"\2", SIGN.sub("", text))


def marks(text: str) -> list[str]:
    return [mark[2] for mark in MARK.finditer(text)]


def test_a_word_that_differs_is_marked_in_the_colour_of_its_side() -> None:
    one, other = mark_differences("There are 3 R's in it.", "There are 2 R's in it.")
    assert one == "There are :orange-background[3] R's in it."
    assert other == "There are :blue-background[2] R's in it."


@pytest.mark.parametrize(
    ("one", "other", "ours", "theirs"),
    [
        ("It is **3**. Yes.", "It is **4**. Yes.", ["**3**"], ["**4**"]),
        ("It is so. It is so indeed.", "It is so.", ["It is so indeed."], []),
        ("New first. The old one stays.", "The old one stays.", ["New first."], []),
        ("The cat sat there.", "The dog sat here.", ["cat", "there."], ["dog", "here."]),
        ("一共有三个字母。", "一共有两个字母。", ["三"], ["两"]),
        ("It costs $5 now.", "It costs $6 now.", [r"\$5"], [r"\$6"]),
        ("- one thing\n- two things", "- one thing\n- ten things", ["two"], ["ten"]),
        ("# Why so\n\nBecause.", "# Why not\n\nBecause.", ["so"], ["not"]),
        ("> he said so", "> he said no", ["so"], ["no"]),
        ("Two lines\nof one text", "Two lines\nof any text", ["one"], ["any"]),
        ("A b, c; d!", "a B c d", [], []),
    ],
)
def test_only_what_the_other_does_not_say_is_marked(
    one: str, other: str, ours: list[str], theirs: list[str]
) -> None:
    made = mark_differences(one, other)
    assert (marks(made[0]), marks(made[1])) == (ours, theirs)
    assert not any(SIGN.search(text) for text in made)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("So $x = 1$ holds.", "So $x = 2$ holds."),
        ("So\n\\[ x = 1 \\]", "So\n\\[ x = 2 \\]"),
        ("Call `f(1)` now.", "Call `f(2)` now."),
        ("```\na = 1\n```", "```\na = 2\n```"),
        ("    a = 1", "    a = 2"),
        ("| a |\n|---|\n| 1 |", "| a |\n|---|\n| 2 |"),
        ("See [this](http://e/1) now.", "See [this](http://e/2) now."),
        ("See http://e.org/one now.", "See http://e.org/two now."),
        ("Ask a@e.org now.", "Ask b@e.org now."),
    ],
)
def test_what_cannot_be_marked_inside_has_a_sign_before_its_block(one: str, other: str) -> None:
    for text, made in zip((one, other), mark_differences(one, other), strict=True):
        assert SIGN.match(made)
        assert marks(made) == []
        assert SIGN.sub("", made) == safe(text)


def test_the_sign_stands_in_a_paragraph_and_above_all_else() -> None:
    assert mark_differences("So $1$", "So $2$")[0] == ":orange-badge[≠] So $1$"
    assert mark_differences("```\n1\n```", "```\n2\n```")[1] == ":blue-badge[≠]\n\n```\n2\n```"


@examples(4)
@given(TEXTS, TEXTS)
@example("a:b c", "a:d c")
@example("say:{x} word{y}", "say:{x} other{y}")
@example("**a** b**c** *d* e", "**b** a**d** *c* f")
@example("> 1. a\n> ```\n> b", "> 1. c\n> ```\n> d")
def test_without_its_marks_each_text_is_the_safe_text(one: str, other: str) -> None:
    made = mark_differences(one, other)
    assert (unmarked(made[0]), unmarked(made[1])) == (unmarked(safe(one)), unmarked(safe(other)))


@examples(2)
@given(TEXTS)
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert mark_differences(text, text) == (safe(text), safe(text))


@examples(2)
@given(TEXTS, TEXTS)
def test_no_mark_holds_anything_but_plain_words(one: str, other: str) -> None:
    for made in mark_differences(one, other):
        for words in marks(made):
            assert not re.search(r"[`$\[\]<>|{}_~#]|(?<!\\):(?=\w)", re.sub(r"\\.", "", words)), (
                made
            )


@pytest.mark.parametrize(("one", "other"), [("", "Text."), ("Text.", " \n"), ("", "")])
def test_beside_nothing_nothing_is_marked(one: str, other: str) -> None:
    assert mark_differences(one, other) == (safe(one), safe(other))


def test_a_text_too_long_to_compare_is_left_as_it_is() -> None:
    text = "word " * LONGEST
    assert mark_differences(text, "word") == (safe(text), "word")


@pytest.mark.parametrize(
    "text", ["a ", "a. ", "字", "**a** ", "$a$ ", "a: ", "- a\n", "x@", "a\n\n"]
)
def test_hostile_texts_are_compared_to_their_end(text: str) -> None:
    one, other = text * (LONGEST // len(text)), ("b" + text) * (LONGEST // len(text + "b"))
    assert unmarked(mark_differences(one, other)[0]) == safe(one)


# -- chains

STEPS = tuple(Step(n, f"T{n}", f"C{n}", "continue", 1.0, 1) for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("other", "number"),
    [
        (STEPS, 0),
        (STEPS[:2], 3),
        ((), 1),
        ((STEPS[0], replace(STEPS[1], content="else"), STEPS[2]), 2),
        ((replace(STEPS[0], title="else"), *STEPS[1:]), 1),
        (tuple(replace(step, seconds=9.0, tokens=9) for step in STEPS), 0),
    ],
)
def test_chains_part_at_the_first_step_that_says_something_else(
    other: tuple[Step, ...], number: int
) -> None:
    assert first_difference(STEPS, other) == first_difference(other, STEPS) == number
