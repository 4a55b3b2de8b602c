"""Text of a model -> Reply | BadReply, and what can be shown before it is whole.

Pure: no I/O, no clock. Reading is strict first; the tolerant ways are for servers
that do not constrain what the model writes. Whatever the text, `parse_reply` returns
a Reply or a BadReply and never raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jiter
import json_repair

StepAction = Literal["continue", "final_answer"]
Schema = Mapping[str, Any]

KEYS = ("title", "content", "next_action")
FINAL_WORDS = {"final", "finalanswer", "answer", "finish", "finished", "done", "stop", "end"}
MAX_OBJECTS_TRIED = 50  # a text of nothing but braces must not take quadratic time
MAX_REPAIRED, MAX_BRACES_REPAIRED = 20_000, 200  # characters, and of them "{"
MAX_CONTENT = 100_000  # characters; a page must survive whatever a server sends
MAX_TITLE = 200
WENT_ROUND = "The reply went round in circles."


@dataclass(frozen=True, slots=True)
class Reply:
    """A step as the model wrote it. An empty title is for the reader to fill in."""

    title: str
    content: str
    action: StepAction


@dataclass(frozen=True, slots=True)
class Draft:
    """What is readable of an unfinished reply. There is no action: `fi` is not `final`.

    `titled` says that the title is whole, also where it is "".
    """

    title: str = ""
    content: str = ""
    titled: bool = False


@dataclass(frozen=True, slots=True)
class BadReply:
    """A reply that cannot be a step. `cause` is a stable word, `draft` what was readable."""

    cause: Literal["cut", "loop", "empty", "not_json", "no_content", "repeat"]
    detail: str
    draft: Draft = Draft()


def step_schema(*actions: StepAction) -> Schema:
    """The JSON schema of a step that may end only in one of `actions`.

    No maxLength: under xgrammar 0.2.8 a bounded string forbids every escape, and
    with it newlines, quotes and LaTeX. Length is bounded by max_tokens.
    """
    return {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "content": {"type": "string"},
            "next_action": {"type": "string", "enum": list(actions)},
        },
        "required": list(KEYS),
        "additionalProperties": False,
    }


# What every step begins with as compact as a server writes it: it need not be decoded.
BEGUN = f'{{"{KEYS[0]}":"'
_GRAMMAR = r"""root ::= text ",\"content\":\"" text ",\"next_action\":\"" (ACTIONS) "\"}"
text ::= "\"" | [^\0-\x1f\"\\\r\n] text | "\\" escape text
escape ::= ["\\/bfnrt] | "u" [A-Fa-f0-9] [A-Fa-f0-9] [A-Fa-f0-9] [A-Fa-f0-9]
"""


def step_grammar(*actions: StepAction) -> str:
    """What follows BEGUN in a step that may end only in one of `actions`, in xgrammar's EBNF.

    As a regular expression it would take xgrammar 0.2 87 ms a token in the place of 0.02.
    """
    return _GRAMMAR.replace("ACTIONS", " | ".join(f'"{action}"' for action in actions))


def parse_reply(text: str, finish_reason: str | None = "stop") -> Reply | BadReply:
    """The step in a finished reply, or why there is none.

    Several objects: the first that has a step's keys counts. A text that its
    server cut short ("length") or broke off for looping ("repetition") is a step
    only if it is whole all the same.
    """
    for values in _objects(text):
        reply = _reply(values)
        if isinstance(reply, Reply):
            return reply
    draft = read_partial(text)
    if finish_reason == "length":
        return BadReply("cut", "The reply was cut before its end.", draft)
    if finish_reason == "repetition":
        return BadReply("loop", WENT_ROUND, draft)
    return _repaired(text) or _why(text, draft)


def read_partial(text: str) -> Draft:
    """The title and content that can already be shown of a reply still being written.

    Grows with the text, and never shows half an escape: of a good reply, each
    draft's title and content begin the final ones. Where the text is no JSON any
    longer, or has a key again, it is what was readable before.
    """
    start = text.find("{")
    if start < 0:
        return Draft()
    values = _begun(text[start:])
    if not isinstance(values, dict):
        return Draft()
    title, content = values.get("title"), values.get("content")
    titled = "title" in values and next(reversed(values)) != "title"
    if isinstance(title, str):
        title = _text(title) if titled else _steady(title)
    else:
        title, titled = "", titled and title is None
    content = _steady(content)[:MAX_CONTENT] if isinstance(content, str) else ""
    return Draft(one_line(title), content, titled)


def _begun(text: str) -> Any:
    """What can be read of its longest beginning that is JSON; None where none is."""
    value, readable, broken, size = None, 0, len(text) + 1, len(text)
    while readable < size < broken:
        try:
            value = jiter.from_json(
                _encoded(text[:size]), partial_mode="trailing-strings", catch_duplicate_keys=True
            )
            readable = size
        except ValueError:
            broken = size
        size = (readable + broken) // 2
    return value


# An object, fenced or not, and what more text may make one of: "{2, 3}" is a set, and "```js" code.
_BEGINS_JSON = re.compile(r"(?:```(?:json)?\s*)?\{\s*[\"'}]", re.I)
_MAY_BECOME_JSON = re.compile(r"`{1,2}|```(?:j|js|jso|json)?\s*(?:\{\s*)?|\{\s*", re.I)


def parse_answer(text: str) -> str:
    """The Markdown of an answer, also where the model wrote JSON out of habit.

    After a chain of JSON steps a model may answer in JSON although asked for free
    text. Then its content is the answer, as far as it is written.
    """
    start = text.lstrip()
    if _MAY_BECOME_JSON.fullmatch(start):
        return ""
    if not _BEGINS_JSON.match(start):
        return text
    reply, shown = parse_reply(text), read_partial(text).content
    if isinstance(reply, Reply) and reply.content.startswith(shown):
        return reply.content
    return shown or _strings(start)


def _strings(text: str) -> str:
    """The text values of an object that has other keys than a step's."""
    try:
        values = json.loads(text.strip("`\n").removeprefix("json"), strict=False)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(values, dict):
        return ""
    return "\n\n".join(text for value in values.values() if (text := _text(value)))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in the text that look like a step, in order."""
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_first_of_each)
    start = text.find("{")
    for _ in range(MAX_OBJECTS_TRIED):
        if start < 0:
            return
        try:
            values, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if isinstance(values, dict) and any(key in values for key in KEYS):
            yield values
        start = text.find("{", end)


def _first_of_each(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key that comes again the value that was shown."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        values.setdefault(key, value)
    return values


def _reply(values: Mapping[str, Any]) -> Reply | BadReply:
    content = _text(values.get("content"))
    if not content.strip():
        return BadReply("no_content", "The reply has no content.")
    action = _action(values.get("next_action"))
    return Reply(one_line(_text(values.get("title"))), content[:MAX_CONTENT], action)


def _repaired(text: str) -> Reply | None:
    """One last reading by a repairer that accepts almost anything, so: only a whole step.

    Its time grows with the square of what opens and never closes.
    """
    if "{" not in text or "next_action" not in text or text.count("{") > MAX_BRACES_REPAIRED:
        return None
    try:
        values = json_repair.loads(text[text.index("{") :][:MAX_REPAIRED])
    except (ValueError, RecursionError, IndexError, TypeError):
        return None
    if not isinstance(values, dict) or "next_action" not in values:
        return None
    reply = _reply(values)
    return reply if isinstance(reply, Reply) else None


def _why(text: str, draft: Draft) -> BadReply:
    if not text.strip():
        return BadReply("empty", "The reply is empty.")
    if any(True for _ in _objects(text)):
        return BadReply("no_content", "The reply has no content.", draft)
    if not draft.content and not text.lstrip().startswith(("{", "[", "```")):
        draft = Draft("", text.strip()[:MAX_CONTENT])
    return BadReply("not_json", "The reply is not the JSON object that was asked for.", draft)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return printable(json.dumps(value, ensure_ascii=False))
    return printable(mend_latex(value))


def one_line(text: str) -> str:
    """The text as a title: one line, capped."""
    return " ".join(text[: MAX_TITLE * 2].split())[:MAX_TITLE]


def _action(value: Any) -> StepAction:
    """However "Final Answer" is spelled, it is final; all else goes on."""
    word = re.sub(r"[\W_]+", "", value.casefold()) if isinstance(value, str) else ""
    return "final_answer" if word in FINAL_WORDS else "continue"


def whole_characters(text: str) -> str:
    """The text with lone surrogates, which no encoder takes, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# Control characters but tab and newline, those of eight bits too; and what turns the direction
# of what follows (U+202E and its kin), so that it reads as what it is not.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A model's or a server's text without what no terminal, page or file should get.

    All of it comes in through here: where chunks.py reads what a server sent, an error's words too,
    where JSON is decoded, where a trace is imported. Nothing need be done after.
    """
    return _UNPRINTABLE.sub("", whole_characters(text))


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def clean_text(text: str) -> str:
    """A person's text without what no model should get: control characters, lone surrogates."""
    return _CONTROL.sub("", whole_characters(text)).strip()


# JSON knows the escapes \b \f \n \r \t, so a model that writes \frac or \times with one
# backslash gets a control character and "rac", "imes". Form feed, backspace and a bare
# carriage return have no other use in a step; tab and newline do, so after them only what
# begins no line of prose or code is mended: not the "u" of \nu, nor the "e" of \ne.
_LATEX = re.compile(
    r"(?:[\b\f]|\r(?!\n))(?=[A-Za-z])"
    r"|\t(?=(?:ext(?:bf|it|rm|tt|sf|up)?|frac|ilde)\{|(?:imes|heta|au|herefore|riangle)\b)"
    r"|\n(?=(?:eq|abla|otin|mid|leq|geq)(?![A-Za-z]))"
)
_ESCAPES = {"\b": "\\b", "\f": "\\f", "\r": "\\r", "\t": "\\t", "\n": "\\n"}
_LONGEST_NAME = len("\therefore ")


def mend_latex(text: str) -> str:
    """The text with LaTeX commands restored whose backslash JSON read as an escape."""
    return _LATEX.sub(lambda match: _ESCAPES[match.group()], text)


def _steady(text: str) -> str:
    """The text of an unfinished string without a tail that more text may still change."""
    whole = whole_characters(text)
    tail = re.search(r"[\b\f\r\t\n][A-Za-z{]*\Z", whole[-_LONGEST_NAME:])
    if tail:
        whole = whole[: len(whole) - len(tail.group())]
    return printable(mend_latex(whole))
