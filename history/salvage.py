"""A damaged SQLite file: laid aside, and what can be read of it written into a fresh one.

It knows bytes, files and rows; what the tables are is told to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

MAGIC = b"SQLite format 3\x00"
ALIKE = 12  # of its bytes; a few may be damaged, but a letter is no history
BESIDE = ("", "-wal", "-shm")  # what SQLite keeps beside a file goes with it
FARTHEST = 2**32  # rows that are leapt over in search of a readable one

Tables = Mapping[str, Sequence[str]]  # the columns of each, in an order in which they may be filled


def was_database(path: Path) -> bool:
    """Whether the file begins as one of SQLite's does, or nearly so."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(MAGIC))
    except OSError:
        return False
    return sum(one == other for one, other in zip(begin, MAGIC, strict=False)) >= ALIKE


def identity(path: Path) -> tuple[int, int]:
    """Tells the file from one that another process has put in its place."""
    found = path.stat()
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other process lays aside what is in the folder meanwhile."""
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def lay_aside(path: Path) -> Path:
    """Renames the file and what is beside it; the new name is returned."""
    stem = f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%S')}"
    names = (path.with_name(stem + end) for end in ("", *map("-{}".format, range(2, 1000))))
    aside = next(name for name in names if not name.exists())
    for end in BESIDE:
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{end}", f"{aside}{end}")
    return aside


def salvage(old: Path, new: Path, tables: Tables) -> dict[str, int]:
    """Copies the rows that can be read; how many of each table were taken."""
    taken = {}
    with closing(sqlite3.connect(old)) as source, closing(sqlite3.connect(new)) as target, target:
        source.text_factory = decoded
        for table, columns in tables.items():
            known = _columns_known(source, table, columns)
            names, marks = ", ".join(known), ", ".join("?" * len(known))
            insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})"
            rows = _readable_rows(source, f"SELECT rowid, {names} FROM {table}")
            taken[table] = target.executemany(insert, rows).rowcount
    return taken


def _columns_known(source: sqlite3.Connection, table: str, columns: Sequence[str]) -> Sequence[str]:
    """Those of the columns that the old file has: it may be an older version's."""
    with contextlib.suppress(sqlite3.Error):
        there = {row[1] for row in source.execute(f"PRAGMA table_info({table})")}
        return [column for column in columns if column in there] or columns
    return columns


def decoded(text: bytes) -> str:
    """A damaged character costs no more than itself."""
    return text.decode("utf-8", "replace")


def _readable_rows(source: sqlite3.Connection, query: str) -> Iterator[Sequence[object]]:
    """The rows in their order; where one cannot be read, over it and farther each time."""
    start, leap = 0, 1
    while leap < FARTHEST:
        try:
            for rowid, *row in source.execute(f"{query} WHERE rowid >= ? ORDER BY rowid", (start,)):
                start, leap = rowid + 1, 1
                yield row
            return
        except (sqlite3.Error, OverflowError):
            start, leap = start + leap, leap * 2
