"""What an answer comes down to, and how many of several answers agree. Pure.

The final answer is the last box, else what stands behind "the answer is", else what the
first sentence states (the prompts ask for that), else what the last one states: a choice's
letter, yes or no, a number, or a text so short that it is the answer itself. What none of
these tells is unclear, and unclear answers agree with nobody.

Numbers are compared by value (9.0 is 9, \\frac{1}{2} is 0.5, 5{,}050 is 5050) and without
their units, for all of them answer one question. It knows no algebra: x+1 and 1+x differ.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from reasoning.boxes import find_boxes
from reasoning.self_consistency import Vote, rank_answers

SHORT = 40  # characters: what is longer explains and does not name
LONGEST = 20_000  # characters of its end that are read; no answer needs more
DIGITS = 60  # of a number that is compared by value

_NUMBER = r"(?:(?<![\w)])[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+(?:\.\d+)?)?"
_FREE = rf"(?<![A-Za-z0-9_.,/:]){_NUMBER}(?![A-Za-z_:^]|\d|\.\d)"  # part of no other thing
_UNIT = r"(?:\s*[%°$€£¥]|\s+[^\W\d_]{2,}(?:[ /][^\W\d_]+)*|[\u4e00-\u9fff]{1,3})?"
_WHOLE = re.compile(rf"[$€£¥]?\s*({_NUMBER}){_UNIT}")
_NUMBERS = re.compile(_FREE)
_EQUAL = re.compile(  # in "the value of x in x - 19 = -7 is 12" the equation states nothing
    rf"[=≈]\s*[$€£¥]?({_FREE})(?!\s*(?:(?:is|are|was|were|has)\b|[的中里]))"
)
_STATED = re.compile(
    rf"(?:\b(?:is|are|was|were|equals|has|have|be|only|exactly)|[是为有共剩]|等于)\s*[$€£¥]?({_FREE})"
)
_OPEN = re.compile(  # behind its last "=" an operator, and no number behind that
    rf"(?:{_FREE}|\b[a-z]\b)\s*[-+*/×÷·]\s*(?:{_NUMBER})?\s*(?:[a-z]\b)?[^\w=≈]*\Z", re.I
)
_LETTER = re.compile(r"(?i:option|choice|选项?)?\s*(?:\(([A-Ea-e])\)|([A-E])(?=[).:]|\s*$))")
_SAID = re.compile(
    r"(yes|no|true|false)\b(?!\s+(?:one|two|matter|\d))|(是的|不是|正确|错误|对|否|是(?=[,.]|$))",
    re.I,
)
_MEANING = {"是的": "yes", "是": "yes", "不是": "no", "否": "no"}
_PHRASE = re.compile(
    r"(?:\banswer(?:\s+to\s+[^.\n]{0,80}?)?(?:\s*(?:is|are|=)\s*:?|\s*[:*]+\s*:?)|"
    r"答案(?:就?是|为)?\s*[:*]*)\s*(?=\S)",
    re.I,
)
_HEADING = re.compile(r"\W*(?:the\s+)?(?:final\s+)?(?:answer|答案|最终答案)\W*", re.I)
_PLANS = re.compile(  # a sentence that tells what will be done states nothing
    r"(?:to|let|let's|we|first|if|given|since|suppose|consider)\b|[要设先]|我们|首先|为了|让我们",
    re.I,
)
_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_ENDS = " \t\n.,;:!?。，；：！？\"'“”‘’`*_"
_WORDS = {
    word: number
    for words in (
        "zero one two three four five six seven eight nine ten eleven twelve",
        "零 一 二 三 四 五 六 七 八 九 十 十一 十二",
    )
    for number, word in enumerate(words.split())
} | {"两": 2, "once": 1, "twice": 2}
_WORD = re.compile(r"[a-z]+|[零一二两三四五六七八九十]", re.I)
_SPELLED = re.compile(  # in a sentence "one" and "一" are more often no number
    r"\b(?:zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b"
    r"|(?:(?<=[有是为剩])|(?<![\u4e00-\u9fff]))[零两二三四五六七八九十](?![零一二三四五六七八九十百千万])",
    re.I,
)
_LATEX = (
    (re.compile(r"\\(?:left|right|displaystyle|,|;|!|:|quad|qquad)(?![A-Za-z])|\\[()\[\]]"), ""),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf|operatorname|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))"), "°"),
    (re.compile(r"\\[dct]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\[dct]?frac\s*(\d)\s*(\d)"), r"\1/\2"),
    (re.compile(r"\\([%$#&_])"), r"\1"),
    (re.compile(r"(?<=\d)(?:\{,\}|\\,)(?=\d{3})"), ","),
    (re.compile(r"\$(?=[^$]*\$)([^$]*)\$"), r"\1"),
)
_NO_ZERO = re.compile(r"(?<![\w.,)\]])\.(?=\d)")  # .9 is 0.9


@dataclass(frozen=True, slots=True)
class Ballot:
    """Answers that agree: their common value, how the first of them put it, their indices."""

    value: str
    shown: str
    members: tuple[int, ...]


def final_answer(content: str) -> str:
    """What an answer comes down to, in a form that can be compared; "" where it is unclear."""
    return _normal(_told(content))


def same_final(one: str, other: str) -> bool:
    """Whether two answers come down to the same; unclear ones do not."""
    return final_answer(one) == final_answer(other) != ""


def numbers(text: str) -> frozenset[str]:
    """The values of all numbers in a text, in the form of `final_answer`."""
    return frozenset(map(_exact, _NUMBERS.findall(_plain(text[-LONGEST:]))))


def spelled_numbers(text: str) -> frozenset[str]:
    """Those that it spells out; "one" may be none."""
    found = _WORD.findall(_plain(text[-LONGEST:]).casefold())
    return frozenset(str(_WORDS[word]) for word in found if word in _WORDS)


def ends_open(text: str) -> bool:
    """Whether a text's last calculation has no result yet: "151 + 79", "0 = 9 + x"."""
    return bool(_OPEN.search(_plain(text[-LONGEST:])))


def vote_of(answer: str, tokens: int = 0) -> Vote:
    """The vote of a chain that ended in this answer after so many tokens; none without one."""
    return Vote(final_answer(answer), tokens)


def count_votes(answers: Sequence[str], tokens: Sequence[int] = ()) -> tuple[Ballot, ...]:
    """The answers that agree, the winner first.

    It has the most votes; of as many those of the chains with fewer `tokens`, then the earlier.
    """
    told = [_told(answer) for answer in answers]
    values = [_normal(text) for text in told]
    votes = list(map(Vote, values, tokens or [0] * len(values)))
    return tuple(Ballot(values[ids[0]], told[ids[0]], ids) for ids in rank_answers(votes))


# -- what is told


def _told(content: str) -> str:
    """The final answer in the answer's own words; "" where it tells none."""
    content = content[-LONGEST:]
    if found := find_boxes(content):
        return found[-1].strip()
    text = _plain(content).strip()
    return next((value for clause in _clauses(text) if (value := _value(clause))), "")


def _clauses(text: str) -> Iterator[str]:
    """Where the answer may stand, the likeliest first."""
    phrases = [match.end() for match in _PHRASE.finditer(text)]
    for start in reversed(phrases):
        yield _SENTENCES.split(text[start:], maxsplit=1)[0]
    sentences = [one for one in _SENTENCES.split(text) if one and one.strip(_ENDS)]
    sentences = [one for one in sentences if not _HEADING.fullmatch(one)]
    for sentence in (sentences[:1], sentences[-1:]):
        yield from (one for one in sentence if not _PLANS.match(one.lstrip(_ENDS)))


def _value(clause: str) -> str:
    """A letter, yes or no, a number, or the clause itself where it is short."""
    bare = clause.replace("**", "").strip().lstrip(_ENDS).strip()
    for pattern in (_LETTER, _SAID):
        if match := pattern.match(bare):
            return next(group for group in match.groups() if group)
    if _WHOLE.fullmatch(bare.rstrip(_ENDS)):
        return bare.rstrip(_ENDS)
    short = bare.rstrip(_ENDS)
    return _number(clause, bare) or (short if len(short) <= SHORT else "")


def _number(clause: str, bare: str) -> str:
    """The number that a sentence states: in bold, after "=", after "is", or where it stands."""
    for bold in reversed(_BOLD.findall(clause)):
        if match := _NUMBERS.search(bold):
            return match[0]
    for pattern, which in ((_EQUAL, -1), (_STATED, 0)):
        if stated := pattern.findall(bare):
            return str(stated[which])
    if match := _NUMBERS.match(bare):
        return match[0]
    found = _NUMBERS.findall(bare) or _spelled(bare)
    return str(found[-1]) if found else ""


def _spelled(text: str) -> list[str]:
    """The one number that a text spells out; several are none."""
    found = _SPELLED.findall(text)
    return found if len(found) == 1 else []


# -- one form for what means the same


def _plain(text: str) -> str:
    """The text without LaTeX's wrapping and with plain digits, as far as that is safe."""
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u2011", "-")
    for pattern, simple in _LATEX:
        text = pattern.sub(simple, text)
    return _NO_ZERO.sub("0.", text)


def _normal(told: str) -> str:
    text = " ".join(_plain(told).split()).strip(_ENDS).strip()
    text = re.sub(r"^[A-Za-z]\s*=\s*", "", text)  # x = 5
    if match := _WHOLE.fullmatch(text):
        return _exact(match[1])
    text = text.casefold()
    if text in _WORDS:
        return str(_WORDS[text])
    if match := re.fullmatch(r"\(([a-e])\)", text):
        return match[1]
    return _MEANING.get(text, re.sub(r"\s+(?=\W)|(?<=\W)\s+", "", text))


def _exact(number: str) -> str:
    """A number's value: a decimal where it is one, else a fraction in lowest terms."""
    digits = number.replace(",", "").removeprefix("+")
    if len(digits) > DIGITS:
        return digits
    above, _, below = digits.partition("/")
    if below and not Fraction(below):
        return digits
    value = Fraction(above) / Fraction(below or 1)
    for places in range(DIGITS):
        if value.denominator == 1:
            return str(value)
        if 10**places % value.denominator == 0:
            return _decimal(value, places)
    return str(value)


def _decimal(value: Fraction, places: int) -> str:
    whole = str(abs(int(value * 10**places))).rjust(places + 1, "0")
    return ("-" if value < 0 else "") + whole[:-places] + "." + whole[-places:]
