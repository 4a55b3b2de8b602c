"""Two runs side by side: where they part, what each answered, and what it cost."""

from __future__ import annotations

from streamlit.delta_generator import DeltaGenerator

from history.runs import Run
from page.context import PageContext
from page.differences import first_difference, mark_differences
from page.group import run_state
from page.navigation import go_to
from page.run_view import RunView, replay
from page.wording import answer_text, total_line
from reasoning.voting import same_final


def draw_comparison(context: PageContext, one: Run, other: Run, place: DeltaGenerator) -> None:
    """Draws both. A run that is still thinking is shown as far as it is."""
    words = context.words
    head = place.container(horizontal=True, vertical_alignment="center", key="compare-head")
    head.markdown(f"#### {words.of('compare', 'head')}", width="stretch", anchors=False)
    head.button(words.of("compare", "close"), on_click=go_to, args=(one.id,), key="compare-close")
    place.markdown(_summary(context, one, other))
    texts = mark_differences(answer_text(one.trace), answer_text(other.trace))
    for column, run, text, side in zip(
        place.columns(2), (one, other), texts, ("left", "right"), strict=True
    ):
        _draw(context, run, text, column, side)


def _summary(context: PageContext, one: Run, other: Run) -> str:
    words, number = context.words, first_difference(one.trace.steps, other.trace.steps)
    lines = [words.of("compare", "parted", number=number) if number else ""]
    if one.trace.answer and other.trace.answer:
        same = same_final(answer_text(one.trace), answer_text(other.trace))
        lines.append(words.of("several", "same" if same else "differ"))
    return " ".join(line for line in lines if line)


def _draw(context: PageContext, run: Run, text: str, column: DeltaGenerator, side: str) -> None:
    column.container(key=f"question-{side}").text(run.question)
    column.caption(
        total_line(run.trace, context.words) if run.ended else run_state(run, context.words)
    )
    view = RunView(column, context.words, folding="folded", key=f"run-{side}")
    replay(view, run.trace, answer=False)
    if text:
        column.markdown(f"#### {context.words('answer')}", anchors=False)
        column.markdown(text, anchors=False)
