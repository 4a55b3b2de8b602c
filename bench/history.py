"""How soon a history of 10,000 runs opens, and how soon a word in it is found.

    scripts/bench history [--runs 10000] [--rounds 20] [--write FILE]

On a new SQLite file, and in the database that DATABASE_URL names, if it names one: what
this writes there belongs to an owner of its own and is deleted at the end. Each run has
some eight steps of 90 words; a word of 20,000 is in 4 runs of 100. Printed: medians, with
the smallest and the largest.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.loop import spread
from history.entries import Begun, Heard
from history.request import Link, RunRequest
from history.store import KEPT_DELETED, Store
from reasoning.events import Answer, Event, Started, Step

VOCABULARY = [f"word{number:05}" for number in range(20_000)]
RARE = "strawberry"  # in one run
LISTED = 30  # conversations, as the page shows them
BATCH = 100  # runs in a transaction


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
    answer = Answer(words(60) + (f" {RARE}" if number == 0 else ""), 3.0, 120)
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
        "find a word that one run holds": lambda: found(store, owner, RARE),
        "find a word that 4 of 100 runs hold": lambda: found(store, owner, VOCABULARY[7]),
        "find two words that runs hold together": lambda: found(store, owner, "word00 word01"),
        "find a word that none holds": lambda: store.threads(owner, "草莓"),
        "open a run in the middle": lambda: (store.entry(middle), store.events(middle)),
        "read the figures of the newest 2,000": lambda: store.figures(owner),
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


def found(store: Store, owner: str, search: str) -> None:
    """What a person who types a word waits for: the list and its length."""
    if not (store.threads(owner, search) and store.count_threads(owner, search)):
        raise RuntimeError(f"expected to find {search!r}, found nothing")


def report(measured: Sequence[Row], runs: int, command: str) -> str:
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
    return "\n".join(lines) + "\n"


def measure(runs: int, rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="stepwise-") as folder:
        measured = rows("SQLite", f"sqlite:///{Path(folder) / 'history.db'}", runs, rounds)
    url = os.environ.get("DATABASE_URL", "")
    return measured + (rows("PostgreSQL", url, runs, rounds) if url.startswith("postgres") else [])


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--runs", type=int, default=10_000)
    flags.add_argument("--rounds", type=int, default=20)
    flags.add_argument("--write", type=Path, help="also write the table there")
    given = flags.parse_args()
    command = f"scripts/bench history --runs {given.runs} --rounds {given.rounds}"
    table = report(measure(given.runs, given.rounds), given.runs, command)
    print(table)
    if given.write:
        given.write.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
