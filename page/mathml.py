"""LaTeX as MathML, which browsers draw without a script. Pure; no Streamlit.

latex2mathml reads the formula; what it makes is not trusted. Only its tree is used, never
its text (which is not escaped): known elements with harmless attributes, the rest is left
out. A formula that it does not understand is None, and is shown as it is written.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import unescape
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element

LONGEST = 2_000  # characters; a longer formula is no formula
_MACROS = re.compile(r"\\(?:def|new[a-z]+|DeclareMathOperator)(?![a-z])")  # they grow without end
_SAME = (
    (re.compile(r"\\text\{\\textdollar\}"), r"\\$"),  # what page/markdown.py makes of a dollar
    (re.compile(r"\\(begin|end)\{(?:align|aligned|split|eqnarray)\*?\}"), r"\\\1{align*}"),
    (re.compile(r"\\(begin|end)\{(?:gathered|gather)\*?\}"), r"\\\1{matrix}"),
    (re.compile(r"\\(begin|end)\{dcases\}"), r"\\\1{cases}"),
    (re.compile(r"\\(?:begin|end)\{equation\*?\}|\\(?:nonumber|notag)(?![A-Za-z])"), ""),
)
_ESCAPE = re.compile(r"\\([$%#&_{} ])")
_CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENT = re.compile(
    r"math|none|m(?:row|i|n|o|s|text|space|frac|sqrt|root|style|padded|phantom|enclose|sub|sup"
    r"|subsup|under|over|underover|multiscripts|prescripts|table|tr|td)"
)
_ATTRIBUTE = re.compile(
    r"display(?:style)?|scriptlevel|math(?:variant|color)|stretchy|symmetric|fence|separator|form"
    r"|largeop|movablelimits|accent(?:under)?|linethickness|notation|minsize|maxsize|columnalign"
    r"|rowlines|columnlines|width|height|depth|[lr]space"
)
_CHILDREN = {
    **dict.fromkeys(("mfrac", "mroot", "msub", "msup", "munder", "mover"), 2),
    **dict.fromkeys(("msubsup", "munderover"), 3),
}
_HARMLESS = re.compile(r"[a-z -]{0,60}|#[0-9a-f]{3,6}|[+-]?\d{0,2}(?:\.\d{1,4})?[a-z%]{0,2}")


@lru_cache(maxsize=512)
def to_mathml(latex: str, display: bool = False) -> str | None:
    """The formula as a <math> element; None where it cannot be drawn."""
    if len(latex) > LONGEST or _MACROS.search(latex):
        return None
    source = latex
    for pattern, same in _SAME:
        source = pattern.sub(same, source)
    try:
        tree = convert_to_element(source, xmlns="", display="block" if display else "inline")
        _tame(tree)
        tree.set("alttext", _CONTROL.sub("", latex))
        drawn = tostring(tree, encoding="unicode", short_empty_elements=False)
        return drawn if all(_is_understood(part) for part in tree.iter()) else None
    except Exception:  # another's parser and a model's text: it raises whatever it likes
        return None


def _tame(element: Element) -> None:
    """Leaves what is known and harmless. Character references become characters: then they
    are escaped like all other text."""
    if not _ELEMENT.fullmatch(element.tag):
        raise ValueError(f"expected an element of MathML, got {element.tag}")
    for name, value in list(element.attrib.items()):
        if not (_ATTRIBUTE.fullmatch(name) and _HARMLESS.fullmatch(value)):
            del element.attrib[name]
    text = _CONTROL.sub("", unescape(element.text or ""))
    element.text = _ESCAPE.sub(r"\1", text) if element.tag == "mtext" else text
    for child in element:
        _tame(child)


def _is_understood(element: Element) -> bool:
    """An unknown command comes back as text still spelled in LaTeX; one cut short lacks a part."""
    spelled = (element.text or "").startswith("\\") or element.text == "&"
    return not spelled and len(element) == _CHILDREN.get(element.tag, len(element))
