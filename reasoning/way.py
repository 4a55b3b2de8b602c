"""What a way of thinking is: a coroutine, and what a page can offer of it.

Each way's module ends in its own `Way`; think.py names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from reasoning.events import Answer, Emit, Settings, Steering, Step
from reasoning.task import Task

ALL_STEERS: frozenset[Steering] = frozenset(get_args(Steering))
OF_THINK = frozenset({"step_seconds", "chain_seconds"})  # think.py sees to them, for every way
ALL_SETTINGS = frozenset(field.name for field in fields(Settings)) - OF_THINK
OF_ONE_REPLY = frozenset({"answer_tokens", "temperature", "seed", "top_p", "budget"})


@dataclass(frozen=True, slots=True)
class Way:
    """One way of thinking: what does it, and what a page can offer of it.

    `prompts` are the names of those it sends, `steers` what it can do after finished
    steps, `settings` the fields of Settings that it heeds. `names_actions`: each of its
    steps tells its own kind. `ends` says whether the answer follows a last step at once,
    `answers_json` whether it can be JSON.
    """

    think: Callable[[Task, Emit], Coroutine[Any, Any, Answer]]
    prompts: tuple[str, ...] = ()
    steers: frozenset[Steering] = frozenset()
    settings: frozenset[str] = frozenset()
    names_actions: bool = False
    ends: Callable[[Step], bool] = lambda last: False
    answers_json: bool = True

    def concludes(self, steps: Sequence[Step]) -> bool:
        """Whether going on after these finished steps gives the answer at once."""
        return bool(steps) and self.ends(steps[-1])


def is_concluding(last: Step) -> bool:
    """Whether a chain of steps with this last one has concluded, and the answer is next."""
    return last.cut or last.action == "final_answer"
