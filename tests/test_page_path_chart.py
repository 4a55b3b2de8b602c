"""The path's picture, and a corrected value: the model's text stays outside, or is made safe."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page.path_chart import COLOURS, has_turns, path_dot
from page.wording import value_line
from reasoning.events import Action, Step


def steps(*actions: Action) -> list[Step]:
    return [
        Step(number, "title }", 'content "]', action, 1.0, 1)
        for number, action in enumerate(actions, 1)
    ]


def edges(*actions: Action) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+) -> (\w+)", path_dot(steps(*actions)), re.M)


def test_to_continue_goes_along() -> None:
    assert edges("continue", "continue", "final_answer") == [
        ("question", "1"),
        ("1", "2"),
        ("2", "3"),
    ]


def test_to_reflect_leads_back_to_the_step_before() -> None:
    assert edges("continue", "reflect", "continue") == [
        ("question", "1"),
        ("1", "2"),
        ("2", "1"),
        ("2", "3"),
    ]


def test_to_explore_branches_anew_from_the_question() -> None:
    assert edges("continue", "explore", "continue", "explore") == [
        ("question", "1"),
        ("question", "2"),
        ("2", "3"),
        ("question", "4"),
    ]


def test_a_first_step_that_reflects_has_nothing_to_lead_back_to() -> None:
    assert edges("reflect", "continue") == [("question", "1"), ("1", "2")]


def test_a_turn_has_a_colour_of_its_own_and_the_ground_none() -> None:
    picture = path_dot(steps("continue", "reflect", "explore"))
    assert "bgcolor=transparent" in picture
    for action, number in (("reflect", 2), ("explore", 3)):
        assert re.search(rf'^{number} \[color="{COLOURS[action]}"', picture, re.M)
    assert not re.search(r"^1 \[color", picture, re.M)


def test_no_word_of_the_models_stands_in_the_picture() -> None:
    picture = path_dot(steps("continue", "reflect", "explore"))
    assert "title" not in picture
    assert "content" not in picture


@pytest.mark.parametrize(
    ("actions", "turns"),
    [
        ((), False),
        (("continue", "final_answer"), False),
        (("continue", "reflect"), True),
        (("explore",), True),
    ],
)
def test_only_a_path_with_turns_is_worth_a_picture(
    actions: tuple[Action, ...], turns: bool
) -> None:
    assert has_turns(steps(*actions)) is turns


# -- values


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192", "192"),
        (r"\frac{1}{2}", r"$\frac{1}{2}$"),
        ("x^2", "$x^2$"),
        ("\\frac{1}\n{2}", r"$\frac{1} {2}$"),
        ("**Tuesday**", r"\*\*Tuesday\*\*"),
        (":red[x]", r"\:red\[x\]"),
        ("<b>1</b>", r"\<b\>1\<\/b\>"),
    ],
)
def test_a_value_is_mathematics_when_it_looks_like_latex(text: str, shown: str) -> None:
    assert value_line(text) == shown


@given(st.text(alphabet="\\(){}[]$`!:<>_^|#ab\n 1", max_size=60))
def test_a_value_is_one_line_without_tags_or_pictures(text: str) -> None:
    shown = value_line(text)
    assert "\n" not in shown
    prose = re.sub(r"(?<!\\)\$.*?(?<!\\)\$", "", shown.replace("\\\\", ""))
    assert not re.search(r"(?<!\\)(!\[|<)", prose)
    assert "<" not in re.sub(r"\\<", "", shown.replace("\\\\", ""))
