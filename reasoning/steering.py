"""A step that a reader changed. Pure.

What a steered chain does after it, and the form in which its model reads it again, is
the business of each way of thinking.
"""

from __future__ import annotations

from dataclasses import replace

from reasoning.events import Step
from reasoning.parsing import clean, one_line


def edited(step: Step, title: str, content: str) -> Step:
    """The step with the reader's words, whole and not final: the chain goes on after it.

    `raw` becomes the content alone, with the white space that stood around the model's text.
    """
    title, content = one_line(clean(title)) or step.title, clean(content)
    action = "continue" if step.action == "final_answer" else step.action
    raw = _around(step.raw, content)
    return replace(
        step, title=title, content=content, action=action, raw=raw, edited=True, cut=False
    )


def _around(raw: str, content: str) -> str:
    start = raw[: len(raw) - len(raw.lstrip())]
    end = raw[len(raw.rstrip()) :] if raw.strip() else ""
    return start + content + end
