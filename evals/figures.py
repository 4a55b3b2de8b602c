"""The figures of a run: means with their errors, and paired differences. Pure.

As in Miller 2024 (arXiv 2411.00640): the standard error of a mean is that of the central
limit theorem, and two arms that were asked the same questions are compared question by
question, which takes the questions' own spread out of the difference.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evals.outcomes import Marked

BASES = ("cot", "direct")  # what the others are compared with: the first that was asked
NORMAL_95 = 1.96  # standard errors on each side of a mean, for 95 % of a normal distribution


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and its standard error, which one value alone does not have."""

    value: float
    error: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference over `pairs` questions, with its 95 % interval."""

    value: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """What an arm did over all of its questions.

    `touched` is the share of questions in which a kind of failure stayed, `left` how often
    in all, `mended` how many were cured by another attempt. `per_correct` is in tokens,
    None where nothing is right.
    """

    arm: str
    questions: int
    accuracy: Mean
    difference: Difference | None
    tokens: float
    seconds: float
    steps: float
    per_correct: float | None
    touched: dict[str, float]
    left: dict[str, int]
    mended: dict[str, int]


def mean_of(values: Sequence[float]) -> Mean:
    """Raises StatisticsError for no values."""
    error = None
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    return Mean(statistics.fmean(values), error)


def paired(pairs: Sequence[tuple[float, float]]) -> Difference | None:
    """The mean of (this - base) over the pairs; None where there are not at least two."""
    if len(pairs) < 2:
        return None
    mean = mean_of([this - base for this, base in pairs])
    reach = NORMAL_95 * (mean.error or 0.0)
    return Difference(mean.value, mean.value - reach, mean.value + reach, len(pairs))


def by_arm(marked: Iterable[Marked]) -> dict[str, list[Marked]]:
    arms: dict[str, list[Marked]] = {}
    for one in marked:
        arms.setdefault(one.arm, []).append(one)
    return arms


def figures(marked: Iterable[Marked], arms: Sequence[str]) -> list[ArmFigures]:
    """The arms' figures, in the order of `arms`."""
    found, base = by_arm(marked), base_of(arms)
    compared = found.get(base, [])
    return [
        _of_arm(name, found[name], [] if name == base else compared)
        for name in arms
        if name in found
    ]


def base_of(arms: Sequence[str]) -> str:
    """The arm that the others are compared with; "" for none."""
    return next((base for base in BASES if base in arms), "")


def _of_arm(name: str, marked: list[Marked], base: list[Marked]) -> ArmFigures:
    right = sum(one.correct for one in marked)
    tokens = sum(one.tokens for one in marked)
    touched: Counter[str] = Counter(kind for one in marked for kind in one.left)
    return ArmFigures(
        name,
        len(marked),
        mean_of([float(one.correct) for one in marked]),
        paired(_pairs(marked, base)),
        tokens / len(marked),
        statistics.fmean(one.seconds for one in marked),
        statistics.fmean(one.steps for one in marked),
        tokens / right if right else None,
        {kind: count / len(marked) for kind, count in touched.items()},
        _counted([one.left for one in marked]),
        _counted([one.mended for one in marked]),
    )


def _counted(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    return dict(sum(map(Counter, counts), Counter()))


def _pairs(marked: list[Marked], base: list[Marked]) -> list[tuple[float, float]]:
    """This arm's and the base's marks at the questions that both answered."""
    before = {(one.task, one.number): float(one.correct) for one in base}
    return [
        (float(one.correct), before[one.task, one.number])
        for one in marked
        if (one.task, one.number) in before
    ]


def accuracy_by_task(marked: Iterable[Marked], arm: str) -> dict[str, Mean]:
    tasks: dict[str, list[float]] = {}
    for one in marked:
        if one.arm == arm:
            tasks.setdefault(one.task, []).append(float(one.correct))
    return {name: mean_of(values) for name, values in tasks.items()}


def difference_by_task(marked: Iterable[Marked], arm: str, base: str) -> dict[str, Difference]:
    """Of the tasks in which both arms answered two questions or more."""
    found = by_arm(marked)
    ours, theirs = found.get(arm, []), found.get(base, [])
    named = {
        task: paired(_pairs([one for one in ours if one.task == task], theirs))
        for task in {one.task for one in ours}
    }
    return {task: difference for task, difference in named.items() if difference}
