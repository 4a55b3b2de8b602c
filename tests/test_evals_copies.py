"""A step that says what its prompts say is found; one that says what is asked is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.copies import copied
from reasoning.prompts import FOLDER, LANGUAGES, prompt_text

OLD = ["Example: A train goes $speed km/h. First find the distance from speed and time."]
OLD_ZH = ["例子：火车每小时行驶 $speed 千米，由速度和时间求路程。"]
OURS = {
    language: [prompt_text(language, path.stem) for path in sorted((FOLDER / "en").iterdir())]
    for language in LANGUAGES
}


@pytest.mark.parametrize(
    ("title", "content", "prompts"),
    [
        ("Distance from speed and time", "We divide.", OLD),
        ("**distance from SPEED, and time**", "We divide.", OLD),
        ("Divide", "So we find the distance from speed and time here.", OLD),
        ("Divide", "A train goes 60 km/h.", OLD),
        ("First find the distance from speed and then stop", "We divide.", OLD),
        ("由速度和时间求路程", "相除。", OLD_ZH),
        ("相除", "火车每小时行驶 60 千米，再相除。", OLD_ZH),
    ],
)
def test_the_words_of_a_prompt_are_copied_whatever_their_dress_and_numbers(
    title: str, content: str, prompts: list[str]
) -> None:
    assert copied(title, content, prompts, "How many apples?")


@pytest.mark.parametrize(
    ("title", "content", "prompts"),
    [
        ("Speed and", "We divide.", OLD),  # two words are anybody's
        ("Divide", "First find the distance from work. A train goes home.", OLD),
        ("速度", "由速度和时间求加速度。", OLD_ZH),
        ("", "", OLD),
        ("Distance from speed and time", "We divide.", []),
    ],
)
def test_what_is_shorter_or_stands_in_no_prompt_is_not(
    title: str, content: str, prompts: list[str]
) -> None:
    assert not copied(title, content, prompts, "Why?")


def test_what_the_question_says_is_no_copy() -> None:
    question = "A train goes 80 km/h. Find its distance from speed and time!"
    assert not copied("Distance from speed and time", "A train goes 80 km/h.", OLD, question)


WORDS = st.sampled_from(["we", "find", "half", "of", "it", "3", "and", "then", "求", "和", "的"])
TEXTS = st.lists(WORDS, max_size=24).map(" ".join)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_a_step_is_copied_if_and_only_if_a_long_enough_run_of_it_is(
    title: str, content: str, prompt: str, question: str
) -> None:
    """As found by trying every run of words there is."""
    runs = [run for text in (title, content) for run in parts(text.split()) if just(run)]
    if weight(title.split()) >= 15:
        runs.append(title.split())
    expected = any(within(run, prompt) and not within(run, question) for run in runs)
    assert copied(title, content, [prompt], question) == expected


def weight(run: list[str]) -> int:
    """Six words are 30, ten Chinese characters too."""
    return sum(3 if word in "求和的" else 5 for word in run)


def just(run: list[str]) -> bool:
    """Long enough, and not without its last word."""
    return weight(run) >= 30 > weight(run[:-1])


def parts(words: list[str]) -> list[list[str]]:
    return [words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1)]


def within(run: list[str], text: str) -> bool:
    return f" {' '.join(run)} " in f" {text} "


@given(TEXTS, TEXTS)
def test_nothing_that_stands_in_the_question_is_copied(title: str, content: str) -> None:
    assert not copied(title, content, [title, content], f"{title}\n{content}")


# -- our own


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_prompt_said_again_is_copied(language: str) -> None:
    for text in OURS[language]:
        said = re.sub(r"\$[a-z_]+", "7", text)
        assert copied("Halve it", said, OURS[language], "Why?"), text


@pytest.mark.parametrize(
    "title",
    [
        "Understand the problem", "Identify the given information", "Calculate the total cost",
        "Solve for x", "Solve the equation", "Check the result", "Check the answer",
        "Verify the solution", "Check by another method", "State the final answer",
        "Final answer", "Count the letters", "Find the number of legs", "Next step",
        "理解题意", "列出方程", "求解方程", "计算总价", "验算结果", "检验答案", "得出最终答案",
        "用另一种方法检验", "分析已知条件",
    ],
)  # fmt: skip
def test_what_models_call_their_steps_stands_in_none_of_ours(title: str) -> None:
    """Else a copy could not be told from a model's own words."""
    told = OURS["zh" if title > "z" else "en"]
    assert not copied(title, f"{title}: we do it.", told, "Why?")
