"""Hostile text in six places of the page: no script runs and nothing is loaded from elsewhere.

In Chromium, looked at by a server that counts who calls it. The hundred texts of
tests/payloads.py stand in the question, a step's title and content, the answer, the server's error
and the name of its model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from playwright.sync_api import expect

from bench.faults.promise import Effort, Promise, Tally
from tests.page_browser import PageServer, Visitor, chromium, models, page_server, visiting
from tests.payloads import HUNDRED, beacon
from tests.processes import free_port
from tests.stub import Play, Script, Stub, says, status, step, step_number

AT_ONCE = 20  # texts in one chain, a step each
PLACES = ("question", "title", "content", "answer", "error", "name")
TAGS = ("script", "iframe", "img", "svg[onload]", "object", "embed", "form", "base", "meta", "link")
FAIL = "Fail, please."


def keep(effort: Effort, tally: Tally) -> None:
    port, texts = free_port(), HUNDRED[: effort.of(len(HUNDRED), AT_ONCE)]
    base_url, made = f"http://127.0.0.1:{port}/v1", list[Visitor]()
    with beacon() as (address, calls), page_server(base_url, "bench-payloads.log") as server:
        for start in range(0, len(texts), AT_ONCE):
            some = [text.replace("BEACON", f"{address}/x.png") for text in texts[start:][:AT_ONCE]]
            with chromium() as home, visiting(home, made) as visit:
                found = _seen(server, visit, some, port)
            made.clear()
            problem = found or (f"{len(calls)} calls from the page" if calls else "")
            tally.note(
                f"texts {start + 1} to {start + len(some)}", problem, len(some) * len(PLACES)
            )
    tally.tell(f"{len(texts)} texts in {len(PLACES)} places, {len(calls)} calls, no dialog")


def _seen(server: PageServer, visit: Any, texts: Sequence[str], port: int) -> str:
    """What is wrong with a page that shows them all; a visit also looks at dialogs and requests."""
    whole = "\n\n".join(texts)
    name = " ".join(" ".join(texts[:3]).split())
    with Stub(_script(texts, whole), port=port, models=models(name)):
        visitor = visit(server.address)
        visitor.ask(whole[:8000])
        visitor.wait_for_end()
        expect(visitor.steps).to_have_count(len(texts))
        problem = _elements(visitor)
        visitor.ask(FAIL)
        visitor.wait_for_end()
        visitor.settle()
        return problem or _elements(visitor)


def _elements(visitor: Visitor) -> str:
    found = {tag: count for tag in TAGS if (count := visitor.run.locator(tag).count())}
    links = visitor.run.locator("a[href^='javascript'], a[href^='data']").count()
    return f"{found}, {links} links that run" if found or links else ""


def _script(texts: Sequence[str], whole: str) -> Script:
    def reply(request: dict[str, Any]) -> Play:
        if FAIL in str(request["messages"]):
            return status(400, {"error": {"message": whole}})
        if "response_format" not in request:
            return says(whole)
        number = step_number(request)
        action = "continue" if number < len(texts) else "final_answer"
        text = texts[min(number, len(texts)) - 1]
        return step(f"{number} {text}", f"Text number {number}: {text}", action)

    return reply


PROMISE = Promise(
    "no text of a model, a server or a person runs a script on the page or loads anything from "
    "elsewhere",
    keep,
)
