"""The recorder: what runs hear is in the store first, and shown then.

One thread writes what all runs heard since it last wrote, in one transaction. While that
lasts more is heard: a slow database makes larger transactions, not a longer queue. The
loop on which the runs think never waits for it.

When the store fails the runs go on and are shown all the same; `trouble` says why they
are not saved. What is not saved stays in memory and is tried again until it is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from history.run import Run
from history.store import Store, StoreError
from reasoning.logs import named

GAP = 0.025  # seconds between two transactions: models write faster than anybody looks
RETRY = 1.0  # seconds between two tries at a store that fails
KEPT_UNSAVED = 500  # ended runs; some 25 MB, and a day's work of one person
_log = logging.getLogger(__name__)


class Recorder:
    """Writes runs to the store, on a thread of its own for the life of the process."""

    def __init__(self, store: Store, retry: float = RETRY) -> None:
        self.trouble: StoreError | None = None
        self._store = store
        self._retry = retry
        self._runs: dict[str, Run] = {}  # those that think, or are not wholly saved
        self._waiting: set[str] = set()  # those that heard something since they were written
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="recorder", daemon=True).start()

    def begin(self, run: Run) -> None:
        """Writes that the run begins: when this returns it is found, also after a crash."""
        self._know(run)
        if self.trouble is None:
            try:
                self._store.write([run.begun])
                run.written = 0
                return
            except StoreError as error:
                self._say(error)
            except Exception:  # the thread meets it again, and gives this run up alone
                about = named(run=run.id)
                _log.exception("Run %s could not be begun in the history", run.id, extra=about)
        self.record(run)

    def begin_soon(self, run: Run) -> None:
        """As `begin`, but it never waits: the run is found a little later."""
        self._know(run)
        self.record(run)

    def record(self, run: Run) -> None:
        """Has written what the run heard. Never waits."""
        with self._changed:
            self._waiting.add(run.id)
            self._changed.notify()
        if self.trouble is not None or run.refused:
            run.show()

    def _know(self, run: Run) -> None:
        with self._changed:
            self._runs[run.id] = run

    # -- the thread

    def _work(self) -> None:
        while True:
            self._save(self._taken())
            time.sleep(GAP)

    def _taken(self) -> list[Run]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            taken = [self._runs[id] for id in self._waiting if id in self._runs]
            self._waiting.clear()
        return taken

    def _save(self, runs: Sequence[Run]) -> None:
        try:
            self._write(runs)
        except StoreError as error:
            self._fall_behind(runs, error)
        except Exception:  # whatever is wrong with one run, the others are saved
            self._save_each(runs)

    def _save_each(self, runs: Sequence[Run]) -> None:
        for run in runs:
            try:
                self._write([run])
            except StoreError as error:
                self._fall_behind([run], error)
            except Exception:  # it would fail at every try
                said = "Run %s cannot be saved; it is shown until the page ends"
                _log.exception(said, run.id, extra=named(run=run.id))
                self._give_up(run)

    def _write(self, runs: Sequence[Run]) -> None:
        if not runs:
            return
        heard = [run.unwritten for run in runs]
        self._store.write([run.begun for run in runs if run.written < 0], heard)
        for run, part in zip(runs, heard, strict=True):
            run.written = part.since + len(part.events)
            run.show(run.written)
            if run.settled:
                self._leave(run)
        if self.trouble is not None:
            _log.warning("The history is saved again")
            self.trouble = None

    def _fall_behind(self, runs: Sequence[Run], error: StoreError) -> None:
        """Shows what cannot be saved now, and tries again after a while."""
        self._say(error)
        with self._changed:
            self._waiting |= {run.id for run in runs}
            known = list(self._runs.values())
        for run in known:
            run.show()
        for run in [run for run in known if run.over][:-KEPT_UNSAVED]:
            said = "Run %s is not saved: too many wait for the history"
            _log.error(said, run.id, extra=named(run=run.id))
            self._give_up(run)
        time.sleep(self._retry)

    def _give_up(self, run: Run) -> None:
        run.refused = True
        self._leave(run)
        run.show()

    def _leave(self, run: Run) -> None:
        with self._changed:
            self._runs.pop(run.id, None)

    def _say(self, error: StoreError) -> None:
        if self.trouble is None or self.trouble.code != error.code:
            _log.warning("The history is not saved: %s", error)
        self.trouble = error
