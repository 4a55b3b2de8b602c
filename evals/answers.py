r"""Taking the final answer out of a reply for the grader, the same for every arm. Pure.

Every question ends with `REQUEST`. What is read then depends on what the task's grader takes:

* `result`, a number: `reasoning.voting.final_answer` (the last \boxed{}, else what stands
  behind "answer:" or "the answer is", else what the first sentence states, else the last one)
* `line`, words: the last \boxed{}, else the rest of the line behind the last "answer:" or
  "the answer is", else the last line; without Markdown's stars and the full stop
* `told`, for math-verify, which finds the answer by itself: the reply from its last "answer:"
  or "the answer is" on, else all of it. Else it takes a list's last number for the answer
"""

from __future__ import annotations

import re

from reasoning.boxes import find_boxes
from reasoning.voting import final_answer

REQUEST = '\n\nEnd with a line that says "Answer: " and then the final answer alone.'
_TOLD = re.compile(r"\banswer\W*(?:\s+is\b\W*|:\W*)", re.I)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_ENDS = " \t.*_`\"'“”"


def read_result(content: str) -> str:
    """The number (or other value) that a reply comes down to; "" where it is unclear."""
    return final_answer(content)


def from_answer_on(content: str) -> str:
    """A reply from its last "answer:" on; all of it where it never says so."""
    begins = [found.start() for found in _TOLD.finditer(content)]
    return content[begins[-1] :] if begins else content


def read_line(content: str) -> str:
    """The words that a reply ends in as its answer."""
    if found := find_boxes(content):
        return _TEXT.sub(r"\1", found[-1]).strip(_ENDS)
    parts = _TOLD.split(content)
    lines = [one.strip(_ENDS) for one in parts[-1].splitlines() if one.strip(_ENDS)]
    if not lines:
        return ""
    return lines[0] if len(parts) > 1 else lines[-1]
