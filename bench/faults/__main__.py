"""The promises of docs/reliability.md, tried one after the other.

    scripts/bench faults [--quick] [--only replies,transport] [--minutes 120] [--write FILE]

Everything runs on this machine, before servers of our own that misbehave. In full the figures
take hours; --quick takes minutes, and says how much less it tried. The exit status is 1 where
a promise did not hold. --write keeps the rows of a file that were not measured now.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from bench.faults.promise import Effort, Promise, Tally
from bench.faults.report import Kept, table, write

ORDER = (
    *("replies", "transport", "kills", "stopping", "access", "payloads", "special_tokens"),
    *("crowd", "mistakes", "soak"),
)
ON_REQUEST = ("real_kills",)  # takes the machine for itself
SOAK = 120.0  # minutes


def promise_of(name: str) -> Promise:
    """Each imports what it alone needs: a browser, a page, a tokenizer."""
    promise: Promise = import_module(f"bench.faults.{name}").PROMISE
    return promise


def keep(name: str, effort: Effort, run: str) -> Kept:
    promise, tally, began, early = promise_of(name), Tally(), time.monotonic(), False
    try:
        promise.keep(effort, tally)
    except KeyboardInterrupt:  # what was tried so far is told
        early = True
        tally.tell("ended early")
    return Kept(name, promise, tally, time.monotonic() - began, run, early)


def run_all(names: Sequence[str], effort: Effort, run: str) -> Iterator[Kept]:
    for name in names:
        print(f"{name} ...", file=sys.stderr)
        kept = keep(name, effort, run)
        print(kept.row, file=sys.stderr)
        yield kept
        if kept.early:
            return


def flags() -> argparse.ArgumentParser:
    it = argparse.ArgumentParser(
        prog="scripts/bench faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument(
        "--only",
        type=_names,
        default=ORDER,
        help=f"of {','.join(ORDER)}; {ON_REQUEST[0]} only by name",
    )
    it.add_argument("--quick", action="store_true", help="minutes in place of hours")
    it.add_argument("--minutes", type=float, default=SOAK, help=f"of the soak ({SOAK:g})")
    it.add_argument("--write", type=Path, metavar="FILE", help="also put the rows into that table")
    return it


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := set(names) - {*ORDER, *ON_REQUEST}:
        known = ", ".join((*ORDER, *ON_REQUEST))
        message = f"expected names of {known}, got {', '.join(sorted(unknown))}"
        raise argparse.ArgumentTypeError(message)
    return names


def main(argv: Sequence[str]) -> int:
    given = flags().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background a shell ignores Ctrl-C
        signal.signal(number, signal.default_int_handler)
    effort = Effort(given.quick, given.minutes)
    run = "quick" if given.quick else "full"
    kept = list(run_all(given.only, effort, run))
    earlier = given.write.read_text("utf-8") if given.write and given.write.exists() else ""
    text = table(
        kept, (*ORDER, *ON_REQUEST), earlier, shlex.join(["scripts/bench", "faults", *argv])
    )
    print(text)
    if given.write:
        write(given.write, text)
    return int(any(one.tally.failed for one in kept))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
