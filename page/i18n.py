"""The page's words in the languages it speaks: the files under words/.

What the model writes is not in here, nor what it is told (prompts/).
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from reasoning.events import Queued
from serving.served import round_speed

FOLDER = Path(__file__).resolve().parent / "words"
LANGUAGES = ("en", "zh")


class Words:
    """One language's words. A name that is not given, or a key that is not there, is an error."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._words = load(language)

    def __call__(self, key: str, **values: object) -> str:
        return Template(self._words[key]).substitute(values)

    def of(self, table: str, code: str, **values: object) -> str:
        """The words for a code that the core gives; a code unknown here has general words."""
        words = self._words[table]
        return Template(words[code if code in words else "other"]).substitute(values)

    def examples(self, way: str) -> list[str]:
        """Three questions that fit a way of thinking."""
        table = self._words["example"]
        return [table.get(f"{way}_{n}", table[f"any_{n}"]) for n in (1, 2, 3)]

    def seconds(self, seconds: float) -> str:
        return self("seconds", seconds=f"{seconds:.1f}")

    def tokens(self, tokens: int) -> str:
        return self("tokens", tokens=f"{tokens:,}")

    def rate(self, speed: float | None) -> str:
        """Tokens/s to expect, as far as they can be foreseen."""
        if speed is None:
            return ""
        return self("rate", tokens=round_speed(speed)) if speed >= 1 else self("low_rate")

    def place(self, queued: Queued) -> str:
        """A place in a queue, as a number is written there: 3rd, 3."""
        return queued.ordinal if self.language == "en" else str(queued.place)

    def steps(self, steps: int) -> str:
        return self("one_step") if steps == 1 else self("many_steps", steps=steps)


@cache
def load(language: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))


def language_of(wanted: str | None, locale: str | None) -> str:
    """The language asked for on the page, else the browser's, else English."""
    for name in (wanted, (locale or "")[:2].lower()):
        if name in LANGUAGES:
            return name
    return LANGUAGES[0]
