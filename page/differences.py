"""Two texts side by side: what the one says and the other does not is marked. Pure.

Marks are Streamlit's directives around runs of plain words. Formulas, code, links and
tables are never marked inside: a block where one of them differs gets a sign before it.
Every marked block is read once more, and if it no longer says the same, the sign must do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, pairwise

from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from page.html_export import Renderer
from page.markdown import safe_blocks
from reasoning.events import Step

COLOURS = ("orange", "blue")
SIGN = "\u2260"  # not equal
NEAR = 0.4  # sentences that share more of their words are compared word by word
MOST_PAIRS = 10_000  # of sentences without a twin; where there are more, nothing is near
LONGEST = 20_000  # characters; comparing takes quadratic time, and nobody reads so far

_CJK = "\u3040-\u30ff\u3400-\u9fff"
_POINTS = "\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f"
_PLAIN = rf"(?:(?![{_CJK}])[^\W_]|[.,;?'\"()%+=/\-\u2010-\u2027{_POINTS}]|\\[$.:#+\-])"
_ATOM = re.compile(
    r"(?P<opaque>(?<!`)(?P<tick>`+)(?!`)[^\n]*?[^`](?P=tick)(?!`)|\$[^$\n]*\$"
    r"|!?\[[^\]\n]*\]\([^)\n]*\)|<[^<>\s]*>|\S{0,80}?(?://|www\.|@)\S*)"
    rf"|(?P<word>[{_CJK}][{_POINTS}]*|\*\*{_PLAIN}(?:[ ]?{_PLAIN})*\*\*|{_PLAIN}+)|\S"
)
_PREFIX = re.compile(r"(?:[ ]*(?:>|[-+*](?=[ ])|\d{1,9}[.)](?=[ ])|#{1,6}(?=[ ])))*[ ]*")
_EDGES = ".,;?'\"()*\u2010-\u2027" + _POINTS
_SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f]\W*\Z")
_UNTOUCHED = ("fence", "code_block", "table_open", "formula")
_MARK = re.compile(r":(?:orange|blue)-background\[((?:[^\[\]\\\n]|\\.)*)\](?!\{)")


@dataclass(frozen=True, slots=True)
class Atom:
    """The smallest thing that differs or does not, and where it stands in its block."""

    block: int
    start: int
    end: int
    key: str  # what is compared
    word: bool  # else it is a thing that cannot be marked inside
    ends: bool  # whether a sentence ends here


Sentence = tuple[Atom, ...]
Changed = tuple[list[Atom], list[Atom]]


def first_difference(one: Sequence[Step], other: Sequence[Step]) -> int:
    """The number of the first step in which two chains differ; 0 where none does."""
    for number, (first, second) in enumerate(zip(one, other, strict=False), 1):
        if (first.title, first.content) != (second.title, second.content):
            return number
    return 0 if len(one) == len(other) else min(len(one), len(other)) + 1


def mark_differences(one: str, other: str) -> tuple[str, str]:
    """Both texts as safe Markdown, each with marks on what the other does not say."""
    first, second = safe_blocks(one), safe_blocks(other)
    if not (one.strip() and other.strip()) or max(len(one), len(other)) > LONGEST:
        return "\n\n".join(first), "\n\n".join(second)
    ours, theirs = list(_atoms(first)), list(_atoms(second))
    changed = _differing(_sentences(ours), _sentences(theirs))
    return (
        "\n\n".join(_marked_blocks(first, changed[0], COLOURS[0])),
        "\n\n".join(_marked_blocks(second, changed[1], COLOURS[1])),
    )


# -- reading


def _atoms(texts: Sequence[str]) -> Iterator[Atom]:
    for block, text in enumerate(texts):
        untouched, start = _untouched_lines(text), 0
        for number, line in enumerate(text.split("\n")):
            if number in untouched:
                yield Atom(block, start, start + len(line), line.strip(), False, True)
            else:
                yield from _atoms_of_line(block, line, start)
            start += len(line) + 1


def _atoms_of_line(block: int, line: str, start: int) -> Iterator[Atom]:
    prefix = _PREFIX.match(line)
    for match in _ATOM.finditer(line, prefix.end() if prefix else 0):
        if match["opaque"] or match["word"]:
            text, word = match[0], match["word"] is not None
            key = text.strip(_EDGES).casefold() if word else text
            ends = bool(_SENTENCE_END.search(text)) or match.end() == len(line)
            yield Atom(block, start + match.start(), start + match.end(), key, word, ends)


def _untouched_lines(text: str) -> set[int]:
    maps = (token.map for token in _READER.parse(text) if token.type in _UNTOUCHED)
    return {line for lines in maps if lines for line in range(*lines)}


def _sentences(atoms: Sequence[Atom]) -> list[tuple[Atom, ...]]:
    sentences: list[list[Atom]] = [[]]
    for atom in atoms:
        if sentences[-1] and sentences[-1][-1].block != atom.block:
            sentences.append([])
        sentences[-1].append(atom)
        if atom.ends:
            sentences.append([])
    return [tuple(sentence) for sentence in sentences if sentence]


# -- comparing


def _differing(ours: Sequence[Sentence], theirs: Sequence[Sentence]) -> Changed:
    """The atoms of each side that the other does not have."""
    changed: Changed = ([], [])
    matcher = SequenceMatcher(None, [_keys(one) for one in ours], [_keys(one) for one in theirs])
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            _compare_sentences(list(ours[a:b]), list(theirs[c:d]), changed)
    return changed


def _compare_sentences(ours: list[Sentence], theirs: list[Sentence], changed: Changed) -> None:
    """Sentences without a twin: the nearest are compared, the others are new as a whole."""
    for sentence in ours:
        near = _nearest(sentence, theirs) if len(ours) * len(theirs) <= MOST_PAIRS else ()
        if near:
            theirs.remove(near)
            _compare_words(sentence, near, changed)
        else:
            changed[0].extend(sentence)
    for sentence in theirs:
        changed[1].extend(sentence)


def _nearest(sentence: Sentence, others: list[Sentence]) -> Sentence:
    near = max(others, key=lambda one: _likeness(sentence, one), default=())
    return near if _likeness(sentence, near) > NEAR else ()


def _compare_words(one: Sentence, other: Sentence, changed: Changed) -> None:
    for kind, a, b, c, d in SequenceMatcher(None, _keys(one), _keys(other)).get_opcodes():
        if kind != "equal":
            changed[0].extend(one[a:b])
            changed[1].extend(other[c:d])


def _keys(sentence: Sentence) -> tuple[str, ...]:
    return tuple(atom.key for atom in sentence)


def _likeness(one: Sentence, other: Sentence) -> float:
    ours, theirs = set(_keys(one)), set(_keys(other))
    return 2 * len(ours & theirs) / (len(ours) + len(theirs))


# -- marking


def _marked_blocks(texts: Sequence[str], changed: Sequence[Atom], colour: str) -> Iterator[str]:
    of_block: dict[int, list[Atom]] = {}
    for atom in changed:
        of_block.setdefault(atom.block, []).append(atom)
    for block, text in enumerate(texts):
        atoms = sorted(of_block.get(block, ()), key=lambda atom: atom.start)
        made = _mark_words(text, [atom for atom in atoms if atom.word], colour)
        same = _renders_same(made, text)
        signed = not same or not all(atom.word for atom in atoms)
        yield _with_sign(made if same else text, colour) if signed else made


def _mark_words(text: str, words: Sequence[Atom], colour: str) -> str:
    """The block with each run of these words in a mark; runs end where more than a space is."""
    pieces, at = [], 0
    for start, end in _runs(text, words):
        pieces += [text[at:start], f":{colour}-background[{text[start:end]}]"]
        at = end
    return "".join([*pieces, text[at:]])


def _runs(text: str, words: Sequence[Atom]) -> Iterator[tuple[int, int]]:
    gaps, run = [0], 0
    for before, word in pairwise(words):
        run += text[before.end : word.start] not in ("", " ")
        gaps.append(run)
    for _, group in groupby(zip(gaps, words, strict=False), key=lambda pair: pair[0]):
        run_of = [word for _, word in group]
        yield run_of[0].start, run_of[-1].end


def _with_sign(text: str, colour: str) -> str:
    sign = f":{colour}-badge[{SIGN}]"
    paragraph = _READER.parse(text)[0].type == "paragraph_open"
    return f"{sign} {text}" if paragraph else f"{sign}\n\n{text}"


def _renders_same(made: str, text: str) -> bool:
    """Whether a marked block renders as it did, but for the marks."""
    marked_html, html = str(_READER.render(made)), str(_READER.render(text))
    return re.sub("</?mark>", "", marked_html) == html


def _read_mark(state: StateInline, silent: bool) -> bool:
    match = _MARK.match(state.src, state.pos, state.posMax)
    if match is None or state.src[state.pos - 1 : state.pos] == ":":
        return False
    if not silent:
        inner: list[Token] = []
        state.md.inline.parse(match[1], state.md, state.env, inner)
        state.push("mark_open", "mark", 1)
        state.tokens.extend(inner)
        state.push("mark_close", "mark", -1)
    state.pos = match.end()
    return True


_READER = Renderer()
_READER.inline.ruler.after("escape", "mark", _read_mark)
