"""The marks in a step's label: a small picture for each kind of remark. Pure; no Streamlit.

A picture is the one thing in a label that may have a tooltip, so that a folded step hides
nothing of what is said of it (page/wording.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from page.i18n import Words
from page.palette import AMBER, BLUE, VIOLET
from page.wording import Mark, Remark

SHAPES: dict[Mark, tuple[str, str]] = {  # a colour, and lines on a ground of 16 by 16
    "retry": (AMBER, "M13 8a5 5 0 1 1-1.6-3.7M13.2 1.8v3h-3"),
    "cut": (AMBER, "M2.5 4h11M2.5 8h11M2.5 12h3.5M10 10.5l3 3M13 10.5l-3 3"),
    "corrected": (VIOLET, "M3 6h10M3 10h10M11 2.5l-6 11"),
    "edited": (BLUE, "M3 13l.8-3.2L11 2.6l2.4 2.4-7.2 7.2z"),
    "doubt": (BLUE, "M5.4 5.8a2.6 2.6 0 1 1 3.9 2.2C8.3 8.6 8 9.1 8 10M8 12.8v.2"),
}
_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16" height="16" '
    'fill="none" stroke="{colour}" stroke-width="1.7" stroke-linecap="round" '
    'stroke-linejoin="round">'
    '<path d="{lines}"/></svg>'
)


def draw_marks(remarks: Iterable[Remark], words: Words) -> str:
    """The remarks' marks as Markdown, each kind once, with the tooltip of its first."""
    first: dict[Mark, Remark] = {}
    for remark in remarks:
        first.setdefault(remark.mark, remark)
    return " ".join(
        _picture(mark, words.of("remark", mark), remark.help)
        for mark, remark in first.items()
        if mark
    )


def _picture(mark: Mark, name: str, tooltip: str) -> str:
    colour, lines = SHAPES[mark]
    drawn = quote(_PICTURE.format(colour=colour, lines=lines))
    said = f"{name}: {tooltip}".replace("\\", "").replace('"', "'")
    return f'![{name}](data:image/svg+xml,{drawn} "{said}")'
