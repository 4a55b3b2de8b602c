"""Where the history lies: a SQLite file or a PostgreSQL database, with tables of this version.

This file, tables.py, index.py and store.py are the only ones that import SQLAlchemy. What is
written to the tables and read from them is in store.py. No message and no log shows a password.

StoreError is the only error for what a person can mend: its code is a key of FAULTS.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    QueuePool,
    create_engine,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, SQLAlchemyError

from history import index, salvage
from history.tables import EVENTS, METADATA, PREFERENCES, RUNS, SCHEMA, TEXTS, THREADS

BUSY = 5.0  # seconds; that long another process may write, or a server take to answer
DATABASE_URL = "DATABASE_URL"
_LOCK = 7_837_329  # PostgreSQL's lock for who makes or changes the tables; any number of ours
_HERE = "or set DATABASE_URL to another place"
_log = logging.getLogger(__name__)

FAULTS = {
    "full": ("There is no room left for the history in {where}.", "Make room on the disk."),
    "locked": ("Another program keeps the history in {where} locked.", "Wait for it, or end it."),
    "readonly": ("The history in {where} cannot be written.", f"Make it writable, {_HERE}."),
    "closed": ("The history in {where} cannot be opened.", f"Give this user its folder, {_HERE}."),
    "damaged": ("What lies in {where} is no history.", f"Put a backup in its place, {_HERE}."),
    "set_aside": ("The history in {where} was damaged. {detail}", "Look at the disk."),
    "disk": ("The disk fails under the history in {where}: {detail}.", "Look at the disk."),
    "newer": ("The history in {where} is a newer Stepwise's: {detail}.", f"Update, {_HERE}."),
    "unreachable": ("No answer from {where}: {detail}.", "Start it, or check DATABASE_URL."),
    "refused": ("The server refuses the user or the password for {where}.", "Check DATABASE_URL."),
    "missing": ("The server does not have {where}.", "Use createdb, or check DATABASE_URL."),
    "url": ("DATABASE_URL is not understood: {detail}.", "Write postgresql://user@host/name."),
    "other": ("The history in {where} fails: {detail}.", "Look at the database."),
}


class StoreError(Exception):
    """The history cannot be read or written: what is wrong, and what to do about it."""

    def __init__(self, code: str, where: str = "", detail: str = "") -> None:
        message, remedy = FAULTS[code]
        self.code = code
        self.message = message.format(where=where, detail=detail)
        self.remedy = remedy
        super().__init__(f"{self.message} {self.remedy}")


# -- the versions of its tables


def _add_stop_and_taken(connection: Connection) -> None:
    for name in ("stop", "taken"):
        connection.execute(
            text(f"ALTER TABLE stepwise_runs ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")
        )


def _number_texts(connection: Connection) -> None:
    """A text has a number, by which an index finds it; the name that is searched is one, too."""
    kind = connection.dialect.name
    for change in _NUMBERED[kind]:
        connection.execute(text(change))
    connection.execute(text(_NAMES))
    connection.execute(text("ALTER TABLE stepwise_threads DROP COLUMN sought"))
    if kind == "sqlite":
        index.number(connection)


_NAMED = "ALTER TABLE stepwise_texts ADD COLUMN named BOOLEAN NOT NULL DEFAULT FALSE"
_NUMBERED = {
    "sqlite": ("ALTER TABLE stepwise_texts ADD COLUMN number INTEGER", _NAMED),
    "postgresql": ("ALTER TABLE stepwise_texts ADD COLUMN number BIGSERIAL PRIMARY KEY", _NAMED),
}
_NAMES = (  # all of them: which say no more than the question a database cannot tell
    "INSERT INTO stepwise_texts (thread, named, text) SELECT id, TRUE, sought FROM stepwise_threads"
)


# What takes a history of version 1 to 2, of version 2 to 3, ... Change a table above and add
# how an older one gets there. A new history is made as the tables above say.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _add_stop_and_taken,
    _number_texts,
)

_ORPHANS = tuple(  # of rows that could not be read
    table.delete().where(column.not_in(select(parent)))
    for table, column, parent in (
        (RUNS, RUNS.c.thread, THREADS.c.id),
        (TEXTS, TEXTS.c.thread, THREADS.c.id),
        (EVENTS, EVENTS.c.run, RUNS.c.number),
    )
)


def newest() -> int:
    """The version of the tables above."""
    return 1 + len(MIGRATIONS)


# -- the database


class Database:
    """An open database whose tables are there and of this version.

    A SQLite file that is found damaged, now or later, is laid aside and a fresh one begun with
    what can be read of it: `set_aside` says so. Whoever met the damage gets that as an error,
    and may try again.
    """

    def __init__(self, url: str | None = None) -> None:
        url = url or os.environ.get(DATABASE_URL)
        self._given = _parsed(url) if url else _default()
        self.where = _named(self._given)
        self.set_aside: StoreError | None = None
        self._password = self._given.password or ""
        self._mending = threading.RLock()
        self._fresh = False  # what is opened now was begun here: damage in it is the disk's
        try:
            self._open()
        except StoreError as error:
            if error is not self.set_aside:
                raise

    def _open(self) -> None:
        self._engine = _engine(self._given)
        self._writer = self._engine.execution_options(writing=True)
        self._identity = salvage.identity(file) if (file := self._file) else None
        with self.writing() as connection:
            self._make_tables(connection)

    @property
    def _file(self) -> Path | None:
        return (
            Path(self._given.database) if self._given.database and _is_file(self._given) else None
        )

    @property
    def kind(self) -> str:
        """ "sqlite" or "postgresql"."""
        return self._engine.dialect.name

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._explained(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction; it is in the database when the block has ended."""
        with self._explained(), self._writer.begin() as connection:
            yield connection

    def forget(self) -> None:
        """Takes out of the index what was deleted: some of it in each of many transactions."""
        more, first = True, True
        try:
            while more:
                with self.writing() as connection:
                    more = index.merge(connection, first)
                first = False
        except StoreError as error:
            _log.warning("What was deleted is still in the index of the history: %s", error)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what failed at the database into a StoreError; bad values stay what they are."""
        used = self._engine
        try:
            yield
        except (DataError, IntegrityError):
            raise
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            detail = (str(cause).splitlines() or [type(cause).__name__])[0].rstrip(".")
            detail = detail.rpartition("failed: ")[2]  # the driver names the server before it
            if self._password:
                detail = detail.replace(self._password, "***")
            code = _code(cause)
            if code == "damaged" and self._begin_afresh(used):
                assert self.set_aside is not None
                raise self.set_aside from None
            raise StoreError(code, self.where, detail) from None

    def _begin_afresh(self, used: Engine) -> bool:
        """Lays the damaged file aside, once, and opens one with what is readable of it.

        False where there is no such file, or it never was a history.
        """
        file = self._file
        with self._mending:
            if used is not self._engine:
                return True  # another thread has met the damage, too
            if self._fresh or file is None or not salvage.was_database(file):
                return False
            with salvage.alone_in(file.parent):
                if salvage.identity(file) == self._identity:
                    self._replace(file)
                else:  # another process has
                    used.dispose()
                    self.set_aside = StoreError("set_aside", self.where, "A fresh one is there.")
                    self._open()
            return True

    def _replace(self, file: Path) -> None:
        self._engine.dispose()
        aside = salvage.lay_aside(file)
        self.set_aside = StoreError("set_aside", self.where, f"It lies in {aside.name} now.")
        self._fresh = True
        try:
            self._open()
            taken = self._salvage(aside, file)
        finally:
            self._fresh = False
        detail = f"It lies in {aside.name} now; a fresh one was begun with {taken} runs of it."
        self.set_aside = StoreError("set_aside", self.where, detail)
        _log.warning("%s", self.set_aside)

    def _salvage(self, old: Path, new: Path) -> int:
        """How many runs could be read of the old file; none of them where it is too bad."""
        tables = [THREADS, RUNS, EVENTS, TEXTS, PREFERENCES]
        columns = {table.name: [column.name for column in table.columns] for table in tables}
        try:
            with self.writing() as connection:
                index.leave(connection)
            taken = salvage.salvage(old, new, columns)[RUNS.name]
            with self.writing() as connection:
                for orphans in _ORPHANS:
                    connection.execute(orphans)
                index.number(connection)
                index.prepare(connection)
        except (sqlite3.Error, StoreError) as error:
            _log.warning("Nothing could be read of %s: %s", old, error)
            return 0
        return taken

    def _make_tables(self, connection: Connection) -> None:
        if self.kind == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        if not inspect(connection).has_table(SCHEMA.name):
            METADATA.create_all(connection)
            connection.execute(SCHEMA.insert().values(version=newest()))
        version = connection.scalar(select(SCHEMA.c.version)) or 0
        if version > newest():
            detail = f"its version is {version}, this one's {newest()}"
            raise StoreError("newer", self.where, detail)
        for migrate in MIGRATIONS[version - 1 :]:
            migrate(connection)
        connection.execute(SCHEMA.update().values(version=newest()))
        index.prepare(connection)


# -- its address


def _default() -> URL:
    """The user's data folder, as the XDG specification says."""
    try:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise StoreError("closed", "the history in the home folder", str(error)) from None
    return URL.create("sqlite", database=str(Path(data) / "stepwise" / "history.db"))


def _parsed(url: str) -> URL:
    """The address as users write it, for the driver that is installed."""
    try:
        given = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError("url", detail="it is no address") from None
    kind = given.drivername.partition("+")[0]
    if kind in ("postgres", "postgresql"):
        return given.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise StoreError("url", detail=f"{kind} is neither postgresql nor sqlite")
    return given.set(drivername="sqlite")


def _named(url: URL) -> str:
    if url.drivername == "sqlite":
        return url.database or "the history in memory"
    port = f":{url.port}" if url.port else ""
    return f"the database {url.database or 'of the user'} on {url.host or 'this machine'}{port}"


# -- its engine


def _engine(url: URL) -> Engine:
    shared: dict[str, Any] = {"hide_parameters": True, "pool_timeout": BUSY}  # no text in a log
    if url.drivername != "sqlite":
        waits = {"connect_timeout": int(BUSY), "tcp_user_timeout": int(BUSY * 1000)}
        return create_engine(url, connect_args=waits, pool_pre_ping=True, **shared)
    if not _is_file(url):  # it lives in one connection, which all share
        shared |= {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
    else:
        _make_file(Path(url.database or ""))
    engine = create_engine(
        url, connect_args={"timeout": BUSY, "check_same_thread": False}, **shared
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _is_file(url: URL) -> bool:
    return url.drivername == "sqlite" and url.database not in (None, "", ":memory:")


def _make_file(path: Path) -> None:
    """An empty file that nobody else may read, in a folder that nobody else may enter."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError("closed", str(path), str(error)) from None


def _prepare(connection: Any, _record: Any) -> None:
    """FULL: a commit waits for the disk, so that a power cut too loses nothing that was shown.

    That is cheap here, where one commit holds the events of all runs. What is deleted is
    overwritten, so that "deleted for good" is true of the file, too.
    """
    connection.text_factory = salvage.decoded
    connection.isolation_level = None  # or the driver begins transactions where it likes
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    """Who will write locks first: a reader that turns writer is refused without waiting."""
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


# -- what went wrong

_SQLITE = {
    "SQLITE_FULL": "full",
    "SQLITE_BUSY": "locked",
    "SQLITE_LOCKED": "locked",
    "SQLITE_READONLY": "readonly",
    "SQLITE_CANTOPEN": "closed",
    "SQLITE_NOTADB": "damaged",
    "SQLITE_CORRUPT": "damaged",
    "SQLITE_IOERR": "disk",
}
_SQLITE_DAMAGED = ("unsupported file format", "malformed database schema")
_POSTGRESQL = {
    "53100": "full",
    "55P03": "locked",
    "25006": "readonly",
    "42501": "readonly",
    "28": "refused",
    "3D": "missing",
    "08": "unreachable",
    "57": "unreachable",
}
_SAID = {  # by a server that took no connection; then there is no code
    "authentication failed": "refused",
    "no pg_hba.conf entry": "refused",
    "does not exist": "missing",
}


def _code(cause: BaseException) -> str:
    """The fault behind a driver's error."""
    name = getattr(cause, "sqlite_errorname", None)
    if name:
        if any(words in str(cause) for words in _SQLITE_DAMAGED):
            return "damaged"
        found = [code for prefix, code in _SQLITE.items() if name.startswith(prefix)]
        return found[0] if found else "other"
    state = getattr(cause, "sqlstate", None)
    if state:
        found = [code for prefix, code in _POSTGRESQL.items() if state.startswith(prefix)]
        return found[0] if found else "other"
    if type(cause).__name__ not in ("OperationalError", "ConnectionTimeout", "TimeoutError"):
        return "other"
    said = [code for words, code in _SAID.items() if words in str(cause)]
    return said[0] if said else "unreachable"
