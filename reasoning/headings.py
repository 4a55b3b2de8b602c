"""What a line of a text begins: a heading and what it says, an item, a conclusion. Pure.

A heading is a line with Markdown's marks, a line that is nothing but bold, or one that
begins with "Step 3:". What a line may still become is told from its beginning, by partial
matches, so that the rest of a text need not wait.
"""

from __future__ import annotations

import regex

from reasoning.parsing import one_line
from reasoning.splitting import is_open

LONGEST_LINE = 120  # characters of a line without marks that is a heading

_DIGITS = r"[\d一二三四五六七八九十]"
_NUMBER = rf"(?:step\s*\d+|步骤\s*{_DIGITS}+|第\s*{_DIGITS}+\s*步)"
_AFTER = "[:：.)—-]"
_LISTED = r"(?:\d{1,2}[.)][ \t]+)?"  # "1. **Title**"
_MARKED = regex.compile(r"#{1,6}(?:[ \t]+(\S.*)|[ \t]*)")
_BOLD = regex.compile(rf"{_LISTED}\*\*([^*]+)\*\*[:：]?\s*")
_NUMBERED = regex.compile(rf"{_NUMBER}\s*{_AFTER}\s*(\S.*)", regex.I)
_LEADING_NUMBER = regex.compile(rf"\A{_NUMBER}\s*(?:{_AFTER}\s*|$)", regex.I)
ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"),
    *("ninth", "tenth", "next", "last", "final"),
)
_LEADING_ORDINAL = regex.compile(
    rf"\A(?:the\s+)?(?:{'|'.join(ORDINALS)})\s+step\s*{_AFTER}\s*", regex.I
)
_ANSWER = regex.compile(
    r"(?:(?:give|state|provide|write)\s+)?(?:the\s+|my\s+)?"
    r"(?:final\s+(?:answer|result|conclusion)|answer(?:\s+(?:to\s+)?the\s+question)?|conclusion)"
    r"\s*(?:\.|[:：]\s*(?P<told>.*))?"
    r"|(?:给出)?(?:(?:最终|最后)?(?:答案|结论)|最终结果)\s*(?:[:：]\s*(?P<zh>.*))?",
    regex.I,
)

_ITEM = regex.compile(r"(\d{1,2})(?:[.)][ \t]{1,4}|[、．][ \t]{0,4})(\S.*)")
_THOUGHT = regex.compile(r"=|\w{2}[.!?][ \t]+\S|[。！？][^\n]")
_BOLD_LEAD = regex.compile(r"\d{1,2}[.)、．][ \t]{0,4}\*\*([^*]{3,60}?)[:：]?\*\*[:：.]?[ \t]")
_BEGINS = regex.compile(
    r"(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|next|then|now|after that|finally|lastly)\b"
    r"|首先|其次|接着|接下来|然后|现在|最后",
    regex.I,
)
_CONCLUDES = regex.compile(
    r"(?:therefore|thus|hence|so|consequently|in conclusion|in summary|to conclude"
    r"|(?:finally, )?the (?:final |correct )?answer)\b|因此|所以|综上|由此可得",
    regex.I,
)
ANSWER_LINE = regex.compile(
    r"^[ \t]*[>*_#-]{0,4}[ \t]{0,2}(?:(?:the )?(?:final )?answer|(?:最终|最后)?答案)"
    r"[ \t*_]{0,4}[:：][ \t*_]{0,4}",
    regex.I | regex.M,
)
_LINE_BEGINNINGS = (_BEGINS, _CONCLUDES, ANSWER_LINE)


def parse_heading(line: str) -> str | None:
    """The words of a heading without its number, "" for a mere number; None for another line."""
    words = _marked(line)
    if words is None and len(line) <= LONGEST_LINE:
        found = _BOLD.fullmatch(line) or _NUMBERED.fullmatch(line)
        words = _words(found[1]) if found else None
    return words


def _marked(line: str) -> str | None:
    """The same for a line with Markdown's marks alone."""
    found = _MARKED.fullmatch(line)
    return _words(found[1] or "") if found else None


def is_numbered(line: str) -> bool:
    """Whether a line begins with "Step 3:"."""
    return _LEADING_NUMBER.match(line) is not None


def strip_number(words: str) -> str:
    """Without "Step 3:" before them: whoever shows a step counts it already."""
    return _LEADING_NUMBER.sub("", _LEADING_ORDINAL.sub("", words, count=1), count=1)


def is_sentence(line: str) -> bool:
    """Whether a heading's line may be all that there is of its step: "Step 1: 3 + 4 = 7"."""
    if _marked(line) is not None:
        return False
    return bool(_NUMBERED.fullmatch(line)) or bool(regex.search(r"\d", parse_heading(line) or ""))


def may_be_heading(line: str) -> bool:
    """Whether a line that is being written can become a heading; of a heading, always."""
    known = (_MARKED, _BOLD, _NUMBERED) if len(line) <= LONGEST_LINE else (_MARKED,)
    return any(words.fullmatch(line, partial=True) for words in known)


def parse_item(line: str) -> tuple[int, str] | None:
    """The number and the words of an item of a list that is not indented."""
    found = _ITEM.match(line)
    return (int(found[1]), found[2].rstrip()) if found else None


def bold_lead(line: str) -> str:
    """The bold words that an item begins with, as in "2. **Solve it**: ..."; "" without any."""
    found = _BOLD_LEAD.match(line[:LONGEST_LINE])
    return found[1].strip() if found else ""


def is_thought(line: str) -> bool:
    """Whether an item thinks, in two sentences or an equation, and does not only plan to."""
    return _THOUGHT.search(line[:LONGEST_LINE]) is not None


def may_be_item(line: str) -> bool:
    return _ITEM.fullmatch(line, partial=True) is not None


def begins_step(line: str) -> bool:
    """Whether a paragraph says that it is the next of several."""
    return _BEGINS.match(line) is not None


def concludes(line: str) -> bool:
    """Whether a line says that it follows from all before it."""
    return _CONCLUDES.match(line) is not None


def may_begin(line: str) -> bool:
    """Whether more of a line may tell that it begins, concludes or tells the answer."""
    return any(is_open(words.match(line, partial=True)) for words in _LINE_BEGINNINGS)


def parse_answer_heading(words: str) -> str | None:
    """What a heading tells of the answer, "" where it only announces it; None for a step's."""
    found = _ANSWER.fullmatch(words)
    return (found["told"] or found["zh"] or "").strip() if found else None


def _words(text: str) -> str:
    """What is there to read of a heading; punctuation alone is nothing."""
    bare = text.strip("# *").rstrip(":：").strip("# *")
    words = one_line(strip_number(bare)).rstrip(":：")
    return words if regex.search(r"\w", words) else ""
