"""The tables of the history. What was there before them is in history/database.py."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    false,
)

METADATA = MetaData()

SCHEMA = Table(
    "stepwise_schema", METADATA, Column("version", Integer, nullable=False)
)  # one row; the names begin alike because a database may hold other programs' tables

THREADS = Table(
    "stepwise_threads",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("last", Text, nullable=False),
    Column("touched", Double, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("deleted", Double, nullable=False),  # when; 0 for what is there
    Index("stepwise_threads_listed", "owner", "deleted", "pinned", "touched"),
)


def _in_thread() -> Column[str]:
    key = ForeignKey("stepwise_threads.id", ondelete="CASCADE")
    return Column("thread", Text, key, nullable=False, index=True)


RUNS = Table(
    "stepwise_runs",
    METADATA,
    Column("number", Integer, primary_key=True),  # in the order of asking
    Column("id", Text, nullable=False, unique=True),
    _in_thread(),
    Column("after", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("how", Text, nullable=False),
    Column("together", Text, nullable=False),  # Link.group, which is a word of SQL
    Column("asked", Text, nullable=False),
    Column("question", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("way", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("ended", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("waited", Double, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("answer", Text, nullable=False),
    Column("keeper", Text, nullable=False),  # the process that it lives in
    Column("beat", Double, nullable=False),  # when that process was last known to live
    Column("stop", Text, nullable=False, server_default=""),  # "run" or "together" is to end
    Column("taken", Text, nullable=False, server_default=""),  # by the run that goes on with it
    Index("stepwise_runs_state", "state"),
)

EVENTS = Table(
    "stepwise_events",
    METADATA,
    Column("run", ForeignKey("stepwise_runs.number", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("draft", Boolean, nullable=False),  # a Delta
    Column("body", Text, nullable=False),
)

TEXTS = Table(  # what is searched, folded; apart from the events, whose bodies hold more
    "stepwise_texts",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    _in_thread(),
    Column("named", Boolean, nullable=False, server_default=false()),  # a name, not what was said
    Column("text", Text, nullable=False),
)

PREFERENCES = Table(
    "stepwise_preferences",
    METADATA,
    Column("owner", Text, primary_key=True),
    Column("body", Text, nullable=False),
)
