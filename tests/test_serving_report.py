"""What a person sees while something takes long."""

from __future__ import annotations

import io

import pytest

from serving.report import Report


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def through(report: Report) -> None:
    report.begin("Fetching")
    report.tick("(half)")
    report.tick("(nearly)")
    report.end()
    report.say("Done.")


def test_a_file_gets_each_line_once() -> None:
    out = io.StringIO()
    through(Report(out))
    assert out.getvalue() == "Fetching\nDone.\n"


def test_a_terminal_sees_its_last_line_rewritten() -> None:
    out = Terminal()
    through(Report(out))
    assert out.getvalue().split("\r\x1b[K") == [
        "Fetching",
        "Fetching 0 s (half)",
        "Fetching 0 s (nearly)",
        "Fetching done, 0 s\nDone.\n",
    ]


def test_a_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    report = Report(out)
    report.begin("x" * 19)
    report.tick("(a long detail)")
    assert len(out.getvalue().split("\r\x1b[K")[-1]) < 20


def test_a_message_in_the_middle_of_a_step_starts_on_a_line_of_its_own() -> None:
    out = Terminal()
    report = Report(out)
    report.begin("Fetching")
    report.say("It failed.")
    assert out.getvalue() == "Fetching\nIt failed.\n"


def test_a_terminal_that_is_gone_is_no_error() -> None:
    through(Report(Gone()))
