"""What a run is asked, and how it hangs together with other runs. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from reasoning.events import Started, Step, from_dict, to_dict
from reasoning.inquiry import Inquiry


@dataclass(frozen=True, slots=True)
class RunRequest(Inquiry):
    """What a run is to think about, and how many chains its vote may draw: `most`.

    An empty way is the model's own.
    """

    most: int = 1


@dataclass(frozen=True, slots=True)
class Link:
    """How a run hangs together with others. All are ids of runs, "" for none.

    thread   the conversation: the run that began it
    after    the run whose answer it follows up
    origin   the run it branched off; `parts` is the number of the first step that differs,
             `how` says why: "edit", "again", "doubt", "answer" or "go_on"
    group    the first of the runs that were asked together with it
    """

    thread: str = ""
    after: str = ""
    origin: str = ""
    parts: int = 0
    how: str = ""
    group: str = ""


def request_to_json(asked: RunRequest) -> dict[str, Any]:
    """As JSON values: the beginning of a run that no model has taken up yet, and the steps."""
    started = asked.started(model="", at=0.0)
    steps = [to_dict(step) for step in asked.steps]
    return {"started": to_dict(started), "steps": steps, "most": asked.most}


def request_from_json(values: dict[str, Any]) -> RunRequest:
    """The inverse. Raises ValueError for other values."""
    try:
        started = from_dict(values["started"])
        steps = tuple(from_dict(step) for step in values["steps"])
        most = int(values.get("most", 1))  # an older history says nothing of it
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"expected how a run began and its steps: {error}") from None
    if not isinstance(started, Started):
        raise ValueError(f"expected how a run began, got {type(started).__name__}")
    asked = RunRequest.of(started, tuple(step for step in steps if isinstance(step, Step)))
    return replace(asked, most=most)
