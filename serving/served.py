"""What is served on this machine, in people's words: "Qwen2.5-Coder 1.5B, int8, about 12 tokens/s".

A server tells its model's name alone. ./serve.sh knows the rest and writes it down for as long as
it serves, in `$XDG_STATE_HOME/stepwise/served-PORT.json`, where page and terminal read it, however
they were started.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from reasoning.address import is_this_machine
from serving.catalogue import readable_titles, state_root


@dataclass(frozen=True, slots=True)
class Served:
    """A model that the API calls `model` and people `title`.

    `precision` is what it computes in, "" where that is the server's own choice or not known;
    `speed` the tokens/s to expect of one answer at a time. `by_us`: ./serve.sh on this machine
    serves it.
    """

    model: str
    title: str
    precision: str = ""
    speed: float | None = None
    by_us: bool = False


@contextmanager
def publish(served: Served, port: int) -> Iterator[None]:
    """Written down for as long as it is served. Where that cannot be, names must do."""
    file = _file(port)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**asdict(served), "pid": os.getpid()}), encoding="utf-8")
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def served_at(base_url: str, model: str) -> Served:
    """The model that the server at that address lists under this name, as far as it is known."""
    port = _port_here(base_url)
    found = None if port is None else _read(_file(port))
    if found and found[1].model == model and _lives(found[0]):
        return found[1]
    return Served(model, readable_titles().get(model, model))


def _port_here(base_url: str) -> int | None:
    """None for a server of another machine, and for an address that is none."""
    with suppress(ValueError):
        return (urlsplit(base_url).port or 80) if is_this_machine(base_url) else None
    return None


def round_speed(tokens: float) -> str:
    """Tokens/s as far as they can be foreseen: whole ones, of less than 10 the half."""
    return f"{tokens:.0f}" if tokens >= 10 else f"{round(tokens * 2) / 2:g}"


def approximate(tokens: float | None) -> str:
    if tokens is None:
        return ""
    return f"about {round_speed(tokens)}" if tokens >= 1 else "under 1"


def describe_speed(tokens: float | None) -> str:
    unit = "token/s" if tokens is not None and tokens < 1.25 else "tokens/s"
    return f"{approximate(tokens)} {unit}" if tokens else ""


def describe(served: Served) -> str:
    parts = (served.title, served.precision, describe_speed(served.speed))
    return ", ".join(part for part in parts if part)


def _file(port: int) -> Path:
    return state_root() / f"served-{port}.json"


def _read(file: Path) -> tuple[int, Served] | None:
    """None where nothing is served, or what stands there cannot have been written by us."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        values = json.loads(file.read_text(encoding="utf-8"))
        return int(values.pop("pid")), Served(**values)
    return None


def _lives(pid: int) -> bool:
    """Who serves may have been killed, and then its note has stayed."""
    import psutil

    return bool(psutil.pid_exists(pid))
