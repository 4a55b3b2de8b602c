"""What the models are told: the files under prompts/, filled in.

A prompt is a file with $variables (string.Template, so that JSON's braces stay
readable; a dollar sign is written $$). A variable that is not given is an error.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from string import Template

FOLDER = Path(__file__).resolve().parent.parent / "prompts"
LANGUAGES = ("en", "zh")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_KANA_OR_HANGUL = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")


UNTITLED = {"en": "Step {}", "zh": "第 {} 步"}


@cache
def _template(path: str) -> Template:
    return Template((FOLDER / path).read_text(encoding="utf-8").strip())


def prompt(language: str, name: str, **variables: object) -> str:
    """The prompt `name` in a language, filled in. KeyError names a missing variable."""
    return _template(f"{language}/{name}.md").substitute(variables)


def plain_prompt(name: str, **variables: object) -> str:
    """A prompt that has one language only: the one its model was trained with."""
    return _template(f"{name}.md").substitute(variables)


def untitled(language: str, number: int) -> str:
    """The title of a step that has none."""
    return UNTITLED[language].format(number)


def language_of(text: str) -> str:
    """The language to prompt in: "zh" for Chinese, "en" for all the rest.

    Japanese and Korean texts hold Chinese characters too; their own letters tell.
    """
    chinese = _CHINESE.search(text) and not _KANA_OR_HANGUL.search(text)
    return "zh" if chinese else "en"
