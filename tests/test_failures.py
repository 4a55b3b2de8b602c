"""What a failed test leaves behind: all that one needs to understand it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests import failures


def failed(name: str, began: float) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=name,
        location=("tests/test_x.py", 1, name),
        keywords={},
        outcome="failed",
        longrepr="AssertionError: 2 is not 3",
        when="call",
        sections=[("Captured stdout call", "printed meanwhile")],
        start=began,
    )


def test_a_failed_test_leaves_words_seed_logs_picture_page_and_trace(
    page: str, visitors: Any, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any
) -> None:
    output = tmp_path / "tests" / "output"
    (output / "servers").mkdir(parents=True)
    monkeypatch.setattr(failures, "OUTPUT", output)
    monkeypatch.setattr(failures, "FOLDER", output / "failures")
    (output / "servers" / "a.log").write_text("beginning" + "." * failures.TAIL + "its last words")
    visitors(page).sees("./serve.sh")
    report = failed("tests/test_x.py::test_y[a/b]", began=time.time() - 60)
    failures.keep(request.node, report)
    (kept,) = (output / "failures").iterdir()
    assert kept.name == "tests-test_x-py-test_y-a-b"
    assert ("kept", f"tests/output/failures/{kept.name}/") in [
        (name, text.splitlines()[0]) for name, text in report.sections
    ]
    words = (kept / "report-call.txt").read_text()
    for part in (report.nodeid, "2 is not 3", "printed meanwhile", "--hypothesis-seed="):
        assert part in words
    log = (kept / "a.log").read_text()
    assert log.endswith("its last words")
    assert "beginning" not in log
    assert (kept / "browser-1.png").read_bytes().startswith(b"\x89PNG")
    assert "./serve.sh" in (kept / "browser-1.html").read_text()
    acts = ZipFile(kept / "browser-1.zip").read("trace.trace").decode().splitlines()
    assert "goto" in {json.loads(act).get("method") for act in acts}


def test_a_log_that_nobody_wrote_to_meanwhile_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "OUTPUT", tmp_path)
    (tmp_path / "old.log").write_text("of another test")
    failures.keep_logs(tmp_path / "kept", since=time.time() + 60)
    assert not (tmp_path / "kept").exists()
