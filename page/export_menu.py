"""The menu of a run's exports: four forms, with the steps or without."""

from __future__ import annotations

from collections.abc import Callable

from streamlit.delta_generator import DeltaGenerator

from history.runs import Run
from page.context import PageContext
from page.exports import as_json, as_markdown, as_messages, file_name
from page.html_export import as_html


def export_menu(context: PageContext, run: Run, place: DeltaGenerator) -> None:
    """Each file is made when it is asked for."""
    words, trace = context.words, run.trace
    menu = place.popover(words.of("take", "menu"), icon=":material/download:", key="export")
    steps = menu.checkbox(words.of("take", "steps"), value=True, key="export-steps")
    made: tuple[tuple[str, str, str, Callable[[], str]], ...] = (
        ("markdown", "md", "text/markdown", lambda: as_markdown(trace, words, steps)),
        ("html", "html", "text/html", lambda: as_html(trace, words, steps)),
        ("messages", "messages.json", "application/json", lambda: as_messages(trace, steps)),
        ("json", "json", "application/json", lambda: as_json(trace)),
    )
    for form, ending, kind, make in made:
        menu.download_button(
            words.of("take", form),
            make,
            file_name(run.question, ending),
            kind,
            key=f"export-{form}",
            on_click="ignore",
            type="tertiary",
        )
