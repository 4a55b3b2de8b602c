"""Steps in plain Markdown: a heading, the content, and a line that says what comes next.

The same loop as JSON steps with little around the words: a format costs small models accuracy
(arXiv 2408.02442), a heading costs fewer tokens than an object, and LaTeX needs no second
backslash. No grammar holds the model to it, so reading is tolerant: whatever the text,
`read_step` returns a Reply or a BadReply, and what `draft_of` shows of it only grows.
"""

from __future__ import annotations

import re

from reasoning.events import Answer, Emit
from reasoning.headings import heading, marked, may_be_heading, may_be_marked
from reasoning.replies import MAX_CONTENT, WENT_ROUND, BadReply, Draft, Reply, StepAction
from reasoning.step_loop import StepForm, StepLoop, ends
from reasoning.task import Task
from reasoning.way import ALL_SETTINGS, ALL_STEERS, Way

RUNS_ON = "\n## "  # a reply that begins a second step has written its own
PREAMBLE = 200  # characters before a heading that are dropped: "Sure, here is step 3:"
NEXT = {"continue": "Next: continue", "final_answer": "Next: final answer"}

_NEXT = re.compile(
    r"^[ \t*_>#-]*(?:next(?:[ _]?(?:action|step))?|下一步)[ *_]*[:：][ *_]*(?:the |give (?:the )?)?"
    r"(?:(?P<on>continue|go on|继续)|final|finish|answer|done|stop|end|最终|给出|结束|完成)"
    r"[^\n]{0,40}$",
    re.I | re.M,
)
_MAY_BE_NEXT = re.compile(r"[ \t*_>#-]*(?:n|ne|nex|next.*|下.*)?", re.I)


def read_step(text: str, finish_reason: str | None = "stop") -> Reply | BadReply:
    """The step in a finished reply, or why there is none.

    The heading may be of any level, bold, or a first line "Step 3: ..."; a short text before
    one with marks is dropped. A text without any is a step without a title, unless all it
    does is announce one. One that its server broke off counts if it says what comes next.
    """
    title, body = _parts(text, whole=True) or ("", "")
    content, action = _content(body, whole=True)
    draft = Draft(title, content)
    if finish_reason == "length" and action is None:
        return BadReply("cut", "The reply was cut before its end.", draft)
    if finish_reason == "repetition" and action is None:
        return BadReply("loop", WENT_ROUND, draft)
    if not text.strip():
        return BadReply("empty", "The reply is empty.")
    if not content or (not title and content.endswith((":", "："))):
        return BadReply("no_content", "The reply has no content.", draft)
    return Reply(title, content, action or "continue")


def draft_of(text: str) -> Draft:
    """What can be shown of a reply that is being written: each begins the final ones."""
    if (parts := _parts(text, whole=False)) is None:
        return Draft()
    return Draft(parts[0], _content(parts[1], whole=False)[0], titled=True)


def written(reply: Reply) -> str:
    return f"## {reply.title}\n\n{reply.content}\n\n{NEXT[reply.action]}"


def answer_of(text: str, whole: bool) -> str:
    """An answer as far as it is written, without a last line that says what comes next."""
    return _until_next(text, whole)[0]


def _parts(text: str, whole: bool) -> tuple[str, str] | None:
    """The title ("" for none) and the text under it; None while more text may decide it."""
    text, at = text.lstrip(), 0
    while at < PREAMBLE and at <= len(text):
        end = text.find("\n", at)
        if end < 0 and not whole:
            undecided = len(text) < PREAMBLE or _may_be_heading(text[at:], first=at == 0)
            return None if undecided else ("", text)
        line = text[at:] if end < 0 else text[at:end]
        if (title := _title(line.strip(), first=at == 0)) is not None:
            return title, text[at + len(line) :]
        at += len(line) + 1
    return "", text


def _may_be_heading(line: str, first: bool) -> bool:
    """Whether a line that is being written can become what `_title` takes for a heading."""
    return may_be_heading(line.lstrip()) if first else may_be_marked(line.lstrip())


def _title(line: str, first: bool) -> str | None:
    """The words of a heading, without its number; None for any other line."""
    if _NEXT.match(line):
        return None
    return heading(line) if first else marked(line)


def _content(body: str, whole: bool) -> tuple[str, StepAction | None]:
    """The text under a heading up to the next step, and what the step says comes next."""
    alone, *another = body.split(RUNS_ON, 1)
    content, action = _until_next(alone, whole or bool(another))
    return content.strip()[:MAX_CONTENT], action


def _until_next(text: str, whole: bool) -> tuple[str, StepAction | None]:
    """The text before the line that says what comes next, and what that says, if there is one.

    While more is to come, the last line is held back if it may become that line.
    """
    start = len(text) if whole else text.rfind("\n") + 1
    if found := _NEXT.search(text, 0, start):
        return text[: found.start()], "continue" if found["on"] else "final_answer"
    return text[:start] if _MAY_BE_NEXT.fullmatch(text, start) else text, None


HEADINGS = StepForm(
    prompt="heading_step",
    hints={
        "cut": "heading_cut", "loop": "heading_cut", "repeat": "retry_repeat",
        "": "heading_format",
    },
    read=read_step,
    draft=draft_of,
    write=written,
    read_answer=answer_of,
    stop=(RUNS_ON,),
)  # fmt: skip


async def heading_steps(task: Task, emit: Emit) -> Answer:
    """A chain of steps under headings, and its answer. Raises StepwiseError."""
    return await StepLoop(task, HEADINGS, emit).answer()


RETRIES = ("heading_cut", "heading_format", "retry_repeat")

HEADING_STEPS = Way(
    heading_steps,
    prompts=("heading_step", "next", "doubt", *RETRIES, "answer"),
    steers=ALL_STEERS,
    settings=ALL_SETTINGS,
    ends=ends,
)
