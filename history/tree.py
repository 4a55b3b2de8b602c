"""How the runs of a conversation hang together: follow-ups, branches, chains asked together.

Pure functions over the entries of one thread, oldest first. A run follows up another
(`after`), branched off another (`origin`), or was asked together with others (`group`).
"""

from __future__ import annotations

from collections.abc import Sequence

from history.entries import Entry


def find(entries: Sequence[Entry], id: str) -> Entry | None:
    return next((entry for entry in entries if entry.id == id), None)


def root(entries: Sequence[Entry], entry: Entry) -> Entry:
    """The run that all its branches come from."""
    seen = {entry.id}
    while (before := find(entries, entry.link.origin)) and before.id not in seen:
        seen.add(before.id)
        entry = before
    return entry


def path(entries: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The runs that it follows up, from the first question to itself."""
    line = [entry]
    while (before := find(entries, _followed(entries, line[0]))) and before not in line:
        line.insert(0, before)
    return line


def _followed(entries: Sequence[Entry], entry: Entry) -> str:
    """The run that it follows up; a branch follows what its root followed."""
    return entry.link.after or root(entries, entry).link.after


def branches(entries: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The run that began it and all that branched off, itself among them."""
    top = root(entries, entry).id
    return [one for one in entries if root(entries, one).id == top]


def together(entries: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The runs that were asked together with it, itself among them."""
    group = entry.link.group or entry.id
    return [one for one in entries if one.id == group or one.link.group == group]


def follow_ups(entries: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The runs that follow it up; of those asked together the first, of branches the root."""
    return [
        one
        for one in entries
        if one.link.after == entry.id and not one.link.origin and one.link.group in ("", one.id)
    ]
