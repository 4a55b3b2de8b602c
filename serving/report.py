"""What a person sees while something takes long: a line per step, and the seconds going by.

A terminal gets a last line that is rewritten; a file or a pipe gets each line once, and of a bar
a line now and then.
A terminal that is gone is no error: what was started has still to be stopped.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from typing import TextIO

REDRAWN_SECONDS = 0.2  # how often a bar moves on a terminal
REPEATED_SECONDS = 5.0  # and how often it is written anew into a file


class Report:
    def __init__(self, out: TextIO = sys.stdout) -> None:
        self.out = out
        self.live = out.isatty()
        self._began = time.monotonic()
        self._what = ""

    def say(self, text: str = "") -> None:
        """A line that stays."""
        self._clear()
        self._what = ""
        self._write(text + "\n")

    def begin(self, what: str) -> None:
        """A step begins; `tick` keeps its line alive, `end` closes it."""
        self._clear()
        self._what, self._began = what, time.monotonic()
        self._write(what if self.live else what + "\n")

    def tick(self, detail: str = "") -> None:
        if self.live and self._what:
            line = f"{self._what} {self._seconds()}{' ' + detail if detail else ''}"
            self._write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])

    def end(self) -> None:
        if self.live and self._what:
            self._write(f"\r\x1b[K{self._what} done, {self._seconds()}\n")
        self._what = ""

    @property
    def pace(self) -> float:
        """How many seconds to leave between two calls of `bar`."""
        return REDRAWN_SECONDS if self.live else REPEATED_SECONDS

    def bar(self, line: str) -> None:
        """How far something is; on a terminal in place of the bar before."""
        if not self.live:
            self._write(line + "\n")
            return
        self._what = line
        self._write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._began:.0f} s"

    def _clear(self) -> None:
        if self.live and self._what:
            self._write("\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.out.write(text)
            self.out.flush()
