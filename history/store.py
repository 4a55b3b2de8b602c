"""The history: every run with its events, in conversations, each with its owner.

It knows no thread and no clock of a run: history/recorder.py writes here what the runs heard,
before it is shown. Where the history lies is in history/database.py.

A delta is kept until its step is finished, which holds its text whole; so a finished run
takes a row for each step, and one that was cut off still has what was being written.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, get_type_hints

import psutil
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

from history.database import EVENTS, PREFERENCES, RUNS, TEXTS, THREADS, Database
from history.database import StoreError as StoreError
from history.request import Link, RunRequest, request_from_json, request_to_json
from reasoning.events import (
    Answer,
    Delta,
    Event,
    Failed,
    Notice,
    Queued,
    Step,
    Stopped,
    Trace,
    to_dict,
)
from reasoning.parsing import whole_characters
from reasoning.traces import LARGEST, compact, event_from_row

KEPT_DELETED = 30 * 24 * 3600.0  # seconds in which a deleted conversation can be restored
SILENT = 30.0  # seconds without a sign of life after which a run is cut off
SAME = 1.0  # seconds; when a process began is told from the boot, which a set clock moves
FIGURES = 2_000  # runs; as many points as a chart can show
LONGEST_NAME = 200  # characters
LONGEST_SEARCH = 200  # characters; a SQLite pattern has a limit
_STATES = {Answer: "answered", Failed: "failed", Stopped: "stopped"}
STATES = {*_STATES.values(), "thinking", "interrupted"}
Value = TypeVar("Value")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that begins. Its thread is its own id where it begins a conversation.

    `state` is "interrupted" for one that was broken off before it came here.
    """

    id: str
    asked: RunRequest
    link: Link
    owner: str
    at: float
    state: str = "thinking"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a run has heard beyond its first `since` events."""

    run: str
    since: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A run as it is listed. Times are seconds since the epoch, `ended` is 0 before the end.

    `state` is "thinking", "answered", "failed", "stopped" or "interrupted".
    """

    id: str
    question: str
    model: str
    way: str
    link: Link
    at: float
    ended: float
    state: str
    seconds: float
    waited: float
    tokens: int
    steps: int
    answer: str
    owner: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is that another process thinks: the number of its last event is `place`.

    The events are those after the place that was asked from; all of them where it is `whole`,
    for a step that ends takes the place of the deltas in which it came.
    """

    state: str
    place: int
    events: tuple[Event, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation as it is listed; `last` is the id of its newest run, `model` that run's."""

    id: str
    name: str
    owner: str
    touched: float
    pinned: bool
    last: str
    model: str


class Store:
    """The history. Each method is one transaction; any thread may call it.

    `url` is as in DATABASE_URL, which is heeded where none is given; "sqlite://" is a
    history as long as the process. Every method raises StoreError when the database fails.
    """

    def __init__(self, url: str | None = None, now: Callable[[], float] = time.time) -> None:
        self._database = Database(url)
        self._now = now
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
            return _readable(connection.execute(query), _entry)

    def follow(self, id: str, since: int = 0) -> Progress:
        """How far the run is beyond event number `since`. It is cut off if its process is gone."""
        silent = (self._instant - RUNS.c.beat).label("silent")
        query = select(RUNS.c.state, RUNS.c.keeper, silent).where(RUNS.c.id == id)
        with self._database.reading() as connection:
            run = connection.execute(query).first()
        state = run.state if run else "interrupted"  # none: it was deleted for good
        if run and state == "thinking" and not _lives(run.keeper, run.silent):
            state = self._cut_off(id)
        return self._progress(id, state, since)

    def _progress(self, id: str, state: str, since: int) -> Progress:
        """The state was read before the events: an end is written together with its event."""
        rows = self._rows_after(id, since)
        whole = not since or not all(row.draft for row in rows)
        if since and whole:  # what was drafted before may be another now
            rows = self._rows_after(id, 0)
        place = rows[-1].place if rows else since
        return Progress(state, place, compact(_told([row.body for row in rows])), whole)

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
        question, thread = _plain(run.asked.question), run.link.thread or run.id
        self._touch(connection, thread, question, run)
        values = {
            "id": run.id,
            "thread": thread,
            "together": run.link.group,
            "asked": json.dumps(request_to_json(run.asked)),
            "question": question,
            "way": _plain(run.asked.way),
            "at": run.at,
            "state": run.state,
            "keeper": _keeper(),
            "beat": self._instant,
            **{key: getattr(run.link, key) for key in ("after", "origin", "parts", "how")},
        }
        connection.execute(RUNS.insert().values(_EMPTY | values))
        connection.execute(TEXTS.insert().values(thread=thread, text=_sought(question)))

    def _touch(self, connection: Connection, thread: str, question: str, run: Begun) -> None:
        """The conversation of a run that begins; one that was deleted is there again."""
        name = _name(question)
        values = {"id": thread, "owner": run.owner, "name": name, "sought": _sought(name)}
        connection.execute(_TOUCH, values | {"last": run.link.group or run.id, "touched": run.at})

    def _append(self, connection: Connection, heard: Sequence[Heard]) -> None:
        known = _written(connection, [one.run for one in heard])
        rows: list[dict[str, Any]] = []
        texts: list[dict[str, str]] = []
        for one in heard:
            run = known.get(one.run)
            if run is None:  # its conversation was purged while it was thinking
                _log.warning("Run %s is no longer in the history: it is not saved", one.run)
                continue
            new = one.events[max(0, run.places - one.since) :]
            drafts = _take_drafts(connection, run.number) if _finishes(new) else ()
            rows += _rows(run.number, one.since + len(one.events), compact((*drafts, *new)))
            texts += [{"thread": run.thread, "text": _sought(said)} for said in _said(new)]
            self._count(connection, run, new)
        if rows:
            connection.execute(_ADD_EVENTS, rows)
        if texts:
            connection.execute(TEXTS.insert(), texts)

    def _count(self, connection: Connection, run: Row[Any], new: tuple[Event, ...]) -> None:
        """Brings the run's figures up to date, and the model of its conversation."""
        if not _finishes(new):
            return
        trace = Trace(new)
        more = {f"more_{name}": getattr(trace, name) for name in _SUMS}
        more |= {"more_steps": len(trace.steps), "of_run": run.number}
        connection.execute(_ADD_UP, more)
        values: dict[str, Any] = {}
        if trace.started:
            started = trace.started
            values |= {"model": _plain(started.model), "way": _plain(started.way)}
            named = THREADS.update().where(THREADS.c.id == run.thread)
            connection.execute(named.values(model=values["model"]))
        if trace.end:
            values |= {"state": _STATES[type(trace.end)], "ended": self._now()}
        if trace.answer:
            values["answer"] = _plain(trace.answer.content)
        if values:
            connection.execute(RUNS.update().where(RUNS.c.number == run.number).values(values))

    # -- reading runs

    def entry(self, id: str, owner: str | None = None) -> Entry | None:
        """The run as it is listed; None for one that is not there, or not this owner's."""
        with self._database.reading() as connection:
            query = _entries(owner).where(RUNS.c.id == id)
            return _first(_readable(connection.execute(query), _entry))

    def events(self, id: str) -> tuple[Event, ...]:
        """What happened, without the deltas that a later event made superfluous.

        What is damaged is left out, and a Notice in its place says how much it is.
        """
        query = select(EVENTS.c.body).join(RUNS).where(RUNS.c.id == id).order_by(EVENTS.c.place)
        with self._database.reading() as connection:
            bodies = connection.scalars(query).all()
        return compact(_told(bodies))

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
            return _readable(connection.execute(query), _entry)

    def figures(self, owner: str) -> list[Entry]:
        """The owner's newest answered runs, oldest first."""
        mine = and_(THREADS.c.owner == owner, RUNS.c.state == "answered")
        query = _entries().where(mine).order_by(RUNS.c.number.desc()).limit(FIGURES)
        with self._database.reading() as connection:
            return _readable(connection.execute(query), _entry)[::-1]

    # -- conversations

    def threads(
        self, owner: str, search: str = "", limit: int = 30, offset: int = 0
    ) -> list[Thread]:
        """The owner's conversations: pinned ones first, then those that were touched last.

        Each word of `search` occurs in the name, a question, a step or an answer.
        """
        order = (THREADS.c.pinned.desc(), THREADS.c.touched.desc(), THREADS.c.id.desc())
        query = _listed(select(THREADS), owner, search).order_by(*order)
        with self._database.reading() as connection:
            return _readable(connection.execute(query.limit(limit).offset(offset)), _thread)

    def count_threads(self, owner: str, search: str = "") -> int:
        query = _listed(select(func.count()).select_from(THREADS), owner, search)
        with self._database.reading() as connection:
            return connection.scalar(query) or 0

    def thread(self, id: str) -> Thread | None:
        query = select(THREADS).where(THREADS.c.id == id, THREADS.c.deleted == 0)
        with self._database.reading() as connection:
            return _first(_readable(connection.execute(query), _thread))

    def rename(self, thread_id: str, name: str, owner: str = "") -> None:
        """An empty name is the first question again."""
        with self._database.writing() as connection:
            if not name.strip():
                first = select(RUNS.c.question).where(RUNS.c.thread == thread_id)
                name = connection.scalar(first.order_by(RUNS.c.number).limit(1)) or ""
            name = _name(_plain(name))
            _change(connection, thread_id, owner, name=name, sought=_sought(name))

    def pin(self, thread_id: str, pinned: bool, owner: str = "") -> None:
        with self._database.writing() as connection:
            _change(connection, thread_id, owner, pinned=pinned)

    def delete(self, thread_id: str, owner: str = "") -> None:
        """Hides the conversation; it is gone for good 30 days later."""
        with self._database.writing() as connection:
            _change(connection, thread_id, owner, deleted=self._now())
            self._purge(connection)

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
            self._purge(connection)
            self._mark_interrupted(connection)

    def _purge(self, connection: Connection) -> None:
        old = and_(THREADS.c.deleted > 0, THREADS.c.deleted < self._now() - KEPT_DELETED)
        connection.execute(THREADS.delete().where(old))

    def _mark_interrupted(self, connection: Connection) -> None:
        """The runs that still think, by what is written, in a process that is gone."""
        silent = self._instant - func.max(RUNS.c.beat)
        query = select(RUNS.c.keeper, silent).where(RUNS.c.state == "thinking")
        keepers = connection.execute(query.group_by(RUNS.c.keeper)).all()
        gone = [keeper for keeper, seconds in keepers if not _lives(keeper, seconds)]
        if gone:
            connection.execute(_INTERRUPT.where(RUNS.c.keeper.in_(gone)))

    @property
    def _instant(self) -> ColumnElement[float]:
        """Now, by the one clock that all processes of a history have in common."""
        if self._database.kind == "postgresql":
            return cast(extract("epoch", func.clock_timestamp()), Double)
        return literal(self._now(), Double)


# -- whether a process lives

_UNENDED = ("thinking", "interrupted")
_INTERRUPT = (
    RUNS.update().where(RUNS.c.state == "thinking").values(state="interrupted", ended=RUNS.c.beat)
)


def _lives(keeper: str, silent: float) -> bool:
    """Whether it gave a sign of life of late; one of this machine is looked for, too."""
    try:
        machine, pid, began = keeper.rsplit(" ", 2)
        if silent >= SILENT or machine != _machine():
            return silent < SILENT
        created: float = psutil.Process(int(pid)).create_time()
        return abs(created - float(began)) < SAME
    except (psutil.Error, ValueError, TypeError):  # it is gone, or its name is damaged
        return False


@cache
def _keeper() -> str:
    """This process, so that it is told from a later one with its number."""
    pid = os.getpid()
    return f"{_machine()} {pid} {psutil.Process(pid).create_time()}"


@cache
def _machine() -> str:
    """Where a number names one process: containers may share a host's name, but not numbers."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return socket.gethostname() + numbers


# -- rows to values

_SUMS = ("seconds", "waited", "tokens")
_EMPTY = {"model": "", "ended": 0.0, "steps": 0, "answer": "", **dict.fromkeys(_SUMS, 0)}


def _entries(owner: str | None = None) -> Select[Any]:
    """The runs of all conversations that are there, or of this owner's."""
    query = select(RUNS, THREADS.c.owner).join(THREADS).where(THREADS.c.deleted == 0)
    return query if owner is None else query.where(THREADS.c.owner == owner)


def _readable(rows: Iterable[Row[Any]], make: Callable[[Row[Any]], Value]) -> list[Value]:
    """What the rows say; those that a disk has damaged are left out, and counted in the log."""
    found, damaged = [], 0
    for row in rows:
        try:
            found.append(make(row))
        except ValueError:
            damaged += 1
    if damaged:
        _log.warning("The history has damaged rows, left out of a list: %d", damaged)
    return found


def _first(values: list[Value]) -> Value | None:
    return values[0] if values else None


def _entry(row: Row[Any]) -> Entry:
    link = Link(row.thread, row.after, row.origin, row.parts, row.how, row.together)
    names = [name for name in Entry.__slots__ if name != "link"]
    entry = Entry(link=link, **{name: getattr(row, name) for name in names})
    _check(link)
    _check(entry)
    if entry.state not in STATES:
        raise ValueError(f"expected a state of {sorted(STATES)}, got {entry.state!r}")
    return entry


def _thread(row: Row[Any]) -> Thread:
    thread = Thread(**{name: getattr(row, name) for name in Thread.__slots__})
    _check(thread)
    return thread


def _check(value: Entry | Thread | Link) -> None:
    """Raises ValueError where a column holds what was never written there."""
    for name, kind in _KINDS[type(value)].items():
        found = getattr(value, name)
        if not isinstance(found, kind):
            raise ValueError(f"expected {name} as {kind}, got {type(found).__name__}")
        if isinstance(found, (int, float)) and not 0 <= found <= LARGEST:
            raise ValueError(f"expected {name} from 0 to {LARGEST:.0e}, got {found!r:.20}")


_KINDS = {  # the type of each field; a whole number may stand for a float
    value: {
        name: (int, float) if kind is float else kind
        for name, kind in get_type_hints(value).items()
    }
    for value in (Entry, Thread, Link)
}


def _listed(query: Select[Any], owner: str, search: str) -> Select[Any]:
    query = query.where(THREADS.c.owner == owner, THREADS.c.deleted == 0)
    return query.where(*map(_holds, _sought(search[:LONGEST_SEARCH]).split()))


def _holds(word: str) -> ColumnElement[bool]:
    said = select(TEXTS.c.thread).where(TEXTS.c.text.contains(word, autoescape=True))
    return or_(THREADS.c.sought.contains(word, autoescape=True), THREADS.c.id.in_(said))


def _change(connection: Connection, thread_id: str, owner: str, **values: Any) -> None:
    """Nothing changes where the conversation is another's."""
    mine = and_(THREADS.c.id == thread_id, THREADS.c.owner == owner)
    connection.execute(THREADS.update().where(mine).values(values))


# -- what SQLite and PostgreSQL write alike, and SQLAlchemy not

_TOUCH = text(
    "INSERT INTO stepwise_threads"
    " (id, owner, name, sought, model, last, touched, pinned, deleted)"
    " VALUES (:id, :owner, :name, :sought, '', :last, :touched, FALSE, 0)"
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


# -- events to rows


def _written(connection: Connection, ids: list[str]) -> dict[str, Any]:
    """Of each run its number, its conversation, and how many of its events are written."""
    return {row.id: row for row in connection.execute(_WRITTEN, {"ids": ids})}


PASSING = (Delta, Queued)  # what a later event makes void


def _finishes(new: tuple[Event, ...]) -> bool:
    """Whether there is more than a draft going on."""
    return any(not isinstance(event, PASSING) for event in new)


def _take_drafts(connection: Connection, run: int) -> tuple[Event, ...]:
    """Takes out the run's events from its first delta on: what follows may make some void."""
    bodies = connection.scalars(_DRAFTS, {"of_run": run}).all()
    if bodies:
        connection.execute(_TAKE_DRAFTS, {"of_run": run})
    return tuple(event for body in bodies if (event := _event(body)))


def _event(body: Any) -> Event | None:
    """The event of a row; None where a disk has damaged it."""
    try:
        return event_from_row(body)
    except (ValueError, TypeError, RecursionError):
        return None


def _told(bodies: Sequence[Any]) -> tuple[Event, ...]:
    """The events of a run's rows, and in the place of the first damaged one how many are."""
    events = [_event(body) for body in bodies]
    damaged = events.count(None)
    told = [event for event in events if event is not None]
    if damaged:
        told.insert(events.index(None), Notice("damaged", str(damaged)))
    return tuple(told)


def _rows(run: int, last: int, kept: tuple[Event, ...]) -> list[dict[str, Any]]:
    """The rows of what is kept of a batch, whose last event is number `last` of its run."""
    return [
        {
            "run": run,
            "place": place,
            "draft": isinstance(event, PASSING),
            "body": json.dumps(to_dict(event)),  # ASCII: no database refuses a character of it
        }
        for place, event in enumerate(kept, last - len(kept) + 1)
    ]


def _said(events: tuple[Event, ...]) -> list[str]:
    """What is searched."""
    steps = [f"{event.title}\n{event.content}" for event in events if isinstance(event, Step)]
    return steps + [event.content for event in events if isinstance(event, Answer)]


# -- texts


def _plain(said: str) -> str:
    """The text without what a database refuses: NUL, halves of characters."""
    return whole_characters(said).replace("\x00", "\ufffd")


def _sought(said: str) -> str:
    """The text as it is searched: without case, full width and half width alike."""
    return unicodedata.normalize("NFKC", _plain(said)).casefold()


def _name(said: str) -> str:
    """In one line."""
    return " ".join(said.split())[:LONGEST_NAME]
