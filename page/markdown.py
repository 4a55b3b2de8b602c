"""A model's Markdown, made safe and right for Streamlit's renderer. Pure functions.

    safe_blocks(text)    safe Markdown, one string for each block (paragraph, list, fence, ...)
    split_blocks(text)   the same blocks, raw: all but the last are final while text still grows
    safe_block(block)    one raw block, made safe
    plain_line(text)     one line of plain text for a label

What is mended, outside of code:
    \\( \\) and \\[ \\] become the dollars that Streamlit renders, as does TeX without any, from
    its first command on; money does not
    a formula or fence that is not closed yet is shown as text, or closed
    <tags>, :directives[], :emoji: and :material/icons: are text
    pictures are links: nothing loads without a click
    links lead to the web, to an address or to a place on the page: [x](data:...) is text
    link definitions are text, so that no block depends on another
    headings are never bigger than the page's own

Block structure is read by markdown-it, a CommonMark parser like Streamlit's, so
that both agree on what is code. It makes no HTML: Streamlit draws the result.
"""

from __future__ import annotations

import re
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

TITLE_LENGTH = 120
_HEADING = "#####"  # the page's own headings are larger
_PICTURE = "\u2197"  # an arrow: this leads outside
_JOINER = "\u2060"  # no width: it only keeps :name: from being an emoji
_HAIR = "\u200a"  # a space by which CommonMark sees the end of **emphasis:** in Chinese
_MARK, _END = "\ue000", "\ue001"  # around the number of a formula that was taken out
_GONE = "\ue002"  # a line that was joined to the one before

_PARSER = MarkdownIt("commonmark", {"html": False}).enable("table")
_PARSER.disable(["reference", "inline"])  # blocks alone; the text in them is read here
_CHECKER = MarkdownIt("commonmark", {"html": False}).enable("table")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\ufeff\ue000-\ue002\ud800-\udfff]")
_CODE_SPAN = r"(?<!`)(?P<tick>`+)(?!`)(?:(?!\n[ \t]*\n)[\s\S])*?[^`](?P=tick)(?!`)"
_DISPLAY = re.compile(
    rf"(?P<code>{_CODE_SPAN})"
    r"|(?<!\\)\\\[(?P<bracket>(?:(?!\\\[)[\s\S])+?)\\\]"
    r"|(?<![\\$])\$\$(?!\$)(?P<dollars>(?:[^$\\]|\\[\s\S])+?)\$\$(?!\$)"
    r"|(?<!\\)(?P<begin>\\begin\{(?P<name>(?:align|equation|gather|aligned|cases|[bpv]?matrix)\*?)\}"
    r"[\s\S]+?\\end\{(?P=name)\})"
)
_OPEN_DISPLAY = re.compile(r"(?<!\\)\\\[|(?<![\\$])\$\$(?!\$)|(?<!\\)\\begin\{")
_PLAIN = r"(?:[^{}$\\\n]|\\.)"
_IN_BRACES = rf"(?:{_PLAIN}|\{{(?:{_PLAIN}|\{{{_PLAIN}*\}})*\}})+"  # two deep: \text{a^{b}}
_GROUP = rf"\{{{_IN_BRACES}\}}"
_COMMAND = (
    r"\\(?:boxed|text|mathrm|mathbf|overline|sqrt(?:\[\w+\])?"
    rf"|[dt]?frac{_GROUP}|binom{_GROUP}){_GROUP}"
)
_SIGN = (
    r"\\(?:times|div|cdot|pm|leq?|geq?|neq?|approx|equiv|infty|circ|degree|pi|theta|alpha|beta"
    r"|gamma|delta|lambda|mu|sigma|omega|Delta|Omega|Rightarrow|rightarrow|implies)(?![A-Za-z])"
)
_TERM = rf"(?:{_COMMAND}|\d(?:[\d.,]*\d)?%?|[A-Za-z](?![A-Za-z]))"
_BARE = (  # a formula without dollars, as models write them into JSON
    rf"(?<![A-Za-z:/\\])(?:{_COMMAND}|{_SIGN}(?: ?{_TERM})?)"
    rf"(?: ?(?:[=+/<>^_-]|{_SIGN}) ?(?:{_TERM}|{_GROUP})| ?{_COMMAND}| ?{_SIGN})*"
)
_INLINE = re.compile(
    rf"(?P<code>{_CODE_SPAN})"
    r"|\\\((?P<round>(?:(?!\\\(|\n[ \t]*\n)[\s\S])+?)\\\)"
    r"|\\\[(?P<square>(?:(?!\\\[|\n[ \t]*\n)[\s\S])+?)\\\]"
    r"|\$\$(?!\$)(?P<double>(?:[^$\\]|\\.)+?)\$\$(?!\$)"
    r"|(?<!\$)\$(?![\s$])(?P<single>(?:[^$\\\n]|\\.)+?)(?<![\s/:,;(=\u2013-])\$(?![\d$])"
    rf"|(?P<bare>{_BARE})"
    r"|\\(?P<delimiter>[()\[\]])"
    r"|(?P<escape>\\[!-/:-@\[-`{-~])"
    r"|(?P<link><(?:https?://|mailto:)[^\s<>]*>|https?://[^\s<>()\[\]!$`\\*\ue000]+)"
    r"|(?P<picture>!\[(?P<empty>\](?=[(\[]))?)"
    r"|(?P<nowhere>\](?=\()(?!\(\s*<?(?i:https?://|mailto:|#)))"
    r"|(?P<emoji>:(?=(?:[+-]1|[A-Za-z_][\w+-]*|100|1234):|material/))"
    r"|(?P<colon>(?<=\]):|:(?=[A-Za-z:{\[]))"
    r"|(?P<strong>(?<!\*)\*\*(?!\*))"
    r"|(?P<times>(?<=\d)\*(?=\d))"
    r"|(?P<tilde>(?<!~)~(?!~))"
    r"|(?P<plain>[<$])"
)
_PROSE = re.compile(r"(?<![\\{A-Za-z])(?:[A-Za-z]{3,}|(?:or|to|of|in|is|at|by|on|an|a)\b)")
_AMOUNT = re.compile(r"\d[\d,.]*\s*[kKmMbB]?\b")
_WORD = re.compile(r"\w")
_PUNCTUATION = re.compile(r"[^\w\s*]")
_OPENER = re.compile(  # of a block, at the start of a line
    r"#{1,6}(?=\s|$)|`{3,}(?=[^`]*$)|~{3,}|[-+*](?=\s|$)|(?:=+|-+)(?=\s*$)|>"
    r"|(?P<number>\d{1,9})[.)](?=\s|$)"
)
_OUTLINE = re.compile(  # of a line that makes a heading or a fence, in lists and quotes as well
    r"(?:[-+*>]\s*|\d{1,9}[.)]\s*)*(?:#{1,6}(?=\s|$)|`{3,}|~{3,}|(?:=+|-+)(?=\s*$))"
)
_PREFIX = re.compile(r"(?:[ \t]*(?:>|[-+*](?=[ \t])|\d{1,9}[.)](?=[ \t])))*[ \t]*")


def safe_blocks(text: str) -> tuple[str, ...]:
    """The text as safe Markdown, one string for each of its blocks."""
    return tuple(safe_block(block) for block in split_blocks(text))


def split_blocks(text: str) -> tuple[str, ...]:
    """The text's outermost blocks, raw. More text can change the last one only."""
    lines = _clean(text).split("\n")
    masked, _ = _take_out("\n".join(lines), keep_lines=True)
    tokens = _PARSER.parse(masked)
    starts = [t.map[0] for t in tokens if t.level == 0 and t.nesting >= 0 and t.map]
    starts = _before_open_formula(masked.split("\n"), _code_lines(tokens), starts)
    ends = [*starts[1:], len(lines)][: len(starts)]
    parts = ("\n".join(lines[a:b]).rstrip() for a, b in zip(starts, ends, strict=True))
    return tuple(part for part in parts if part.strip())


@lru_cache(maxsize=1024)
def safe_block(block: str) -> str:
    """One block as safe Markdown."""
    masked, formulas = _take_out(_clean(block))
    lines = masked.split("\n")
    tokens = _PARSER.parse(masked)
    _mend_lines(lines, tokens)
    mended = _put_back([line for line in lines if line != _GONE], formulas)
    return mended if not _has_picture(mended) else _all_escaped(_clean(block))


def plain_line(text: str) -> str:
    """A title as one short line of plain text for a label; none of it is Markdown."""
    line = " ".join(_clean(text[: 20 * TITLE_LENGTH]).split())
    if len(line) > TITLE_LENGTH:
        line = line[:TITLE_LENGTH].rstrip() + "\u2026"
    return _all_escaped(line)


def _clean(text: str) -> str:
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4))


def _code_lines(tokens: list[Token]) -> set[int]:
    maps = (t.map for t in tokens if t.type in ("fence", "code_block") and t.map)
    return {line for begin, end in maps for line in range(begin, end)}


def _take_out(text: str, keep_lines: bool = False) -> tuple[str, list[str]]:
    """The text with each closed display formula replaced by a mark, and the formulas.

    A formula's lines can look like lists or headings: it must be out of the way before
    blocks are read. With `keep_lines` each mark is padded to as many lines as before.
    """
    formulas: list[str] = []
    if not _DISPLAY.search(text):
        return text, formulas
    code = _code_lines(_PARSER.parse(text))

    def replaced(match: re.Match[str]) -> str:
        line = text.count("\n", 0, match.start())
        if match["code"] or line in code:
            return match[0]
        body = match["bracket"] or match["dollars"] or match["begin"]
        if not body.strip():
            return match[0]
        if _is_row_or_heading(text, match):
            return f"\\({_one_line(body)}\\)"
        formulas.append(body)
        mark = f"{_MARK}{len(formulas) - 1}{_END}"
        return mark + f"\n{_MARK}" * match[0].count("\n") if keep_lines else mark

    return _DISPLAY.sub(replaced, text), formulas


def _is_row_or_heading(text: str, match: re.Match[str]) -> bool:
    before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()].lstrip()
    return before.startswith(("|", "#"))


def _before_open_formula(lines: list[str], code: set[int], starts: list[int]) -> list[int]:
    """The blocks' starts up to one that holds a formula still open: it may take all the rest."""
    for number, line in enumerate(lines):
        if number not in code and _OPEN_DISPLAY.search(re.sub(_CODE_SPAN, "", line)):
            return [start for start in starts if start <= number]
    return starts


def _mend_lines(lines: list[str], tokens: list[Token]) -> None:
    """Mends the lines in place, each block in its own bounds."""
    row = False
    for before, token in zip([None, *tokens], tokens, strict=False):
        row = token.type == "tr_open" or (row and token.type != "tr_close")
        if token.type == "fence" and token.map:
            _close_fence(lines, token)
        elif token.type == "tr_open" and token.map:
            lines[token.map[0]] = _mended_row(lines[token.map[0]])
        elif token.type == "inline" and token.map and not row:
            _mend_span(lines, *token.map)
            if before is not None and before.type == "heading_open":
                _mend_heading(lines, before)


def _mend_span(lines: list[str], begin: int, end: int) -> None:
    mended = _inline("\n".join(lines[begin:end])).split("\n")
    lines[begin:end] = mended + [_GONE] * (end - begin - len(mended))


def _mended_row(line: str) -> str:
    return "|".join(_inline(cell) for cell in re.split(r"(?<!\\)\|", line))


def _mend_heading(lines: list[str], heading: Token) -> None:
    begin, end = heading.map or (0, 0)
    if heading.markup.startswith("#"):
        lines[begin] = re.sub(r"#{1,5}(?=\s|$)", _HEADING, lines[begin], count=1)
        return
    underline = lines[end - 1].strip(" >")
    if len(underline) < 3:  # while a list is being typed: "Here:\n-"
        lines[end - 1] = lines[end - 1].replace(underline, "\\" + underline)
        return
    prefix = _PREFIX.match(lines[begin])
    cut = prefix.end() if prefix else 0
    words = " ".join(line.strip(" >") for line in [lines[begin][cut:], *lines[begin + 1 : end - 1]])
    lines[begin:end] = [f"{lines[begin][:cut]}{_HEADING} {words}"] + [_GONE] * (end - begin - 1)


def _close_fence(lines: list[str], fence: Token) -> None:
    begin, end = fence.map or (0, 0)
    last = lines[min(end, len(lines)) - 1].strip(" >")
    closed = last.startswith(fence.markup) and not last.strip(fence.markup[0]) and end - begin > 1
    if not closed and end >= len(lines):
        prefix = _continuation(lines[begin][: lines[begin].find(fence.markup)])
        lines.append(prefix + fence.markup)


def _inline(text: str) -> str:
    """A block's text, mended from left to right as CommonMark reads it."""
    emphasised = False

    def mended(match: re.Match[str]) -> str:
        nonlocal emphasised
        kind = match.lastgroup or ""
        if kind == "strong":
            emphasised = not emphasised
            return _strong(match, closing=not emphasised)
        return _one(match)

    return _separate_formulas(_INLINE.sub(mended, text))


def _one(match: re.Match[str]) -> str:
    """What one special piece of text becomes."""
    for group in ("round", "square", "double", "single", "bare"):
        if match[group] is not None:
            return _formula(match, group)
    if match["code"]:  # on one line, where nothing can begin a block
        return re.sub(r"\n[ \t>]*", " ", match[0])
    if match["escape"] or match["link"]:
        return match[0]
    if match["delimiter"]:
        return "\\\\\\" + match["delimiter"]
    if match["picture"]:
        return _picture(match)
    if match["emoji"]:
        return "\\:" + _JOINER
    return "\\" + match[0]


def _formula(match: re.Match[str], group: str) -> str:
    body = match[group]
    if not body.strip() or (group == "single" and _is_money(body)):
        return _escaped_dollars(match[0])
    body = _one_line(body)
    return f"{_MARK}${_tame(body)}${_END}"


def _separate_formulas(text: str) -> str:
    """Formulas' dollars must touch neither each other nor a digit behind."""
    text = re.sub(rf"(?<=\$){_END}(?=[\d$]|{_MARK}\$)", _JOINER, text)
    text = re.sub(rf"(?<=\$){_MARK}(?=\$)", _JOINER, text)
    return re.sub(rf"{_MARK}(?=\$)|(?<=\$){_END}", "", text)


def _is_money(body: str) -> bool:
    """Whether "$5 for one or 6$" is money: an amount first, then plain words."""
    return bool(_AMOUNT.match(body)) and bool(_PROSE.search(body))


def _escaped_dollars(text: str) -> str:
    """Text between two dollars that is no formula: only its first dollar is settled."""
    return "\\$" + _inline(text[1:])


def _one_line(body: str) -> str:
    return " ".join(body.split())


def _tame(body: str) -> str:
    """A formula without the characters that end it, or that could begin a tag."""
    return re.sub(r"\\?\$", r"\\text{\\textdollar}", body).replace("<", r"\lt ")


def _strong(match: re.Match[str], closing: bool) -> str:
    text, begin, end = match.string, match.start(), match.end()
    before, after = text[begin - 1 : begin], text[end : end + 1]
    if closing and _PUNCTUATION.match(before) and _WORD.match(after):
        return "**" + _HAIR
    if not closing and _WORD.match(before) and _PUNCTUATION.match(after):
        return _HAIR + "**"
    return "**"


def _picture(match: re.Match[str]) -> str:
    if match["empty"]:
        return f"{_PICTURE} [image]"
    image = re.match(r"[^\n]{0,300}?\][(\[]", match.string[match.end() :])
    return f"{_PICTURE} [" if image else "\\!["


def _put_back(given: list[str], formulas: list[str]) -> str:
    """Each formula on lines of its own, as Streamlit's renderer wants a display formula."""
    lines: list[str] = []
    for line in given:
        lines.extend(_with_formulas(line, formulas))
    return "\n".join(lines)


def _with_formulas(line: str, formulas: list[str]) -> list[str]:
    pieces = re.split(rf"{_MARK}(\d+){_END}", line)
    if len(pieces) == 1:
        return [line]
    head = _PREFIX.match(line)
    marker = line[: head.end()] if head else ""
    prefix = _continuation(marker)
    result = [pieces[0]] if pieces[0].strip(" >") else []
    for number, after in zip(pieces[1::2], pieces[2::2], strict=True):
        body = [part.strip() for part in formulas[int(number)].split("\n") if part.strip(" >")]
        result += [f"{prefix}$$", *(prefix + _in_a_formula(part) for part in body), f"{prefix}$$"]
        result += [prefix + _in_a_line(after.strip())] if after.strip() else []
    return result


def _in_a_formula(line: str) -> str:
    """A line of a display formula. A reader that knows no mathematics must not take it for a
    heading or a fence: an empty group stands before it, which TeX does not show.
    """
    return ("{}" if _OUTLINE.match(line) else "") + _tame(line)


def _in_a_line(after: str) -> str:
    """What follows a formula gets a line of its own, and must not begin a block there."""
    opens = _OPENER.match(after)
    if not opens:
        return after
    number = opens["number"] or ""
    escaped = re.sub(r"(.)", r"\\\1", opens[0][len(number) :])
    return number + escaped + after[opens.end() :]


def _continuation(marker: str) -> str:
    """What a block's further lines start with, given what its first line starts with."""
    return re.sub(r"[^\s>]", " ", marker)


def _has_picture(text: str) -> bool:
    tokens = _CHECKER.parse(text)
    return any(child.type == "image" for token in tokens for child in token.children or ())


def _all_escaped(text: str) -> str:
    """The text with every character of meaning escaped: it renders as it is written."""
    text = re.sub(r":(?=[\w+-]+:|material/)", ":" + _JOINER, text)
    return re.sub(r"(?m)^([ \t]*\d+)([.)])|([!-/:-@\[-`{-~])", r"\1\\\2\3", text)
