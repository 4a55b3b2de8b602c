"""The path of a thought as a picture: which step followed which. A pure function.

Only numbers stand in it, never a model's text. Grey goes along; a reflection is drawn
with a way back to the step before; what is explored begins a branch at the question.
page.css gives the numbers the text's colour.
"""

from __future__ import annotations

from collections.abc import Sequence

from page.palette import AMBER, GREY, VIOLET
from reasoning.events import Action, Step

COLOURS: dict[Action, str] = {"reflect": AMBER, "explore": VIOLET}
TURNS = frozenset(COLOURS)
_HEAD = f"""\
digraph {{
bgcolor=transparent rankdir=LR nodesep=0.22 ranksep=0.3 margin=0.03
node [shape=circle fixedsize=true width=0.34 fontsize=11 fontname="sans-serif" color="{GREY}"]
edge [arrowsize=0.55 color="{GREY}"]
question [shape=point width=0.1 fillcolor="{GREY}"]"""


def has_turns(steps: Sequence[Step]) -> bool:
    """Whether the path is more than a straight line."""
    return any(step.action in TURNS for step in steps)


def path_dot(steps: Sequence[Step]) -> str:
    """The path in Graphviz's language, from the question's point on."""
    lines, before = [_HEAD], "question"
    for step in steps:
        lines += _drawn(step, before)
        before = str(step.number)
    return "\n".join([*lines, "}"])


def _drawn(step: Step, before: str) -> list[str]:
    number, look = step.number, f'color="{COLOURS.get(step.action, GREY)}" penwidth=1.6'
    if step.action == "explore":
        return [f"{number} [{look}]", f"question -> {number} [{look}]"]
    if step.action == "reflect" and before != "question":
        back = f"{number} -> {before} [{look} style=dashed constraint=false]"
        return [f"{number} [{look}]", f"{before} -> {number}", back]
    return [f"{number} [{look}]" if step.action in TURNS else f"{number}", f"{before} -> {number}"]
