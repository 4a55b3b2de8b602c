"""The licences of all that is installed: python -m serving.licences (scripts/licences).

A line for each package of the lists of pinned packages. What a package says of itself is
read where it is installed; of the other machine's packages the names alone are known here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from serving.catalogue import ROOT

LOCKS = ("requirements.lock", "requirements-cpu.lock", "requirements-login.lock")
BESIDE = ("torch",)  # pinned, and in no list of ours for the CPU
PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)==", re.M)
CLASS = "License :: "
ELSEWHERE = "(not installed on this machine)"
UNSTATED = "(states none)"
LONGEST = 60  # characters; some packages give the whole text

Fields = Callable[[str], list[str]]  # a field of a package's metadata: its values


def pinned(files: Iterable[Path]) -> list[str]:
    """The names in the lists."""
    names = {name for file in files for name in PINNED.findall(file.read_text(encoding="utf-8"))}
    return sorted({*names, *BESIDE}, key=str.lower)


def licence(fields: Fields) -> str:
    """What a package states: the expression, else its classifiers, else the first line."""
    classes = [value for value in fields("Classifier") if value.startswith(CLASS)]
    short = sorted({value.rpartition(" :: ")[2] for value in classes} - {"OSI Approved"})
    text = next((value for value in fields("License") if value.strip()), "")
    stated = fields("License-Expression") or short or text.strip().splitlines()[:1]
    return "; ".join(stated)[:LONGEST] or UNSTATED


def of_package(name: str) -> str:
    try:
        known = metadata(name)
    except PackageNotFoundError:
        return ELSEWHERE
    return licence(lambda field: list(known.get_all(field) or []))


def main() -> int:
    names = pinned(ROOT / lock for lock in LOCKS)
    width = max(map(len, names))
    print("\n".join(f"{name:<{width}}  {of_package(name)}" for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
