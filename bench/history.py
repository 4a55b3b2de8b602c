"""How soon a history of 10,000 runs opens, and how soon a word in it is found.

    scripts/bench history [--runs 100000] [--rounds 20] [--write FILE]

On a new SQLite file, and in the database that DATABASE_URL names, if it names one: what
this writes there belongs to an owner of its own and is deleted at the end. Each run has
some eight steps of 90 words; a word of 20,000 is in 4 runs of 100. Printed: medians, with
the smallest and the largest, and what of SQLite's file is the index of the words.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from bench.loop import spread
from bench.record import keep
from history.entries import Begun, Heard
from history.request import Link, RunRequest
from history.store import KEPT_DELETED, Store
from reasoning.events import Answer, Event, Started, Step

VOCABULARY = [f"word{number:05}" for number in range(20_000)]
RARE = "strawberry"  # in one run, as are the next two
RARE_CHINESE, RARE_CHARACTER = "银河", "熵"
HALVES = ("apple", "orange")  # in every other run each, and in none together
LISTED = 30  # conversations, as the page shows them
BATCH = 100  # runs in a transaction
SEARCHES = {  # the words, and whether any run holds them
    "a word that one run holds": (RARE, True),
    "a word that 4 of 100 runs hold": (VOCABULARY[7], True),
    "a beginning of words that all hold": ("word00", True),
    "two that runs hold together": ("word00 word01", True),
    "two, one of which one run holds": (f"word00 {RARE}", True),
    "two that every other run holds, and none both": (" ".join(HALVES), False),
    "a word that none holds": ("cloudberry", False),
    "a Chinese word of two characters that one run holds": (RARE_CHINESE, True),
    "a Chinese word of two characters that none holds": ("草莓", False),
    "a character that one run holds": (RARE_CHARACTER, True),
    "a character that all hold": ("w", True),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, of one kind of database; seconds."""

    what: str
    kind: str
    seconds: list[float]


def made_up(random: random.Random, number: int) -> tuple[Event, ...]:
    """A run as a model might have thought it."""

    def words(count: int) -> str:
        return " ".join(random.choices(VOCABULARY, k=count))

    steps = [
        Step(n, words(5), words(90), "continue", 4.0, 180, first_token=0.2, raw=words(95))
        for n in range(1, random.randint(4, 12))
    ]
    rare = f" {RARE} 我们在{RARE_CHINESE}系里 {RARE_CHARACTER}" if number == 0 else ""
    answer = Answer(f"{words(60)} {HALVES[number % 2]}{rare}", 3.0, 120)
    began = Started(words(12), "model", "json_steps", "en", float(number))
    return (began, *steps, answer)


def fill(store: Store, owner: str, runs: int) -> list[str]:
    """Writes the runs, each in a conversation of its own; the oldest holds the rare word."""
    chance, ids = random.Random(1), [secrets.token_urlsafe(16) for _ in range(runs)]
    for first in range(0, runs, BATCH):
        begun, heard = [], []
        for number in range(first, min(first + BATCH, runs)):
            events = made_up(chance, number)
            asked = RunRequest(events[0].question if isinstance(events[0], Started) else "")
            begun.append(Begun(ids[number], asked, Link(), owner, float(number)))
            heard.append(Heard(ids[number], 0, events))
        store.write(begun, heard)
    return ids


def timed(work: Callable[[], object], rounds: int) -> list[float]:
    seconds = []
    for _ in range(rounds):
        began = time.monotonic()
        work()
        seconds.append(time.monotonic() - began)
    return seconds


def rows(kind: str, url: str, runs: int, rounds: int) -> list[Row]:
    """Fills a history and measures it as the page uses it."""
    owner = f"bench-{secrets.token_hex(4)}"
    store = Store(url)
    ids = fill(store, owner, runs)
    middle = ids[runs // 2]
    tasks: dict[str, Callable[[], object]] = {
        "open the history (a new process)": lambda: Store(url).close(),
        f"list its newest {LISTED} conversations": lambda: store.threads(owner),
        f"list {LISTED} in the middle": lambda: store.threads(owner, offset=runs // 2),
        "count them": lambda: store.count_threads(owner),
        **{f"find {what}": partial(found, store, owner, *how) for what, how in SEARCHES.items()},
        "open a run in the middle": lambda: (store.entry(middle), store.events(middle)),
        "read the figures of the newest 2,000": lambda: store.figures(owner),
        "write a finished step": partial(write_step, store, ids[-1], count(1_000)),
    }
    measured = [Row(what, kind, timed(task, rounds)) for what, task in tasks.items()]
    store.close()
    if kind != "SQLite":
        remove(url, ids, owner)
    return measured


def remove(url: str, ids: Sequence[str], owner: str) -> None:
    """For good: deleted so long ago that the next start purges them."""
    long_ago = Store(url, now=lambda: time.time() - 2 * KEPT_DELETED)
    for id in ids:
        long_ago.delete(id, owner)
    long_ago.close()
    Store(url).close()


def found(store: Store, owner: str, search: str, some: bool) -> None:
    """What a person who types a word waits for: the list, and whether it goes on."""
    if bool(store.threads(owner, search, LISTED + 1)) is not some:
        raise RuntimeError(f"expected {'to find' if some else 'no'} {search!r}, found otherwise")


def write_step(store: Store, id: str, places: Iterator[int]) -> None:
    """A transaction as models cause them, with a text that is searched."""
    place = next(places)
    chance = random.Random(place)
    said = " ".join(chance.choices(VOCABULARY, k=90))
    store.write(heard=[Heard(id, place, (Step(place, "Think", said, "continue", 4.0, 180),))])


def size_of(file: Path) -> str:
    """Of the file, and of the index in it."""
    query = "SELECT sum(length(block)) FROM stepwise_search_data"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (index,) = connection.execute(query).fetchone()
    whole = file.stat().st_size / 1e6
    return f"SQLite's file takes {whole:,.0f} MB, of which {index / 1e6:,.0f} index the words.\n"


def report(measured: Sequence[Row], size: str, runs: int, command: str) -> str:
    kinds = list(dict.fromkeys(row.kind for row in measured))
    values = {(row.what, row.kind): spread([1000 * s for s in row.seconds]) for row in measured}
    lines = [
        f"# A history of {runs:,} runs",
        f"\n    {command}\n",
        "Milliseconds; median (smallest to largest).\n",
        f"| what | {' | '.join(kinds)} |",
        "|---|" + "---|" * len(kinds),
    ]
    for what in dict.fromkeys(row.what for row in measured):
        lines.append(f"| {what} | {' | '.join(values[what, kind] for kind in kinds)} |")
    return "\n".join([*lines, "", size])


def measure(runs: int, rounds: int) -> tuple[list[Row], str]:
    with tempfile.TemporaryDirectory(prefix="stepwise-") as folder:
        file = Path(folder) / "history.db"
        measured, size = rows("SQLite", f"sqlite:///{file}", runs, rounds), size_of(file)
    url = os.environ.get("DATABASE_URL", "")
    if url.startswith("postgres"):
        measured += rows("PostgreSQL", url, runs, rounds)
    return measured, size


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--runs", type=int, default=10_000)
    flags.add_argument("--rounds", type=int, default=20)
    flags.add_argument("--write", type=Path, help="the table there, its figures beside it")
    given = flags.parse_args()
    command = f"scripts/bench history --runs {given.runs} --rounds {given.rounds}"
    measured, size = measure(given.runs, given.rounds)
    keep(report(measured, size, given.runs, command), measured, given.write)


if __name__ == "__main__":
    main()
