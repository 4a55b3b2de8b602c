"""The model of the promises about processes: eight steps and an answer, always the same words.

    python -m bench.faults.playing PORT

serves it in a process of its own, to be killed. It writes slowly enough to be killed in a step.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

from reasoning.events import Event, Step
from tests.stub import Play, Script, Stub, paced, status, step_number, step_text

STEPS = 8
PAUSE = 0.004  # seconds between two pieces: a step takes some 50 ms
NAME = "SmolLM2-135M-Instruct"  # of the catalogue: nobody asks it how it thinks
LISTED = status(200, {"object": "list", "data": [{"id": NAME, "object": "model"}]})
ANSWER = "All eight sides are even."
QUESTION = "Are all sides even?"


def script(pause: float = PAUSE) -> Script:
    def reply(request: dict[str, Any]) -> Play:
        if "response_format" not in request:
            return paced(ANSWER, pause)
        return paced(step_text(*step(step_number(request))), pause)

    return reply


def step(number: int) -> tuple[str, str, str]:
    """Title, content and next action of that step."""
    action = "final_answer" if number >= STEPS else "continue"
    return f"Look at side {number}", f"Side {number} counts {number * 2}, and that is even.", action


def lost(steps: Sequence[Step], whole: bool = True) -> str:
    """What of the chain is lost, doubled or changed; "" where nothing is."""
    found = [(one.number, one.title, one.content) for one in steps]
    due = [(number, *step(number)[:2]) for number in range(1, STEPS + 1)]
    if found != (due if whole else due[: len(found)]):
        return f"steps {[one[0] for one in found]}, as {found[-1:] or 'nothing'}"
    return ""


def steps_of(events: Sequence[Event]) -> list[Step]:
    return [event for event in events if isinstance(event, Step)]


def main(port: int) -> None:
    with Stub(script(), port=port, models=LISTED):
        print("ready", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]))
