"""What the models are told: the files under prompts/, filled in.

A prompt is a file with $variables (string.Template, so that JSON's braces stay
readable; a dollar sign is written $$). A variable that is not given is an error.
A reader may send a text of his own in the place of a file: `check_prompt` says
whether it can be filled in.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from string import Template

from reasoning.errors import BadPrompt

FOLDER = Path(__file__).resolve().parent.parent / "prompts"
LANGUAGES = ("en", "zh")
MAX_PROMPT = 8_000  # characters, as of a question
NEEDED = {"question"}  # without it the model would never hear what is asked
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_KANA_OR_HANGUL = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")


UNTITLED = {"en": "Step {}", "zh": "第 {} 步"}
# What a model that is led goes on under, in a message of its own voice.
ANSWER = {"en": "Answer", "zh": "答案"}
DOUBT = {"en": "Check step {} by another way", "zh": "换一种方法检验第 {} 步"}
AS_JSON = {  # it may stand behind a prompt that asks for Markdown
    "en": "A program reads this answer: in the place of Markdown write JSON alone, "
    "with no code fence and no words around it.",
    "zh": "这个答案由程序读取：不要用 Markdown，只写 JSON，不加代码块，前后不加任何文字。",
}
BY_SCHEMA = {"en": "It must match this JSON Schema: ", "zh": "它必须符合这个 JSON Schema："}


@cache
def prompt_text(language: str, name: str) -> str:
    """The prompt `name` as it stands in its file, with its $variables.

    One that has no language (Satori's) is the same in each.
    """
    own = FOLDER / language / f"{name}.md"
    path = own if own.is_file() else FOLDER / f"{name}.md"
    return path.read_text(encoding="utf-8").strip()


def prompt(language: str, name: str, **variables: object) -> str:
    """The prompt `name` in a language, filled in. KeyError names a missing variable."""
    return Template(prompt_text(language, name)).substitute(variables)


def check_prompt(language: str, name: str, text: str) -> None:
    """Raises BadPrompt where `text` cannot stand in the place of the prompt `name`."""
    mine, known = Template(text), set(Template(prompt_text(language, name)).get_identifiers())
    if not text.strip():
        raise BadPrompt(f'The prompt "{name}" is empty.', "Write one, or take ours again.")
    if len(text) > MAX_PROMPT:
        message = f'The prompt "{name}" has {len(text):,} characters.'
        raise BadPrompt(message, f"At most {MAX_PROMPT:,} are taken.")
    if not mine.is_valid():
        message = f'In the prompt "{name}" a dollar sign begins no variable.'
        raise BadPrompt(message, "Write $$ for a dollar sign.")
    used = set(mine.get_identifiers())
    if unknown := sorted(used - known):
        may = ", ".join(f"${it}" for it in sorted(known)) or "none"
        message = f'The prompt "{name}" has a variable ${unknown[0]}, which nobody fills in.'
        raise BadPrompt(message, f"Its variables: {may}. Write $$ for a dollar sign.")
    if missing := sorted(known & NEEDED - used):
        raise BadPrompt(f'The prompt "{name}" has no ${missing[0]}.', f"Write ${missing[0]} in it.")


def default_title(language: str, number: int) -> str:
    """The title of a step that has none."""
    return UNTITLED[language].format(number)


def format_heading(title: str) -> str:
    """The heading that a text stands under."""
    return f"### {title}\n\n"


def language_of(text: str) -> str:
    """The language to prompt in: "zh" for Chinese, "en" for all the rest.

    Japanese and Korean texts hold Chinese characters too; their own letters tell.
    """
    chinese = _CHINESE.search(text) and not _KANA_OR_HANGUL.search(text)
    return "zh" if chinese else "en"
