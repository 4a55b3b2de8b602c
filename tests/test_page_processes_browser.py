"""Several page processes with one PostgreSQL: each shows, stops and goes on with another's runs.

Two ports stand for what a proxy does when its sessions stick no longer: the same address, and
another process behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.page_browser import PageServer, expect, on_stage, page_server, until
from tests.postgres import postgres
from tests.stub import NEVER, Play, says, step


@pytest.fixture
def pages(port: int) -> Iterator[tuple[PageServer, PageServer]]:
    model = f"http://127.0.0.1:{port}/v1"
    with postgres() as server:
        given = {"DATABASE_URL": server.url()}
        with (
            page_server(model, "page-one.log", **given) as one,
            page_server(model, "page-other.log", **given) as other,
        ):
            yield one, other


def endless() -> list[Play]:
    """Two steps, and one that is never finished."""
    words = step("Endless", "word " * 80, until=NEVER)
    return [step("Look", "First."), step("Count", "Second."), words]


@pytest.mark.slow
def test_a_run_is_followed_stopped_and_gone_on_with_from_another_process(
    pages: tuple[PageServer, PageServer], port: int, visitors: Any
) -> None:
    one, other = pages
    with on_stage(*endless(), port=port) as stub:
        visitor = visitors(one.address)
        visitor.ask("Stopped from there?")
        expect(visitor.steps.nth(2)).to_contain_text("word word")
        there = visitors(visitor.page.url.replace(one.address, other.address))
        expect(there.steps.nth(0)).to_contain_text("Look")
        expect(there.steps.nth(2)).to_contain_text("word word")
        expect(there.bar).to_contain_text("Step 3 of at most 25")
        there.shoot("elsewhere")
        there.stop()
        there.sees("Stopped. The finished steps are kept.")
        visitor.sees("Stopped. The finished steps are kept.")
        until(lambda: stub.gone == 1)
    with on_stage(*endless(), port=port):
        visitor.begin_anew()
        visitor.ask("Killed there?")
        expect(visitor.steps.nth(2)).to_contain_text("word word")
        there.page.goto(visitor.page.url.replace(one.address, other.address))
        expect(there.steps.nth(2)).to_contain_text("word word")
        one.kill()
        there.sees("Interrupted")
        expect(there.steps).to_have_count(3)
    with on_stage(step("Check", "Third.", "final_answer"), says("Done."), port=port) as stub:
        there.button("go-on").click()
        there.sees("Done.")
        there.wait_for_end()
        expect(there.bar).to_contain_text("in 3 steps")
        assert len(stub.requests) == 2
