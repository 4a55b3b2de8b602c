"""What is written for those who keep a server: JSON, an object a line.

Names, numbers, codes. What people asked and models wrote comes under "content", and is left out
unless --log-content asks for it; so are the words of an exception, which may be anybody's: its
type and its place stay. A key is never written. Other libraries are heard from WARNING on, for
below it some of them tell whole requests.
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from reasoning.events import (
    Answer,
    Correction,
    Event,
    Failed,
    Notice,
    Queued,
    Retry,
    Started,
    Step,
    Stopped,
)

LOG_CONTENT = "STEPWISE_LOG_CONTENT"  # "1" is what --log-content is
KEYS = ("OPENAI_API_KEY", "VLLM_API_KEY", "STEPWISE_PAGE_TOKEN", "HF_TOKEN")
SHORTEST_KEY = 8  # characters; a shorter one is a word such as "none", which a log may hold
OURS = frozenset(("gateway", "history", "page", "reasoning", "serving"))

# Of each event what is said, which of its fields are names and numbers, and which are content.
TOLD: Mapping[type[Event], tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    Started: ("A run begins", ("model", "way", "language"), ("question", "instructions")),
    Step: ("A step is done", ("number", "seconds", "tokens", "attempts"), ("title", "content")),
    Retry: ("An attempt failed", ("number", "attempt", "cause", "wait"), ("detail",)),
    Queued: ("It waits at a full server", ("place",), ()),
    Notice: ("A notice", ("code",), ("detail",)),
    Correction: ("An answer is corrected", ("number",), ("earlier", "later")),
    Answer: ("A run ends in an answer", ("seconds", "tokens", "cut"), ("content",)),
    Failed: ("A run failed", ("code", "seconds"), ("message", "remedy")),
    Stopped: ("A run was stopped", ("seconds",), ()),
}


def log_event(log: logging.Logger, event: Event, **names: object) -> None:
    """Tells of an event of the run that the names name. Of a delta there is nothing to say."""
    if (told := TOLD.get(type(event))) is not None:
        said, figures, content = told
        log.info(said, extra=named(**names, **_fields(event, figures)) | _content(event, content))


def named(**names: object) -> dict[str, Any]:
    """What a line names beside its message, for `extra` of a call to a logger."""
    return {"named": names}


def _content(event: Event, fields: tuple[str, ...]) -> dict[str, Any]:
    return {"content": _fields(event, fields)}


def _fields(event: Event, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(event, name) for name in names}


def start_logging(
    environment: Mapping[str, str] = os.environ, out: TextIO | None = None
) -> logging.Handler:
    """Has all loggers of this process write in this form, on stderr if nowhere else."""
    keys = [environment.get(name, "") for name in KEYS]
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines(environment.get(LOG_CONTENT, "").strip() == "1", keys))
    handler.addFilter(_is_heard)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # it would print a record that fails, whatever is in it
    return handler


def _is_heard(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in OURS


class JsonLines(logging.Formatter):
    """A record as a JSON object in ASCII, without content unless it is wanted, and without keys."""

    def __init__(self, content: bool, keys: Iterable[str] = ()) -> None:
        super().__init__()
        self._content = content
        self._keys = [json.dumps(key)[1:-1] for key in keys if len(key) >= SHORTEST_KEY]

    def format(self, record: logging.LogRecord) -> str:
        line = json.dumps(self._values(record), default=str)
        for key in self._keys:
            line = line.replace(key, "[key]")
        return line

    def _values(self, record: logging.LogRecord) -> dict[str, Any]:
        said, error = record.getMessage(), record.exc_info[1] if record.exc_info else None
        if error is not None and not self._content:
            said = said.partition("\n")[0]  # asyncio goes on with the exception's own words
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": said,
            **getattr(record, "named", {}),
        }
        if error is not None:
            values["errors"] = [_error(one, self._content) for one in _and_before(error)]
        if self._content and (content := getattr(record, "content", None)):
            values["content"] = content
        return values


def _error(error: BaseException, words: bool) -> dict[str, Any]:
    frames = traceback.walk_tb(error.__traceback__)
    at = [f"{one.f_code.co_filename}:{line} {one.f_code.co_name}" for one, line in frames]
    return {"type": type(error).__qualname__, "at": at, **({"words": str(error)} if words else {})}


def _and_before(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, and each that it came of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
