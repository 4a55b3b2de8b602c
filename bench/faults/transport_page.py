"""What a model server does wrong in mid-chain, as the page shows it in Chromium."""

from __future__ import annotations

from collections.abc import Mapping

from bench.faults.promise import Tally
from reasoning.deadline import STEP
from reasoning.errors import StepwiseError
from tests.page_browser import Visitor, chromium, on_stage, page_server, visiting
from tests.processes import free_port
from tests.stub import Play, step

STEP_SECONDS = 6  # in which every fault ends, tries included
KEY = "secret-key-of-the-page-0815"
FIRST = step("A first step", "It stays whatever comes after it.")
NEVER_SHOWN = (KEY, "Traceback")


def look_at_all(
    faults: Mapping[str, tuple[Play, type[StepwiseError]]],
    tally: Tally,
) -> None:
    port, given = free_port(), {"OPENAI_API_KEY": KEY, STEP: str(STEP_SECONDS)}
    with (
        page_server(f"http://127.0.0.1:{port}/v1", "bench-transport.log", **given) as server,
        chromium() as home,
        visiting(home, []) as visit,
    ):
        visitor = visit(server.address)
        for name, (play, _) in faults.items():
            tally.note(f"page, {name}", _shown(visitor, play, port))
            visitor.begin_anew()


def _shown(visitor: Visitor, play: Play, port: int) -> str:
    """What is wrong with what is seen of a chain whose second step meets the fault."""
    with on_stage(FIRST, play, port=port):
        visitor.ask("Why?")
        visitor.wait_for_end()
        visitor.settle()
    steps, said = visitor.steps.count(), visitor.run.inner_text()
    if not steps or "A first step" not in visitor.steps.nth(0).inner_text():
        return f"the finished step is gone: {said[:150]!r}"
    if shown := [text for text in NEVER_SHOWN if text in visitor.page.inner_text("body")]:
        return f"it shows {shown[0]}"
    if visitor.page.locator("[data-testid=stException]").count():
        return "an error of the page's own"
    return "" if visitor.run.locator("[data-testid=stAlert]").count() else f"no failure: {said!r}"
