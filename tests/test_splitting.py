"""A transcript is cut into the same steps, however it is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.boxes import find_boxes, same_answer
from reasoning.splitting import (
    END_TOKENS,
    META_ACTIONS,
    Cut,
    Opening,
    Splitter,
    TokenSplitter,
    TurnSplitter,
)

SATORI = (
    "<|continue|>First $a < b$ and $|x| > 0$, so <|y|> stays.\n\n$$ \\boxed{192} $$\n"
    "<|reflect|>Wait, that is wrong.<|explore|>Anew: $$ \\boxed{\\frac{1}{2}} $$<|im_end|>"
)
THOUGHT = (
    "Okay, count the letters.\n\nThere are three.\n\nWait, let me look again.\n\n"
    "```python\nx = 1\n\nWait = 2\n```\n\nAlternatively, spell it: s t r a w.\n\n"
    + "long " * 100
    + "\n\nSo three."
)

Steps = list[tuple[str, str]]


def steps(splitter: Splitter, pieces: list[str]) -> Steps:
    cuts: list[Cut] = [cut for piece in pieces for cut in splitter.feed(piece)] + splitter.end()
    found: Steps = []
    for cut in cuts:
        if isinstance(cut, Opening):
            found.append((cut.kind, ""))
        else:
            found[-1:] = [(found[-1][0], found[-1][1] + cut)] if found else [("", cut)]
    return found


def test_satoris_steps_begin_at_its_meta_actions() -> None:
    found = steps(TokenSplitter(), [SATORI])
    assert [kind for kind, _ in found] == ["continue", "reflect", "explore"]
    assert found[0][1] == "First $a < b$ and $|x| > 0$, so <|y|> stays.\n\n$$ \\boxed{192} $$\n"


def test_a_thought_is_cut_where_it_turns_and_never_inside_code() -> None:
    found = steps(TurnSplitter(), [THOUGHT])
    assert [kind for kind, _ in found] == ["continue", "reflect", "explore", "continue"]
    assert "Wait = 2" in found[1][1]
    assert found[3][1] == "So three."


@pytest.mark.parametrize(("splitter", "text"), [(TokenSplitter, SATORI), (TurnSplitter, THOUGHT)])
def test_a_character_at_a_time_gives_the_same_steps(splitter: type, text: str) -> None:
    assert steps(splitter(), list(text)) == steps(splitter(), [text])


PARTS = st.sampled_from(
    [
        *META_ACTIONS,
        *END_TOKENS,
        "<|",
        "|>",
        "<",
        "$$",
        "\\[",
        "\\]",
        "\n\n",
        "\n",
        " ",
        "```\n",
        "Wait",
        "Alternatively, ",
        "but wait",
        "等等",
        "a",
        "\\frac{1}{2}",
        "word " * 90,
    ]
)
TRANSCRIPT = st.lists(PARTS | st.text(max_size=5), max_size=14).map("".join)


@given(
    TRANSCRIPT,
    st.lists(st.integers(1, 7), min_size=1),
    st.sampled_from([TokenSplitter, TurnSplitter]),
)
def test_any_transcript_cut_into_any_pieces_gives_the_same_steps(
    text: str, sizes: list[int], splitter: type
) -> None:
    pieces, at = [], 0
    while at < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[at : at + size])
        at += size
    assert steps(splitter(), pieces) == steps(splitter(), [text])


@given(TRANSCRIPT)
def test_no_token_is_in_a_step_and_nothing_else_is_lost(text: str) -> None:
    found = steps(TokenSplitter(), [text])
    for token in (*META_ACTIONS, *END_TOKENS):
        assert all(token not in content for _, content in found)
    for token in END_TOKENS:
        text = text.partition(token)[0]
    for token in META_ACTIONS:
        text = text.replace(token, "")
    assert "".join(content for _, content in found) == text


@given(TRANSCRIPT)
def test_a_thoughts_steps_together_are_the_thought(text: str) -> None:
    shown = "".join(content for _, content in steps(TurnSplitter(), [text]))
    assert "".join(shown.split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so $\boxed{192}$", ["192"]),
        (r"\boxed{\frac{1}{2}}", [r"\frac{1}{2}"]),
        (r"\boxed{192} no, \boxed{204}.", ["192", "204"]),
        (r"\boxed{\{1, 2\}}", [r"\{1, 2\}"]),
        (r"\boxed{1", []),
        (r"\boxed{1} then \boxed{\frac{1}{", ["1"]),
        (r"\boxed {7}", ["7"]),
        (r"\fbox{7}", []),
        ("", []),
    ],
)
def test_a_box_is_what_stands_between_its_balanced_braces(text: str, found: list[str]) -> None:
    assert find_boxes(text) == found


@given(st.text(r"\boxed{}1 ", max_size=40))
def test_boxes_never_fail(text: str) -> None:
    assert isinstance(find_boxes(text), list)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1,000", "1000", True),
        (r"\text{B}", "b", True),
        ("12", "1,2", False),
        ("192", "204", False),
        ("3.", "3", True),
        ("(1, 2)", "(1,2)", True),
    ],
)
def test_two_boxes_are_the_same_but_for_their_dress(one: str, other: str, same: bool) -> None:
    assert same_answer(one, other) is same
