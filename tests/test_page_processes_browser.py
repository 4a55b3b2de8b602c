"""Several page processes with one PostgreSQL: each shows, stops and goes on with another's runs.

They stand behind nginx, whose cookie says at which of them a visit sticks.
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

import pytest

from tests.nginx import PLACE, Nginx, nginx
from tests.page_browser import PageServer, Visitor, expect, on_stage, page_server, until
from tests.postgres import postgres
from tests.processes import ROOT
from tests.stub import NEVER, Play, says, step
from tests.test_page_group_browser import CHAINS, ask_many_times, voting


@dataclass(frozen=True, slots=True)
class Front:
    """Two page processes, and the one address of both."""

    nginx: Nginx
    one: PageServer
    other: PageServer

    def lead(self, visitor: Visitor, page: PageServer) -> None:
        """What the visitor asks for from now on comes from that process."""
        place = {"name": PLACE, "value": self.nginx.place_at(page.address)}
        visitor.page.context.add_cookies([{**place, "url": self.nginx.address}])
        visitor.page.reload()


@pytest.fixture
def front(port: int) -> Iterator[Front]:
    subprocess.run([ROOT / "scripts" / "setup-deploy"], check=True)  # it brings nginx
    model = f"http://127.0.0.1:{port}/v1"
    with postgres() as server:
        given = {"DATABASE_URL": server.url()}
        with (
            page_server(model, "page-one.log", **given) as one,
            page_server(model, "page-other.log", **given) as other,
            nginx(one.address, other.address) as proxy,
        ):
            yield Front(proxy, one, other)


def endless() -> list[Play]:
    """Two steps, and one that is never finished."""
    words = step("Endless", "word " * 80, until=NEVER)
    return [step("Look", "First."), step("Count", "Second."), words]


@pytest.mark.slow
def test_a_run_is_followed_stopped_and_gone_on_with_from_another_process(
    front: Front, port: int, visitors: Any
) -> None:
    with on_stage(*endless(), port=port) as stub:
        visitor = visitors(front.nginx.address)
        front.lead(visitor, front.one)
        visitor.ask("Stopped from there?")
        expect(visitor.steps.nth(2)).to_contain_text("word word")
        front.lead(visitor, front.other)
        expect(visitor.steps.nth(0)).to_contain_text("Look")
        expect(visitor.steps.nth(2)).to_contain_text("word word")
        expect(visitor.bar).to_contain_text("Step 3 of at most 25")
        visitor.shoot("elsewhere")
        visitor.stop()
        visitor.sees("Stopped. The finished steps are kept.")
        front.lead(visitor, front.one)
        visitor.sees("Stopped. The finished steps are kept.")
        until(lambda: stub.gone == 1)
    with on_stage(*endless(), port=port):
        visitor.begin_anew()
        visitor.ask("Killed there?")
        expect(visitor.steps.nth(2)).to_contain_text("word word")
        front.one.kill()  # and nginx leads the same tab on to the other
        visitor.sees("Interrupted")
        expect(visitor.steps).to_have_count(3)
    with on_stage(step("Check", "Third.", "final_answer"), says("Done."), port=port) as stub:
        visitor.button("go-on").click()
        visitor.sees("Done.")
        visitor.wait_for_end()
        expect(visitor.bar).to_contain_text("in 3 steps")
        assert len(stub.requests) == 2


@pytest.mark.slow
def test_chains_that_a_vote_begins_later_are_seen_from_another_process(
    front: Front, port: int, visitors: Any
) -> None:
    third, later = Event(), Event()
    gates = {2: third, 3: later}
    with on_stage(voting([*"11221"], gates), port=port):
        visitor = visitors(front.nginx.address)
        front.lead(visitor, front.one)
        ask_many_times(visitor, 5)
        visitor.ask("Which of two?")
        chains, panel = visitor.page.locator(CHAINS), visitor.page.locator(".st-key-chains")
        expect(chains).to_have_count(3)
        front.lead(visitor, front.other)
        expect(chains).to_have_count(3)
        third.set()
        expect(chains).to_have_count(4)
        visitor.shoot("vote-elsewhere")
        later.set()
        visitor.wait_for_end()
        expect(panel).to_contain_text("1: 3 of 5 chains (60%)")


@pytest.mark.slow
def test_a_page_that_is_ended_in_order_gives_back_what_it_thinks(port: int, visitors: Any) -> None:
    with page_server(f"http://127.0.0.1:{port}/v1", "page-ended.log") as page:
        with on_stage(*endless(), port=port):
            visitor = visitors(page.address)
            visitor.ask("Ended there?")
            expect(visitor.steps.nth(2)).to_contain_text("word word")
            page.stop()
        with sqlite3.connect(page.history) as history:
            assert history.execute("SELECT state FROM stepwise_runs").fetchone() == ("interrupted",)
