"""What a failed test leaves under tests/output/failures: all that one needs to understand it.

A folder for each: report.txt (the failure, what was printed, hypothesis's seed), the end of
every log that was written to meanwhile, and for each browser a picture, the page and a trace
(`.venv/bin/playwright show-trace FILE`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes import OUTPUT

if TYPE_CHECKING:
    from tests.page_browser import Visitor

FOLDER = OUTPUT / "failures"
VISITORS = pytest.StashKey[list["Visitor"]]()
TAIL = 20_000  # characters of each log


def forget_the_last_run() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)


def keep(item: pytest.Item, report: pytest.TestReport) -> None:
    folder = FOLDER / re.sub(r"\W+", "-", report.nodeid).strip("-")[:150]
    folder.mkdir(parents=True, exist_ok=True)
    seed = f"--hypothesis-seed={item.config.getoption('hypothesis_seed')}"
    printed = [f"-- {name}\n{text}" for name, text in report.sections]
    parts = [f"{report.nodeid}, {report.when}, {seed}", report.longreprtext, *printed]
    (folder / f"report-{report.when}.txt").write_text("\n\n".join(parts), encoding="utf-8")
    keep_logs(folder, report.start)
    states = keep_pictures(folder, item.stash.get(VISITORS, []))
    kept = f"{folder.relative_to(OUTPUT.parent.parent)}/"
    report.sections.append(("kept", "\n".join([kept, *states])))


def keep_logs(folder: Path, since: float) -> None:
    for log in [*OUTPUT.glob("*.log"), *OUTPUT.glob("servers/*.log")]:
        if log.stat().st_mtime >= since:
            end = log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
            (folder / log.name).write_text(end, encoding="utf-8")


def keep_pictures(folder: Path, visitors: Iterable[Visitor]) -> Iterator[str]:
    """And says of each whether it still reached its server: without, all of a page is disabled."""
    from playwright.sync_api import Error as PlaywrightError  # slow to import

    for number, visitor in enumerate(visitors, 1):
        with suppress(PlaywrightError):
            yield f"browser {number}: {visitor.connection()}"
        with suppress(PlaywrightError):  # a tab or a browser that is gone has no picture
            visitor.page.screenshot(path=str(folder / f"browser-{number}.png"))
        with suppress(PlaywrightError):
            (folder / f"browser-{number}.html").write_text(visitor.page.content(), encoding="utf-8")
        with suppress(PlaywrightError):
            visitor.context.tracing.stop(path=str(folder / f"browser-{number}.zip"))
