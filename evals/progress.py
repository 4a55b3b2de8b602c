"""How far a run is: a bar on a terminal; where the output goes to a file, a line now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 20  # of a whole run


@contextmanager
def counting(total: int, done: int, console: Console | None = None) -> Iterator[Callable[[], None]]:
    """What to call for each question that was answered, of `total`; `done` were before."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _lines(total, done, console)
        return
    columns = (TextColumn("Asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=total, completed=done)
        yield lambda: progress.advance(bar)


def _lines(total: int, done: int, console: Console) -> Callable[[], None]:
    answered, every = count(done + 1), max(1, total // LINES)

    def advance() -> None:
        now = next(answered)
        if now % every == 0 or now == total:
            console.print(f"{now} of {total} questions answered")

    return advance
