"""How words are found in the texts of a history, by an index of the pieces of words.

A word occurs in a text where the text holds its letters in a row. SQLite's FTS5 knows which
texts hold which three characters, a GIN index of PostgreSQL which hold which two: where all
pieces of a word are, the word is sought in the text itself. So neither needs to know where a
word ends, which Chinese does not say.

A word that many hold is found sooner by looking through the newest conversations.
A SQLite without FTS5 looks through all of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    func,
    intersect,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from history.tables import TEXTS, THREADS

FEW = 2_000  # texts; what more may hold is sought in the newest conversations first
NEWEST = (100, 400, 1_000)  # conversations looked through in turn; the last for one word alone
SEEN = 1  # of the first of these; a word that no more of them hold is rare, for PostgreSQL
ASKED = 4  # words for which the index is asked; SQLite's parser bears no more than some 20
PLACES = 20  # bits of a text's number: its place in its conversation; the rest is that one's number
MERGED = 500  # pages of SQLite's index that are written anew at a time; a moment for who waits
_LAST = "\U0010ffff" * 3  # no three characters come later

_ADD = TEXTS.insert()
_ORDER = ("pinned", "touched", "id")


def find(
    connection: Connection, owner: str, words: Sequence[str], limit: int, offset: int
) -> Sequence[Row[Any]]:
    """The owner's conversations that hold each of the words, in the order of their list."""
    if not words or not has_index(connection):
        query = _ordered(_mine(owner).where(*_hold(connection, words)), THREADS)
        return connection.execute(query.limit(limit).offset(offset)).all()
    rare = _rare(connection, owner, words)
    if not rare:
        found = _newest(connection, owner, words, limit + offset)
        if len(found) == limit + offset:
            return found[offset:]
    longest = sorted(rare or words, key=len)[-ASKED:]
    mine = and_(THREADS.c.owner + "" == owner, THREADS.c.deleted == 0)  # not by the list's index
    query = select(THREADS).where(mine, _may_hold(connection, longest), *_hold(connection, words))
    return connection.execute(_ordered(query, THREADS).limit(limit).offset(offset)).all()


def _mine(owner: str) -> Select[Any]:
    return select(THREADS).where(THREADS.c.owner == owner, THREADS.c.deleted == 0)


def _ordered(query: Select[Any], table: Any) -> Select[Any]:
    """Pinned ones first, then those that were touched last."""
    return query.order_by(*(table.c[name].desc() for name in _ORDER))


def _hold(
    connection: Connection, words: Sequence[str], threads: Any = THREADS
) -> list[ColumnElement[bool]]:
    """Each of the words is in a text of the conversation."""
    texts = select(TEXTS.c.thread).where(TEXTS.c.thread == threads.c.id)
    return [texts.where(_in_text(connection, word)).exists() for word in words]


def _in_text(connection: Connection, word: str) -> ColumnElement[bool]:
    place = func.instr if connection.dialect.name == "sqlite" else func.strpos
    return place(TEXTS.c.text, word) > 0


def _newest(
    connection: Connection, owner: str, words: Sequence[str], enough: int
) -> Sequence[Row[Any]]:
    """Those of the newest conversations that hold the words, until there are enough."""
    found: list[Row[Any]] = []
    begin = 0
    for many in NEWEST if len(words) == 1 else NEWEST[:-1]:
        some = _ordered(_mine(owner), THREADS).limit(many).offset(begin).subquery()
        query = _ordered(select(some).where(*_hold(connection, words, some)), some)
        found += connection.execute(query.limit(enough - len(found))).all()
        begin += many
        if len(found) == enough:
            break
    return found


# -- the index, whichever it is


def has_index(connection: Connection) -> bool:
    return bool(connection.scalar(text(_THERE[connection.dialect.name])))


def prepare(connection: Connection) -> None:
    """Makes and fills the index where there is none that is up to date."""
    if connection.dialect.name == "postgresql":
        if not has_index(connection):
            _carry_out(connection, _GIN)
        return
    if not _has_fts5(connection):
        leave(connection)
    elif not has_index(connection):
        _carry_out(connection, _FTS5)


def add(connection: Connection, texts: Sequence[dict[str, Any]]) -> None:
    """Texts of conversations: `thread`, `named`, `text`."""
    numbered = connection.dialect.name == "sqlite"
    connection.execute(_ADD_NUMBERED if numbered else _ADD, texts)


def _carry_out(connection: Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)


def _rare(connection: Connection, owner: str, words: Sequence[str]) -> list[str]:
    """The words that few texts hold."""
    if connection.dialect.name == "postgresql":
        some = _ordered(_mine(owner), THREADS).limit(NEWEST[0]).subquery()
        longest = sorted(words, key=len)[-ASKED:]
        return [word for word in longest if _seen(connection, some, word) <= SEEN]
    return [word for word in words if _count(connection, word) < FEW]


def _seen(connection: Connection, threads: Any, word: str) -> int:
    """How many of the conversations hold it: the index of PostgreSQL takes longer to tell."""
    query = select(func.count()).select_from(threads).where(*_hold(connection, [word], threads))
    return connection.scalar(query) or 0


def _count(connection: Connection, word: str) -> int:
    sql, value = _texts_with(word, "")
    query = text(f"SELECT count(*) FROM (SELECT 1 FROM {sql} LIMIT {FEW})")
    return connection.scalar(query, value) or 0


def _may_hold(connection: Connection, words: Sequence[str]) -> ColumnElement[bool]:
    """Of which conversations the index says that all pieces of each word are in one text."""
    if connection.dialect.name == "postgresql":
        found = intersect(*(_with_pairs(connection, word) for word in words)).scalar_subquery()
        return THREADS.c.id == func.any(func.array(found))
    sql = ""
    values: dict[str, str] = {}
    for number, word in enumerate(words):
        within = f" AND {_FIRST} IN ({sql})" if sql else ""
        source, value = _texts_with(word, str(number))
        sql, values = f"SELECT {_FIRST} FROM {source}{within}", values | value
    sql = f"SELECT thread FROM stepwise_texts WHERE number IN ({sql})"
    return text(f"stepwise_threads.id IN ({sql})").bindparams(**values)  # type: ignore[return-value]


# -- SQLite's: FTS5

# The first text of a conversation, by the number of any: so the index alone says which hold
# several words, each in another text.
_FIRST = f"(it >> {PLACES}) << {PLACES}"

# Two more characters at the end of a text, or its last two would begin no three.
_INDEXED = "{}.text || char(10, 10)"
_FTS5 = (
    "DROP TABLE IF EXISTS stepwise_search_pieces",
    "DROP TABLE IF EXISTS stepwise_search",
    "CREATE VIRTUAL TABLE stepwise_search USING fts5(text, content='', columnsize=0,"
    " detail=none, tokenize='trigram case_sensitive 1')",
    "CREATE VIRTUAL TABLE stepwise_search_pieces USING fts5vocab(stepwise_search, instance)",
    "INSERT INTO stepwise_search (rowid, text) SELECT number,"
    f" {_INDEXED.format('stepwise_texts')} FROM stepwise_texts",
    "CREATE TRIGGER stepwise_search_out AFTER DELETE ON stepwise_texts BEGIN"
    " INSERT INTO stepwise_search (stepwise_search, rowid, text)"
    f" VALUES ('delete', old.number, {_INDEXED.format('old')}); END",
    "CREATE TRIGGER stepwise_search_in AFTER INSERT ON stepwise_texts BEGIN"
    " INSERT INTO stepwise_search (rowid, text)"
    f" VALUES (new.number, {_INDEXED.format('new')}); END",
)
_ADD_NUMBERED = text(
    "INSERT INTO stepwise_texts (number, thread, named, text) VALUES (coalesce("
    "(SELECT max(number) + 1 FROM stepwise_texts WHERE thread = :thread),"
    f" ((SELECT coalesce(max(number), 0) >> {PLACES} FROM stepwise_texts) + 1) << {PLACES}"
    "), :thread, :named, :text)"
)


def _has_fts5(connection: Connection) -> bool:
    known = "SELECT 1 FROM pragma_module_list WHERE name = 'fts5'"
    return sqlite3.sqlite_version_info >= (3, 34) and bool(connection.scalar(text(known)))


def leave(connection: Connection) -> None:
    """Keeps the index up to date no longer: without triggers it counts as none."""
    for name in ("in", "out"):
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS stepwise_search_{name}")


def number(connection: Connection) -> None:
    """Numbers all texts of a SQLite file anew, conversation by conversation; then prepare()."""
    leave(connection)
    connection.exec_driver_sql("DROP INDEX IF EXISTS ix_stepwise_texts_thread")
    connection.exec_driver_sql("ALTER TABLE stepwise_texts RENAME TO stepwise_texts_before")
    TEXTS.create(connection)
    connection.exec_driver_sql(
        "INSERT INTO stepwise_texts (number, thread, named, text) SELECT"
        f" (dense_rank() OVER (ORDER BY thread) << {PLACES})"
        " + row_number() OVER (PARTITION BY thread ORDER BY named, rowid) - 1,"
        " thread, named, text FROM stepwise_texts_before"
    )
    connection.exec_driver_sql("DROP TABLE stepwise_texts_before")


def _texts_with(word: str, suffix: str) -> tuple[str, dict[str, str]]:
    """Where the numbers of the texts that hold all pieces of the word are read, as `it`."""
    if len(word) < 3:
        known = word.translate({0xFFFE: 0xFFFD, 0xFFFF: 0xFFFD})  # as FTS5 takes them
        where = f"term BETWEEN :begin{suffix} AND :end{suffix}"
        source = f"(SELECT doc AS it FROM stepwise_search_pieces WHERE {where})"
        values = {f"begin{suffix}": known, f"end{suffix}": known + _LAST}
    else:
        quoted = ('"{}"'.format(piece.replace('"', '""')) for piece in _pieces(word, 3))
        where = f"stepwise_search MATCH :match{suffix}"
        source = f"(SELECT rowid AS it FROM stepwise_search WHERE {where})"
        values = {f"match{suffix}": " AND ".join(quoted)}
    return f"{source} WHERE TRUE", values


def _pieces(word: str, length: int) -> list[str]:
    return list(dict.fromkeys(word[at : at + length] for at in range(len(word) - length + 1)))


def merge(connection: Connection, first: bool) -> bool:
    """Writes some of SQLite's index anew, without what was deleted; whether there is more.

    FTS5 only notes what is deleted until it merges the parts of its index.
    """
    if connection.dialect.name != "sqlite" or not has_index(connection):
        return False
    changes = text("SELECT total_changes()")
    before = connection.scalar(changes) or 0
    pages = -MERGED if first else MERGED
    connection.exec_driver_sql(
        f"INSERT INTO stepwise_search (stepwise_search, rank) VALUES ('merge', {pages})"
    )
    return (connection.scalar(changes) or 0) - before >= 2  # as its manual says


# -- PostgreSQL's: GIN

# Statistics of it would cost a minute each time that the server takes some, and help nothing.
_GIN = (
    "CREATE OR REPLACE FUNCTION stepwise_pieces(said text) RETURNS text[]"
    " LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS $$"
    ' WITH pairs AS (SELECT DISTINCT one COLLATE "C" AS one, other COLLATE "C" AS other'
    " FROM (SELECT string_to_array(said, NULL) AS a) AS characters,"
    " unnest(a, a[2:]) AS two (one, other))"
    " SELECT array(SELECT one || coalesce(other, '') FROM pairs UNION SELECT one FROM pairs) $$",
    "CREATE INDEX stepwise_texts_pieces ON stepwise_texts USING gin (stepwise_pieces(text))",
    "ALTER INDEX stepwise_texts_pieces ALTER COLUMN 1 SET STATISTICS 0",
)
_THERE = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = 'stepwise_search_in'",
    "postgresql": "SELECT to_regclass('stepwise_texts_pieces') IS NOT NULL",
}


def _with_pairs(connection: Connection, word: str) -> Select[Any]:
    """The conversations with a text that holds the word, read from the index.

    They are gathered in an array, once: a PostgreSQL that has no statistics yet would join, and
    read the index anew for each conversation.
    """
    pieces = _pieces(word, 2) if len(word) > 1 else [word]
    pieces_of = func.stepwise_pieces(TEXTS.c.text, type_=ARRAY(Text))
    hold = pieces_of.contains(literal(pieces, ARRAY(Text)))
    return select(TEXTS.c.thread).where(hold, _in_text(connection, word))
