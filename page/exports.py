"""The exports of a run as text, and the import of one. Pure; no Streamlit.

as_markdown     to read and to put into notes
as_messages     what OpenAI's chat format calls a conversation
as_json         all of it; `read_trace` shows it again (docs/trace.schema.json)

The page to send to somebody is in page/html_export.py, the menu in page/export_menu.py.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from page.i18n import Words
from page.report import NOT_STARTED, ReportStep, make_report
from page.wording import answer_text
from reasoning.events import Step, Trace
from reasoning.traces import trace_from_json, trace_to_json

LARGEST_FILE = 20_000_000  # characters of a trace that is brought back
NAME_LENGTH = 60
_MEANING = re.compile(r"[\\`*_\[\]<>#$~|&!]|^[-+=:]")
_NUMBER = re.compile(r"^(\d+)(?=[.)])")  # would begin a list
_NEEDLESS = re.compile(  # what plain_line() escapes and a file for people need not
    r"(?P<kept>\\\\|\\\$|\$[^$]*\$|^\d+\\[.)])|\\[\"',;?/%^{}:!().]|(?<=\S)\\[=+-]"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ufeff\ud800-\udfff]")
_BETWEEN = re.compile(r"\W+")


def as_json(trace: Trace) -> str:
    """The trace, with its version: everything that `read_trace` needs."""
    return json.dumps(trace_to_json(trace), ensure_ascii=False, indent=2) + "\n"


def read_trace(text: str) -> Trace:
    """The trace in a file. Raises ValueError, in one line, for whatever is none."""
    if len(text) > LARGEST_FILE:
        raise ValueError(f"expected at most {LARGEST_FILE:,} characters, got {len(text):,}")
    try:
        return trace_from_json(_read_json(text.removeprefix("\ufeff")))
    except RecursionError:
        raise ValueError("expected a trace, got JSON nested without end") from None


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"expected JSON: {error}") from None


def as_messages(trace: Trace, steps: bool = True) -> str:
    """The conversation for any server's /v1/chat/completions, as JSON.

    The steps stand in the assistant's content before the answer: there every server takes
    them and every model reads them. A field of their own some servers refuse and most drop.
    """
    started = trace.started or NOT_STARTED
    messages: list[dict[str, str]] = []
    for turn in started.history:
        reasoning = turn.reasoning if steps else ""
        messages += _exchange(turn.question, [reasoning, turn.answer])
    thought = [_thought(step) for step in trace.steps] if steps else []
    thought += ["---"] if thought and trace.answer else []
    messages += _exchange(started.question, [*thought, answer_text(trace)])
    return json.dumps(messages, ensure_ascii=False, indent=2) + "\n"


def _exchange(question: str, parts: list[str]) -> Iterator[dict[str, str]]:
    yield {"role": "user", "content": question}
    if content := "\n\n".join(part for part in parts if part):
        yield {"role": "assistant", "content": content}


def _thought(step: Step) -> str:
    return f"**{step.number}. {step.title}**\n\n{step.content}"


def as_markdown(trace: Trace, words: Words, steps: bool = True) -> str:
    """The run as Markdown for any viewer. The model's own headings stay below ours."""
    run = make_report(trace, words, steps)
    headline, made = unescape_line(run.headline), unescape_line(run.made)
    parts = [f"# {headline}", *_quoted(run.question), made]
    if run.earlier:
        parts.append(f"## {words.of('take', 'earlier')}")
    for turn in run.earlier:
        parts += [*_quoted(turn.question), *turn.answer]
    if run.steps:
        parts.append(f"## {words('steps_head')}")
    for step in run.steps:
        parts += _step(step)
    parts += _remarked(run.remarks)
    if run.answer:
        parts += [f"## {words('answer')}", *run.answer]
    parts += _remarked((run.ending,) if run.ending else ())
    return "\n\n".join([*parts, "---", run.total]) + "\n"


def _step(step: ReportStep) -> list[str]:
    head = f"### {step.number}. {unescape_line(step.title)}"
    return [head, f"*{step.facts}*", *_remarked(step.remarks), *step.content]


def _remarked(remarks: tuple[str, ...]) -> list[str]:
    return ["\n>\n".join(f"> {unescape_line(remark)}" for remark in remarks)] if remarks else []


def unescape_line(line: str) -> str:
    """A safe line without the backslashes that only a renderer of Streamlit's needs."""
    return _NEEDLESS.sub(lambda match: match[0] if match["kept"] else match[0][1:], line)


def _quoted(question: str) -> list[str]:
    """A question as a quotation that reads as it was typed."""
    lines = [_plain(line) for line in question.strip().splitlines()]
    quoted = "\n".join(f"> {line}  " if line else ">" for line in lines)
    return [quoted] if quoted else []


def _plain(line: str) -> str:
    one = _CONTROL.sub("", " ".join(line.split()))
    return _NUMBER.sub(r"\1\\", _MEANING.sub(r"\\\g<0>", one))


def file_name(question: str, ending: str) -> str:
    """A short name that every file system takes, with the question's first words."""
    words = _BETWEEN.sub("-", unicodedata.normalize("NFC", question[: 4 * NAME_LENGTH]))
    name = words[:NAME_LENGTH].strip("-_")
    return f"stepwise-{name}.{ending}" if name else f"stepwise.{ending}"
