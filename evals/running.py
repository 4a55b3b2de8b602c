"""One run: every arm at every task, by inspect-ai, which goes on where an earlier start ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rich
from inspect_ai import eval_set
from inspect_ai.log import EvalLog

from evals.arms import Arm, Bounds, EvalServer, arm_named
from evals.inspecting import Asking, inspect_task
from evals.logs import read_marked
from evals.outcomes import NotAsked
from evals.plan import EvalPlan
from evals.progress import counting
from evals.tasks import ProblemSet


def run(plan: EvalPlan, tasks: Sequence[ProblemSet], server: EvalServer, folder: Path) -> None:
    """Asks what `folder` holds no answer to yet.

    Raises NotAsked, in one line, or KeyboardInterrupt when questions stay open: the same
    call goes on from there.
    """
    arms = [arm_named(name) for name in plan.arms]
    total = len(arms) * sum(len(task.problems) for task in tasks)
    with _inspect_is_quiet(), counting(total, _done(plan, tasks, folder)) as answered:
        bounds = Bounds(plan.temperature, plan.budget, plan.seed)
        asking = Asking(server, bounds, plan.parallel, answered)
        logs = _eval_set(arms, tasks, asking, folder)
    said = [*asking.refused, *(log.error.message for log in logs if log.error)]
    if said:
        raise NotAsked(" ".join(said[0].split()))
    if _done(plan, tasks, folder) < total:  # inspect takes a Ctrl-C for itself
        raise KeyboardInterrupt


@contextmanager
def _inspect_is_quiet() -> Iterator[None]:
    """Without inspect's own words on the terminal; ours is the progress line."""
    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def _done(plan: EvalPlan, tasks: Sequence[ProblemSet], folder: Path) -> int:
    names = {task.name for task in tasks}
    return sum(one.arm in plan.arms and one.task in names for one in read_marked(folder))


def _eval_set(
    arms: Sequence[Arm], tasks: Sequence[ProblemSet], asking: Asking, folder: Path
) -> list[EvalLog]:
    pairs = [inspect_task(arm, task, asking) for task in tasks for arm in arms]
    _, logs = eval_set(
        pairs,
        log_dir=str(folder),
        model=None,  # the arms ask the server themselves
        display="none",
        log_level="error",
        max_tasks=len(pairs),
        max_samples=asking.parallel,
        log_buffer=1,  # samples: a killed run loses none that was answered
        log_dir_allow_dirty=True,  # another start may have had other arms
        retry_attempts=0,  # a server that is down is for a person to start
        retry_immediate=False,
        fail_on_error=True,
        ctl_server=False,
    )
    return logs
