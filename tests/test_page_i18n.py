"""The page speaks English and Chinese, completely and with the same blanks to fill."""

from __future__ import annotations

import re
from string import Template

import pytest

from page.i18n import FOLDER, LANGUAGES, Words, language_of, load
from reasoning import errors


def flat(words: dict[str, object], prefix: str = "") -> dict[str, str]:
    result: dict[str, str] = {}
    for key, value in words.items():
        inner = flat(value, f"{key}.") if isinstance(value, dict) else {key: str(value)}
        result |= {prefix + name: text for name, text in inner.items()}
    return result


def test_both_languages_have_the_same_keys() -> None:
    assert flat(load("en")).keys() == flat(load("zh")).keys()


def test_no_language_asks_for_a_blank_that_the_other_does_not_have() -> None:
    english, chinese = flat(load("en")), flat(load("zh"))
    spare = {"message", "remedy", "detail"}  # the core's own English words may be left out
    for key, text in english.items():
        blanks = set(Template(text).get_identifiers())
        assert set(Template(chinese[key]).get_identifiers()) - spare <= blanks | spare, key
        assert blanks - spare <= set(Template(chinese[key]).get_identifiers()), key


def test_no_word_is_empty_and_chinese_is_chinese() -> None:
    same = {"title", "way.coat"}  # names
    for key, text in flat(load("zh")).items():
        assert text.strip()
        only_blanks = not re.sub(r"\$\w+|\W", "", text)
        assert only_blanks or key in same or re.search(r"[\u4e00-\u9fff]", text), key


def leaves(kind: type[errors.StepwiseError]) -> list[type[errors.StepwiseError]]:
    below = kind.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [kind]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_failure_of_the_core_has_words_of_its_own(language: str) -> None:
    assert {kind.code for kind in leaves(errors.StepwiseError)} <= load(language)["failed"].keys()


def test_a_code_unknown_here_has_general_words() -> None:
    assert Words("en").of("failed", "novel", message="It broke.", remedy="Mend it.") == (
        "It broke. Mend it."
    )


@pytest.mark.parametrize(
    ("speed", "english", "chinese"),
    [
        (12.3, "about 12 tokens/s", "每秒约 12 个词元"),
        (4.4, "about 4.5 tokens/s", "每秒约 4.5 个词元"),
        (0.6, "under 1 token/s", "每秒不到 1 个词元"),
        (None, "", ""),
    ],
)
def test_a_rate_is_told_as_far_as_it_can_be_foreseen(
    speed: float | None, english: str, chinese: str
) -> None:
    assert (Words("en").rate(speed), Words("zh").rate(speed)) == (english, chinese)


def test_a_blank_that_is_not_filled_is_an_error() -> None:
    with pytest.raises(KeyError):
        Words("en")("step")


@pytest.mark.parametrize(
    ("wanted", "locale", "language"),
    [
        (None, "zh-CN", "zh"),
        (None, "zh", "zh"),
        (None, "en-GB", "en"),
        (None, "fr-FR", "en"),
        (None, None, "en"),
        ("en", "zh-CN", "en"),
        ("zh", "en-US", "zh"),
        ("xx", "zh-TW", "zh"),
    ],
)
def test_the_switch_wins_over_the_browser_and_the_browser_over_english(
    wanted: str | None, locale: str | None, language: str
) -> None:
    assert language_of(wanted, locale) == language


def test_one_step_is_one_step() -> None:
    assert Words("en").steps(1) == "1 step"
    assert Words("en").steps(2) == "2 steps"


def test_no_word_is_unused() -> None:
    source = "".join(path.read_text() for path in FOLDER.parent.glob("*.py"))
    for key, value in load("en").items():
        assert isinstance(value, dict) or re.search(f"[\"']{key}[\"']", source), key
