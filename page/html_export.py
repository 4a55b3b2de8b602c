"""A run as one HTML file to send to somebody: it needs no network, no script and no Stepwise.

The safe Markdown of page/markdown.py is rendered by markdown-it with HTML switched off;
links lead to the web alone, formulas are MathML (page/mathml.py). Behind that the file's
own policy forbids everything but its one style sheet, which it names by its hash.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from page.i18n import Words
from page.mathml import to_mathml
from page.report import Report, ReportStep, ReportTurn, make_report
from reasoning.events import Trace

STYLE = Path(__file__).with_name("html_export.css").read_text(encoding="utf-8")
_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
JOINER = "\u2060"  # page/markdown.py needs it, a reader does not
_WEB = re.compile(r"(?:https?://|mailto:)", re.I)
_ALIGNED = re.compile(r"text-align:(left|right|center)")


def as_html(trace: Trace, words: Words, steps: bool = True) -> str:
    """The run as a page of its own, for light and dark, for a phone and for paper."""
    run = make_report(trace, words, steps)
    return "\n".join([*_head(run, words), *_body(run, words), "</main></body></html>", ""])


def _head(run: Report, words: Words) -> list[str]:
    return [
        f'<!DOCTYPE html>\n<html lang="{words.language}"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(_plain_text(run.headline))}</title>",
        f"<style>{STYLE}</style></head><body><main>",
    ]


def _body(run: Report, words: Words) -> list[str]:
    parts = [f"<h1>{_line_to_html(run.headline)}</h1>", _question(run.question), _small(run.made)]
    if run.earlier:
        parts.append(f"<h2>{escape(words.of('take', 'earlier'))}</h2>")
        parts += [_turn(turn) for turn in run.earlier]
    if run.steps:
        parts.append(f"<h2>{escape(words('steps_head'))}</h2>")
        parts.append(
            f'<label class="all"><input type="checkbox"> {escape(words.of("take", "open"))}</label>'
        )
        parts += [_step(step) for step in run.steps]
    parts += [_small(remark) for remark in run.remarks]
    if run.answer:
        parts.append(f"<h2>{escape(words('answer'))}</h2>")
        parts.append(f'<div class="answer" dir="auto">{to_html(run.answer, 3)}</div>')
    return [*parts, _small(run.ending), f"<footer>{_line_to_html(run.total)}</footer>"]


def _question(text: str) -> str:
    return f'<p class="question" dir="auto">{escape(text)}</p>' if text else ""


def _small(line: str) -> str:
    return f'<p class="small">{_line_to_html(line)}</p>' if line else ""


def _turn(turn: ReportTurn) -> str:
    answer = f'<div dir="auto">{to_html(turn.answer, 3)}</div>'
    return f"<section>{_question(turn.question)}{answer}</section>"


def _step(step: ReportStep) -> str:
    remarks = "".join(_small(remark) for remark in step.remarks)
    return (
        f"<details><summary><h3>{step.number}. {_line_to_html(step.title)}</h3> "
        f'<span class="small">{_line_to_html(step.facts)}</span></summary>'
        f'{remarks}<div dir="auto">{to_html(step.content, 4)}</div></details>'
    )


# -- Markdown


class Renderer(MarkdownIt):
    """CommonMark with tables, as far as it can do no harm: no HTML, no pictures."""

    def __init__(self) -> None:
        super().__init__("commonmark", {"html": False})
        self.enable(["table", "strikethrough"]).disable(["image", "reference"])
        self.inline.ruler.after("escape", "formula", _inline_formula)
        before = {"alt": ["paragraph", "blockquote", "list"]}
        self.block.ruler.before("fence", "display", _display_formula, before)  # type: ignore[arg-type]
        self.add_render_rule("formula", _draw_formula)

    def validateLink(self, url: str) -> bool:
        """A link to the web or to a mailbox. In a file all others would lead to files."""
        return bool(_WEB.match(url))


def to_html(blocks: Iterable[str], level: int) -> str:
    """Safe blocks as HTML; their headings are of this level."""
    return "\n".join(_block_to_html(block, level) for block in blocks)


def _block_to_html(block: str, level: int) -> str:
    tokens = _RENDERER.parse(block)
    for token in tokens:
        _finish(token, level)
    return str(_RENDERER.renderer.render(tokens, _RENDERER.options, {}))


def _line_to_html(text: str) -> str:
    """A safe line as HTML."""
    [inline] = _RENDERER.parseInline(text)
    _finish(inline, 0)
    return str(_RENDERER.renderer.render([inline], _RENDERER.options, {}))


def _plain_text(line: str) -> str:
    """A safe line as plain text."""
    [inline] = _RENDERER.parseInline(line)
    return "".join(child.content for child in inline.children or ()).replace(JOINER, "")


def _finish(token: Token, level: int) -> None:
    """The few things in which a file differs from Streamlit's page."""
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{level}"
    if aligned := _ALIGNED.fullmatch(str(token.attrs.pop("style", ""))):
        token.attrs["class"] = aligned[1]
    if token.type == "link_open":
        token.attrs["rel"] = "noopener noreferrer nofollow"
        if not token.attrs["href"]:  # "[here]()" would lead to the file itself
            del token.attrs["href"]
    if token.type == "text":
        token.content = token.content.replace(JOINER, "")
    for child in token.children or ():
        _finish(child, level)


# -- formulas: each dollar that is not escaped begins or ends one


def _inline_formula(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] != "$":
        return False
    end = state.src.find("$", state.pos + 1, state.posMax)
    if end <= state.pos + 1:
        return False
    if not silent:
        state.push("formula", "math", 0).content = state.src[state.pos + 1 : end]
    state.pos = end + 1
    return True


def _display_formula(state: StateBlock, begin: int, end: int, silent: bool) -> bool:
    if _of(state, begin) != "$$" or state.is_code_block(begin):
        return False
    close = next((line for line in range(begin + 1, end) if _of(state, line) == "$$"), 0)
    if not close:
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content = state.getLines(begin + 1, close, state.blkIndent, False)
        token.block, token.map = True, [begin, close + 1]
        state.line = close + 1
    return True


def _of(state: StateBlock, line: int) -> str:
    start = state.bMarks[line] + state.tShift[line]
    return state.src[start : state.eMarks[line]].strip()


def _draw_formula(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    """The formula, or what is written where it cannot be drawn."""
    token = tokens[index]
    drawn = to_mathml(token.content.strip(), token.block)
    if drawn is None:
        code = f"<code>{escape(token.content.strip())}</code>"
        return f"<pre>{code}</pre>" if token.block else code
    return f'<div class="formula">{drawn}</div>' if token.block else drawn


_RENDERER = Renderer()
