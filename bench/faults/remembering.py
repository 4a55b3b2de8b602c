"""A process that thinks and keeps what it thought, as the page does, to be killed.

    python -m bench.faults.remembering DATABASE_URL BASE_URL [RUN]

prints the run's id and how many of its steps are shown, a line for each; goes on with the steps
that another process kept of RUN.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from bench.faults.playing import NAME, QUESTION, steps_of
from history.request import Link, RunRequest
from history.runs import Loop, Runs, Thinker
from history.store import Store
from reasoning.endpoint import Endpoint, Patience, ServedModel
from reasoning.events import Event
from reasoning.think import think

MODEL = ServedModel(NAME)


def thinker(base_url: str, patience: Patience = Patience()) -> Thinker:
    """Asks the server at that address."""

    async def thinks(asked: RunRequest) -> AsyncIterator[Event]:
        endpoint = Endpoint(base_url, patience=patience)
        try:
            async for event in think(asked, endpoint=endpoint, model=MODEL):
                yield event
        finally:
            await endpoint.close()

    return thinks


def main(database: str, base_url: str, before: str = "") -> None:
    store = Store(database)
    kept = tuple(steps_of(store.events(before))) if before else ()
    link = Link(origin=before, parts=len(kept) + 1, how="go_on") if before else Link()
    asked = RunRequest(QUESTION, "json_steps", steps=kept)
    run = Runs(Loop(), thinker(base_url), store).start(asked, link)
    seen = shown = 0
    while not run.ended:
        news = run.events(seen, 1.0)
        seen, shown = seen + len(news), shown + len(steps_of(news))
        print(run.id, shown, flush=True)
    print(run.id, "ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
