"""The history: every run with its events, in conversations, each with its owner.

It knows no thread and no clock of a run: history/recorder.py writes here what the runs heard,
before it is shown. Where the history lies is in history/database.py.

A delta is kept until its step is finished, which holds its text whole; so a finished run
takes a row for each step, and one that was cut off still has what was being written.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Row,
    Select,
    and_,
    bindparam,
    cast,
    extract,
    func,
    literal,
    or_,
    select,
    text,
)

from history import index
from history.database import Database
from history.database import StoreError as StoreError
from history.entries import (
    STATE_OF,
    Begun,
    Entry,
    Heard,
    Progress,
    Thread,
    entry_of,
    first,
    readable,
    thread_of,
)
from history.keeper import lives, this_process
from history.request import RunRequest, request_from_json, request_to_json
from history.rows import event_of, finishes, name_of, plain, rows_of, said_in, sought, told_of
from history.tables import EVENTS, PREFERENCES, RUNS, TEXTS, THREADS
from reasoning.events import Event, Trace
from reasoning.traces import compact

KEPT_DELETED = 30 * 24 * 3600.0  # seconds in which a deleted conversation can be restored
FIGURES = 2_000  # runs; as many points as a chart can show
LONGEST_SEARCH = 200  # characters; a SQLite pattern has a limit
_log = logging.getLogger(__name__)


class Store:
    """The history. Each method is one transaction; any thread may call it.

    `url` is as in DATABASE_URL, which is heeded where none is given; "sqlite://" is a
    history as long as the process. Every method raises StoreError when the database fails.
    """

    def __init__(self, url: str | None = None, now: Callable[[], float] = time.time) -> None:
        self._database = Database(url)
        self._now = now
        self._forgetting: threading.Thread | None = None
        try:
            self._keep_house()
        except StoreError as error:
            if error is not self.set_aside:
                raise
            self._keep_house()  # in the fresh one

    @property
    def where(self) -> str:
        """The file, or the database's name and host."""
        return self._database.where

    @property
    def set_aside(self) -> StoreError | None:
        """What was found damaged and laid aside, if anything was."""
        return self._database.set_aside

    def close(self) -> None:
        if self._forgetting:
            self._forgetting.join()
        self._database.close()

    # -- writing what runs hear

    def write(self, begun: Sequence[Begun] = (), heard: Sequence[Heard] = ()) -> None:
        """All of it or nothing. What is there already is left as it is: writing twice is safe."""
        with self._database.writing() as connection:
            for run in begun:
                self._begin(connection, run)
            if heard:
                self._append(connection, heard)

    # -- runs of several processes

    def beat(self, ids: Sequence[str]) -> None:
        """A sign of life from the process in which these runs live.

        One that was taken for dead meanwhile thinks again, unless another goes on with it.
        """
        ours = and_(RUNS.c.id.in_(ids), RUNS.c.taken == "", RUNS.c.state.in_(_UNENDED))
        alive = {"beat": self._instant, "state": "thinking", "ended": 0.0}
        with self._database.writing() as connection:
            connection.execute(RUNS.update().where(ours).values(alive))
            self._mark_interrupted(connection)

    def give_back(self, ids: Sequence[str]) -> None:
        """Leaves runs that still think to whoever goes on with them: their process ends."""
        with self._database.writing() as connection:
            connection.execute(_INTERRUPT.where(RUNS.c.id.in_(ids)))

    def take(self, run: Begun) -> str:
        """Begins a run that goes on with its origin; the id of the run that does.

        Of all that would go on with an interrupted one the first does, and the others get its
        id. They get the origin's own where its process lives after all.
        """
        origin = RUNS.c.id == run.link.origin
        free = and_(origin, RUNS.c.state == "interrupted", RUNS.c.taken == "")
        with self._database.writing() as connection:
            taken = connection.execute(RUNS.update().where(free).values(taken=run.id)).rowcount
            found = connection.execute(select(RUNS.c.state, RUNS.c.taken).where(origin)).first()
            if not taken and found and found.state in _UNENDED:
                return str(found.taken or run.link.origin)
            self._begin(connection, run)
        return run.id

    def ask_stop(self, id: str, together: bool = False) -> None:
        """Asks the process in which the run thinks to end it; or all asked together with it."""
        asked = or_(RUNS.c.id == id, RUNS.c.together == id)
        alone = and_(RUNS.c.id == id, RUNS.c.stop == "")
        thinking = RUNS.update().where(RUNS.c.state == "thinking", asked if together else alone)
        with self._database.writing() as connection:
            connection.execute(thinking.values(stop="together" if together else "run"))

    def stops(self, ids: Sequence[str]) -> dict[str, bool]:
        """Those of the runs that are to end where they are; whether their vote is to, as well."""
        ends = or_(RUNS.c.stop != "", RUNS.c.taken != "")
        query = select(RUNS.c.id, RUNS.c.stop).where(RUNS.c.id.in_(ids), ends)
        with self._database.reading() as connection:
            return {row.id: row.stop == "together" for row in connection.execute(query)}

    def thinking(self, owner: str) -> list[Entry]:
        """The owner's runs that think, in whatever process; one that died may be among them."""
        query = _entries(owner).where(RUNS.c.state == "thinking").order_by(RUNS.c.number)
        with self._database.reading() as connection:
            return readable(connection.execute(query), entry_of)

    def together(self, group: str) -> list[Entry]:
        """The runs that were asked together with this one, itself among them, oldest first."""
        asked = or_(RUNS.c.id == group, RUNS.c.together == group)
        query = _entries().where(asked).order_by(RUNS.c.number)
        with self._database.reading() as connection:
            return readable(connection.execute(query), entry_of)

    def follow(self, id: str, since: int = 0) -> Progress:
        """How far the run is beyond event number `since`. It is cut off if its process is gone."""
        silent = (self._instant - RUNS.c.beat).label("silent")
        query = select(RUNS.c.state, RUNS.c.keeper, silent).where(RUNS.c.id == id)
        with self._database.reading() as connection:
            run = connection.execute(query).first()
        state = run.state if run else "interrupted"  # none: it was deleted for good
        if run and state == "thinking" and not lives(run.keeper, run.silent):
            state = self._cut_off(id)
        return self._progress(id, state, since)

    def _progress(self, id: str, state: str, since: int) -> Progress:
        """The state was read before the events: an end is written together with its event."""
        rows = self._rows_after(id, since)
        whole = not since or not all(row.draft for row in rows)
        if since and whole:  # what was drafted before may be another now
            rows = self._rows_after(id, 0)
        place = rows[-1].place if rows else since
        return Progress(state, place, compact(told_of([row.body for row in rows])), whole)

    def _rows_after(self, id: str, place: int) -> Sequence[Any]:
        query = select(EVENTS.c.place, EVENTS.c.draft, EVENTS.c.body).join(RUNS)
        later = and_(RUNS.c.id == id, EVENTS.c.place > place)
        with self._database.reading() as connection:
            return connection.execute(query.where(later).order_by(EVENTS.c.place)).all()

    def _cut_off(self, id: str) -> str:
        """The run's process is gone. Its state, which another may have changed just now."""
        this = RUNS.c.id == id
        with self._database.writing() as connection:
            connection.execute(_INTERRUPT.where(this))
            return connection.scalar(select(RUNS.c.state).where(this)) or "interrupted"

    def _begin(self, connection: Connection, run: Begun) -> None:
        if connection.scalar(select(RUNS.c.id).where(RUNS.c.id == run.id)):
            return
        question, thread = plain(run.asked.question), run.link.thread or run.id
        self._touch(connection, thread, question, run)
        values = {
            "id": run.id,
            "thread": thread,
            "together": run.link.group,
            "asked": json.dumps(request_to_json(run.asked)),
            "question": question,
            "way": plain(run.asked.way),
            "at": run.at,
            "state": run.state,
            "keeper": this_process(),
            "beat": self._instant,
            **{key: getattr(run.link, key) for key in ("after", "origin", "parts", "how")},
        }
        connection.execute(RUNS.insert().values(_EMPTY | values))
        self._say(connection, thread, question)

    def _say(self, connection: Connection, thread: str, question: str) -> None:
        """The question is searched, and so its name; one that was cut may end in other letters."""
        said, name = sought(question), sought(name_of(question))
        texts = [{"thread": thread, "named": False, "text": said}]
        if any(word not in said for word in name.split()):
            other = select(TEXTS.c.number).where(TEXTS.c.thread == thread).limit(1)
            if connection.scalar(other) is None:  # it is the first, which gives the name
                texts.append({"thread": thread, "named": True, "text": name})
        index.add(connection, texts)

    def _touch(self, connection: Connection, thread: str, question: str, run: Begun) -> None:
        """The conversation of a run that begins; one that was deleted is there again."""
        name = name_of(question)
        values = {"id": thread, "owner": run.owner, "name": name}
        connection.execute(_TOUCH, values | {"last": run.link.group or run.id, "touched": run.at})

    def _append(self, connection: Connection, heard: Sequence[Heard]) -> None:
        known = _written(connection, [one.run for one in heard])
        rows: list[dict[str, Any]] = []
        texts: list[dict[str, Any]] = []
        for one in heard:
            run = known.get(one.run)
            if run is None:  # its conversation was purged while it was thinking
                _log.warning("Run %s is no longer in the history: it is not saved", one.run)
                continue
            new = one.events[max(0, run.places - one.since) :]
            drafts = _take_drafts(connection, run.number) if finishes(new) else ()
            rows += rows_of(run.number, one.since + len(one.events), compact((*drafts, *new)))
            of_it = {"thread": run.thread, "named": False}
            texts += [of_it | {"text": sought(said)} for said in said_in(new)]
            self._count(connection, run, new)
        if rows:
            connection.execute(_ADD_EVENTS, rows)
        if texts:
            index.add(connection, texts)

    def _count(self, connection: Connection, run: Row[Any], new: tuple[Event, ...]) -> None:
        """Brings the run's figures up to date, and the model of its conversation."""
        if not finishes(new):
            return
        trace = Trace(new)
        more = {f"more_{name}": getattr(trace, name) for name in _SUMS}
        more |= {"more_steps": len(trace.steps), "of_run": run.number}
        connection.execute(_ADD_UP, more)
        values: dict[str, Any] = {}
        if trace.started:
            started = trace.started
            values |= {"model": plain(started.model), "way": plain(started.way)}
            named = THREADS.update().where(THREADS.c.id == run.thread)
            connection.execute(named.values(model=values["model"]))
        if trace.end:
            values |= {"state": STATE_OF[type(trace.end)], "ended": self._now()}
        if trace.answer:
            values["answer"] = plain(trace.answer.content)
        if values:
            connection.execute(RUNS.update().where(RUNS.c.number == run.number).values(values))

    # -- reading runs

    def entry(self, id: str, owner: str | None = None) -> Entry | None:
        """The run as it is listed; None for one that is not there, or not this owner's."""
        with self._database.reading() as connection:
            query = _entries(owner).where(RUNS.c.id == id)
            return first(readable(connection.execute(query), entry_of))

    def events(self, id: str) -> tuple[Event, ...]:
        """What happened, without the deltas that a later event made superfluous.

        What is damaged is left out, and a Notice in its place says how much it is.
        """
        query = select(EVENTS.c.body).join(RUNS).where(RUNS.c.id == id).order_by(EVENTS.c.place)
        with self._database.reading() as connection:
            bodies = connection.scalars(query).all()
        return compact(told_of(bodies))

    def asked(self, id: str) -> RunRequest | None:
        with self._database.reading() as connection:
            body = connection.scalar(select(RUNS.c.asked).where(RUNS.c.id == id))
        try:
            return request_from_json(json.loads(body)) if body else None
        except (ValueError, TypeError):
            _log.warning("What run %s was asked is damaged in the history", id)
            return None

    def runs_of(self, thread_id: str, owner: str | None = None) -> list[Entry]:
        """The runs of a conversation, oldest first; none where it is not this owner's."""
        query = _entries(owner).where(RUNS.c.thread == thread_id).order_by(RUNS.c.number)
        with self._database.reading() as connection:
            return readable(connection.execute(query), entry_of)

    def figures(self, owner: str) -> list[Entry]:
        """The owner's newest answered runs, oldest first."""
        mine = and_(THREADS.c.owner == owner, RUNS.c.state == "answered")
        query = _entries().where(mine).order_by(RUNS.c.number.desc()).limit(FIGURES)
        with self._database.reading() as connection:
            return readable(connection.execute(query), entry_of)[::-1]

    # -- conversations

    def threads(
        self, owner: str, search: str = "", limit: int = 30, offset: int = 0
    ) -> list[Thread]:
        """The owner's conversations: pinned ones first, then those that were touched last.

        Each word of `search` occurs in the name, a question, a step or an answer.
        """
        words = list(dict.fromkeys(sought(search[:LONGEST_SEARCH]).split()))
        with self._database.reading() as connection:
            return readable(index.find(connection, owner, words, limit, offset), thread_of)

    def count_threads(self, owner: str) -> int:
        query = select(func.count()).where(THREADS.c.owner == owner, THREADS.c.deleted == 0)
        with self._database.reading() as connection:
            return connection.scalar(query) or 0

    def thread(self, id: str) -> Thread | None:
        query = select(THREADS).where(THREADS.c.id == id, THREADS.c.deleted == 0)
        with self._database.reading() as connection:
            return first(readable(connection.execute(query), thread_of))

    def rename(self, thread_id: str, name: str, owner: str = "") -> None:
        """An empty name is the first question again."""
        with self._database.writing() as connection:
            if not name.strip():
                first = select(RUNS.c.question).where(RUNS.c.thread == thread_id)
                name = connection.scalar(first.order_by(RUNS.c.number).limit(1)) or ""
            name = name_of(plain(name))
            if _change(connection, thread_id, owner, name=name):
                named = and_(TEXTS.c.thread == thread_id, TEXTS.c.named)
                connection.execute(TEXTS.delete().where(named))
                text = {"thread": thread_id, "named": True, "text": sought(name)}
                index.add(connection, [text])

    def pin(self, thread_id: str, pinned: bool, owner: str = "") -> None:
        with self._database.writing() as connection:
            _change(connection, thread_id, owner, pinned=pinned)

    def delete(self, thread_id: str, owner: str = "") -> None:
        """Hides the conversation; it is gone for good 30 days later."""
        with self._database.writing() as connection:
            _change(connection, thread_id, owner, deleted=self._now())
            purged = self._purge(connection)
        self._forget(purged)

    def restore(self, thread_id: str, owner: str = "") -> None:
        with self._database.writing() as connection:
            _change(connection, thread_id, owner, deleted=0.0)

    # -- what an owner prefers

    def preferences(self, owner: str) -> dict[str, Any]:
        query = select(PREFERENCES.c.body).where(PREFERENCES.c.owner == owner)
        with self._database.reading() as connection:
            body = connection.scalar(query) or "{}"
        try:
            values = json.loads(body)
        except (ValueError, TypeError):
            _log.warning("What an owner prefers is damaged in the history")
            return {}
        return values if isinstance(values, dict) else {}

    def prefer(self, owner: str, values: dict[str, Any]) -> None:
        """These values, in the place of all earlier ones."""
        with self._database.writing() as connection:
            connection.execute(_PREFER, {"owner": owner, "body": json.dumps(values)})

    # -- keeping house

    def _keep_house(self) -> None:
        with self._database.writing() as connection:
            purged = self._purge(connection)
            self._mark_interrupted(connection)
        self._forget(purged)

    def _purge(self, connection: Connection) -> bool:
        """Whether anything was deleted so long ago that it is gone now."""
        old = and_(THREADS.c.deleted > 0, THREADS.c.deleted < self._now() - KEPT_DELETED)
        return connection.execute(THREADS.delete().where(old)).rowcount > 0

    def _forget(self, purged: bool) -> None:
        """Has what was purged removed from the index as well: in moments, while others write."""
        if purged and not (self._forgetting and self._forgetting.is_alive()):
            self._forgetting = threading.Thread(target=self._database.forget, name="history-forget")
            self._forgetting.start()

    def _mark_interrupted(self, connection: Connection) -> None:
        """The runs that still think, by what is written, in a process that is gone."""
        silent = self._instant - func.max(RUNS.c.beat)
        query = select(RUNS.c.keeper, silent).where(RUNS.c.state == "thinking")
        keepers = connection.execute(query.group_by(RUNS.c.keeper)).all()
        gone = [keeper for keeper, seconds in keepers if not lives(keeper, seconds)]
        if gone:
            connection.execute(_INTERRUPT.where(RUNS.c.keeper.in_(gone)))

    @property
    def _instant(self) -> ColumnElement[float]:
        """Now, by the one clock that all processes of a history have in common."""
        if self._database.kind == "postgresql":
            return cast(extract("epoch", func.clock_timestamp()), Double)
        return literal(self._now(), Double)


# -- the states of a run

_UNENDED = ("thinking", "interrupted")
_INTERRUPT = (
    RUNS.update().where(RUNS.c.state == "thinking").values(state="interrupted", ended=RUNS.c.beat)
)


# -- parts of queries

_SUMS = ("seconds", "waited", "tokens")
_EMPTY = {"model": "", "ended": 0.0, "steps": 0, "answer": "", **dict.fromkeys(_SUMS, 0)}


def _entries(owner: str | None = None) -> Select[Any]:
    """The runs of all conversations that are there, or of this owner's."""
    query = select(RUNS, THREADS.c.owner).join(THREADS).where(THREADS.c.deleted == 0)
    return query if owner is None else query.where(THREADS.c.owner == owner)


def _change(connection: Connection, thread_id: str, owner: str, **values: Any) -> bool:
    """Whether anything changed: nothing does where the conversation is another's."""
    mine = and_(THREADS.c.id == thread_id, THREADS.c.owner == owner)
    return connection.execute(THREADS.update().where(mine).values(values)).rowcount > 0


# -- what SQLite and PostgreSQL write alike, and SQLAlchemy not

_TOUCH = text(
    "INSERT INTO stepwise_threads"
    " (id, owner, name, model, last, touched, pinned, deleted)"
    " VALUES (:id, :owner, :name, '', :last, :touched, FALSE, 0)"
    " ON CONFLICT (id) DO UPDATE SET last = excluded.last, touched = excluded.touched, deleted = 0"
)
_PREFER = text(
    "INSERT INTO stepwise_preferences (owner, body) VALUES (:owner, :body)"
    " ON CONFLICT (owner) DO UPDATE SET body = excluded.body"
)


# -- what is asked each time that models write: made once, for SQLAlchemy takes longer to make a
# -- statement than SQLite to carry it out

_LAST = select(func.max(EVENTS.c.place)).where(EVENTS.c.run == RUNS.c.number).scalar_subquery()
_WRITTEN = select(
    RUNS.c.id, RUNS.c.number, RUNS.c.thread, func.coalesce(_LAST, 0).label("places")
).where(RUNS.c.id.in_(bindparam("ids", expanding=True)))
_OF_RUN = EVENTS.c.run == bindparam("of_run")
_FIRST_DRAFT = select(func.min(EVENTS.c.place)).where(_OF_RUN, EVENTS.c.draft).scalar_subquery()
_LATE = and_(_OF_RUN, EVENTS.c.place >= _FIRST_DRAFT)
_DRAFTS = select(EVENTS.c.body).where(_LATE).order_by(EVENTS.c.place)
_TAKE_DRAFTS = EVENTS.delete().where(_LATE)
_ADD_EVENTS = EVENTS.insert()
_ADD_UP = (
    RUNS.update()
    .where(RUNS.c.number == bindparam("of_run"))
    .values({name: RUNS.c[name] + bindparam(f"more_{name}") for name in (*_SUMS, "steps")})
)


# -- the events of a run


def _written(connection: Connection, ids: list[str]) -> dict[str, Any]:
    """Of each run its number, its conversation, and how many of its events are written."""
    return {row.id: row for row in connection.execute(_WRITTEN, {"ids": ids})}


def _take_drafts(connection: Connection, run: int) -> tuple[Event, ...]:
    """Takes out the run's events from its first delta on: what follows may make some void."""
    bodies = connection.scalars(_DRAFTS, {"of_run": run}).all()
    if bodies:
        connection.execute(_TAKE_DRAFTS, {"of_run": run})
    return tuple(event for body in bodies if (event := event_of(body)))
