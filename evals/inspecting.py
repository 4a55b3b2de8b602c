"""Our arms and tasks as inspect-ai's solvers, scorers and tasks: the only module that makes them.

What a question cost and what went wrong stands in its score's metadata, the whole chain
in the sample's store: the report is made from inspect's logs alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import inspect_ai
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from evals.arms import Arm, Bounds, EvalServer
from evals.outcomes import NotAsked, Outcome
from evals.tasks import ProblemSet

CHAINS, COST = "chains", "cost"  # the names in a sample's store


@dataclass(slots=True)
class Asking:
    """How the questions are put: at most `parallel` at once over all arms and tasks.

    The arms take turns at the server, so that a machine's changing speed touches all of
    them. `answered` is called after each question; `refused` says why others stay open.
    """

    server: EvalServer
    bounds: Bounds
    parallel: int
    answered: Callable[[], None]
    refused: list[str] = field(default_factory=list)
    turn: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.turn = asyncio.Semaphore(self.parallel)

    async def ask(self, arm: Arm, question: str, number: int) -> Outcome:
        """Each question has a seed of its own. Raises NotAsked."""
        bounds = replace(self.bounds, seed=self.bounds.seed + number)
        async with self.turn:
            try:
                outcome = await arm.ask(question, self.server, bounds)
            except NotAsked as error:
                self.refused.append(str(error))
                raise
        self.answered()
        return outcome


def inspect_task(arm: Arm, task: ProblemSet, asking: Asking) -> inspect_ai.Task:
    """One arm at one task, as a task of inspect's own."""
    samples = [
        Sample(id=problem.number, input=problem.text, target=problem.target)
        for problem in task.problems
    ]
    return inspect_ai.Task(
        dataset=MemoryDataset(samples, name=task.name),
        name=f"{task.name}-{arm.name}".replace(":", "-"),
        solver=_solver(arm, asking),
        scorer=_scorer(task),
        metadata={"arm": arm.name, "task": task.name},
    )


def _solver(arm: Arm, asking: Asking) -> Solver:
    @solver(name="arm")
    def make(name: str, bounds: dict[str, float]) -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            told = asdict(await asking.ask(arm, state.input_text, int(state.sample_id)))
            content = told.pop("content")
            state.output = ModelOutput.from_content(asking.server.model.name, content)
            state.store.set(CHAINS, told.pop("traces"))
            state.store.set(COST, told)
            return state

        return solve

    return make(arm.name, asdict(asking.bounds))


def _scorer(task: ProblemSet) -> Scorer:
    problems = {problem.number: problem for problem in task.problems}

    @scorer(metrics=[mean(), stderr()], name="graded")
    def make() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            mark = task.grade(state.output.completion, problems[int(state.sample_id)])
            told = {"mark": mark.score, **state.store.get(COST)}
            return Score(value=float(mark.correct), answer=mark.answer, metadata=told)

        return score

    return make()
