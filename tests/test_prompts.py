"""What the models are told is short, shows no example, and says what the loop depends on."""

from __future__ import annotations

import re
from string import Template

import pytest

from reasoning.parsing import KEYS
from reasoning.prompts import FOLDER, LANGUAGES, prompt_text
from reasoning.think import WAYS

NAMES = sorted(path.stem for path in (FOLDER / "en").iterdir())
OURS = [(language, name) for language in LANGUAGES for name in NAMES]
LONGEST = {"en": 600, "zh": 240}  # characters; a system prompt is read anew for each question
EXAMPLE = re.compile(r"\d|example|e\.g\.|例|\\|[{}]|^#|```", re.I | re.M)


def filled(language: str, name: str, **values: object) -> str:
    """The prompt with each of its variables standing as a word, or as it is given."""
    text = Template(prompt_text(language, name))
    return text.substitute(dict.fromkeys(text.get_identifiers(), "N") | values)


@pytest.mark.parametrize(("language", "name"), OURS)
def test_no_prompt_shows_an_example(language: str, name: str) -> None:
    """A model copies what it is shown: no number, no formula, no object, no heading of a step."""
    assert not EXAMPLE.search(filled(language, name))


@pytest.mark.parametrize(("language", "name"), OURS)
def test_a_prompt_is_short(language: str, name: str) -> None:
    assert len(filled(language, name)) <= LONGEST[language]


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_fill_in_the_same_variables(name: str) -> None:
    english, chinese = (
        set(Template(prompt_text(language, name)).get_identifiers()) for language in LANGUAGES
    )
    assert english == chinese


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_prompts_name_what_the_loop_reads(language: str) -> None:
    in_json = filled(language, "step")
    words = [*(f'"{key}"' for key in KEYS), '"continue"', '"final_answer"', "LaTeX"]
    assert all(word in in_json for word in words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_json_asks_for_doubled_backslashes(language: str) -> None:
    word = {"en": "backslash", "zh": "反斜杠"}[language]
    told = {name for name in NAMES if word in prompt_text(language, name)}
    assert told == {"step"}


def test_every_way_that_asks_for_steps_is_held_to_this() -> None:
    sent = {name for way in WAYS.values() for name in way.prompts}
    assert sent - set(NAMES) == {"satori"}  # the model card's, to the letter
