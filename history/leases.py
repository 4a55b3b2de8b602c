"""The leases of the runs that think here: the store hears that their process lives, and
whether another process asks for their end.

The store is asked, and asked again, because that is the same on both databases, and costs a
look at a few rows. Nothing is done while nothing thinks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from history.run import Run
from history.store import Store, StoreError

BEAT = 5.0  # seconds between two signs of life; the store waits for six of them
LOOK = 0.5  # seconds between two looks at what another process asks for
_log = logging.getLogger(__name__)


class Leases:
    """Held on a thread of its own for the life of the process.

    `end` is called with the run to be ended, and whether its vote is to end, too; again at
    each look until the run is over.
    """

    def __init__(
        self,
        store: Store,
        end: Callable[[Run, bool], None],
        *,
        beat: float = BEAT,
        look: float = LOOK,
    ) -> None:
        self._store = store
        self._end = end
        self._beat = beat
        self._look = look
        self._beaten = 0.0
        self._failed = False
        self._runs: dict[str, Run] = {}
        self._changed = threading.Condition()
        self._asking = threading.Lock()
        self._given_back = False
        threading.Thread(target=self._work, name="leases", daemon=True).start()

    def hold(self, run: Run) -> None:
        """For as long as the run thinks; that it began is a sign of life."""
        with self._changed:
            if not self._runs:
                self._beaten = time.monotonic()
            self._runs[run.id] = run
            self._changed.notify()

    def give_back(self) -> None:
        """At the process's end: nobody need wait to see that it is gone."""
        with self._changed:
            held = [id for id, run in self._runs.items() if not run.over]
        with self._asking, suppress(StoreError):  # then it is seen by its silence
            self._given_back = True
            if held:
                self._store.give_back(held)

    # -- the thread

    def _work(self) -> None:
        while True:
            runs = self._held()
            with self._asking:
                if not self._given_back:
                    self._keep(runs)
            time.sleep(self._look)

    def _held(self) -> dict[str, Run]:
        """The runs that think; waits until there is one."""
        with self._changed:
            self._runs = {id: run for id, run in self._runs.items() if not run.over}
            self._changed.wait_for(lambda: self._runs)
            return dict(self._runs)

    def _keep(self, runs: dict[str, Run]) -> None:
        try:
            if time.monotonic() - self._beaten >= self._beat:
                self._store.beat(list(runs))
                self._beaten = time.monotonic()
            stops = self._store.stops(list(runs))
        except StoreError as error:  # the next event says so on the page, if it lasts
            if not self._failed:
                _log.warning("The history took no sign of life: %s", error)
            self._failed = True
            return
        self._failed = False
        for id, together in stops.items():
            self._end(runs[id], together)
