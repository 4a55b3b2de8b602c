"""The table of the promises: what was tried, what held. Rows of other runs stay in its file."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.faults.promise import Promise, Tally
from serving.hardware import detect

HEAD = (
    "| promise | tried | held | failed | figures | seconds | run |",
    "|---|---|---|---|---|---|---|",
)
PACKAGES = ("openai", "httpx2", "fastapi", "uvicorn", "streamlit", "SQLAlchemy")
ROW = re.compile(r"\| \*\*(\w+)\*\*: .*\|")


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of one promise. `seconds` are of wall-clock time, `run` the flags that count."""

    name: str
    promise: Promise
    tally: Tally
    seconds: float
    run: str
    early: bool = False  # it was ended by Ctrl-C

    @property
    def row(self) -> str:
        tally = self.tally
        cells = [
            f"**{self.name}**: {self.promise.says}",
            f"{tally.tried:,}",
            f"{tally.tried - tally.failed:,}",
            f"{tally.failed:,}",
            "; ".join(tally.figures),
            f"{self.seconds:.0f}",
            self.run,
        ]
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def machine() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{detect().description}, Linux {platform.release()}, "
        f"Python {platform.python_version()}; {versions}."
    )


def table(kept: Sequence[Kept], order: Sequence[str], earlier: str, command: str) -> str:
    """The rows of this run, and those of earlier ones that it did not measure."""
    rows = {**rows_of(earlier), **{one.name: one.row for one in kept}}
    sorted_rows = [rows[name] for name in order if name in rows]
    lines = ["# Promises, tried", "", f"    {command}", "", machine(), "", *HEAD, *sorted_rows]
    broken = [f"* {one.name}: {line}" for one in kept for line in one.tally.broken]
    return "\n".join([*lines, *(["", "What failed:", "", *broken] if broken else [])]) + "\n"


def rows_of(text: str) -> Mapping[str, str]:
    return {found[1]: line for line in text.splitlines() if (found := ROW.fullmatch(line))}


def write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    print(f"Written: {file}", file=sys.stderr)
