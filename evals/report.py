"""A run's figures as Markdown: who answers better, what it costs, what goes wrong. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from evals.figures import (
    ArmFigures,
    Difference,
    Mean,
    accuracy_by_task,
    base_of,
    difference_by_task,
    figures,
)
from evals.outcomes import FAILURES, Marked
from evals.plan import EvalPlan


def report(plan: EvalPlan, marked: Sequence[Marked]) -> str:
    """The whole report. The marked answers may be some of those that are planned."""
    rows = figures(marked, plan.arms)
    base = base_of(plan.arms)
    parts = [_head(plan, marked), _answers(rows, base), _failures(rows), _tasks(marked, plan)]
    return "\n".join([*parts, *([_differences(marked, plan, base)] if base else [])])


def _head(plan: EvalPlan, marked: Sequence[Marked]) -> str:
    asked = len(plan.arms) * len({(one.task, one.number) for one in marked})
    short = "" if len(marked) == asked else f"\n\nUnfinished: {len(marked)} of {asked} answers."
    return (
        f"# {plan.model}\n\n    {plan.command}\n\n"
        f"Temperature {plan.temperature:g}, {plan.budget} completion tokens a question, seed "
        f"{plan.seed}, {plan.limit} questions a task, {plan.parallel} at once.{short}\n"
    )


def _answers(rows: Sequence[ArmFigures], base: str) -> str:
    titles = ("arm", "questions", "correct, % (± standard error)", f"difference to {base or '-'}")
    costs = ("steps", "tokens", "seconds", "tokens per correct answer")
    cells = [
        (
            row.arm,
            str(row.questions),
            _percent(row.accuracy),
            _points(row.difference),
            f"{row.steps:.1f}",
            f"{row.tokens:.0f}",
            f"{row.seconds:.1f}",
            "-" if row.per_correct is None else f"{row.per_correct:.0f}",
        )
        for row in rows
    ]
    note = (
        "The difference is in points, question by question, with its 95 % interval; tokens and "
        "seconds are means of an answer.\n"
    )
    return f"{_table((*titles, *costs), cells)}\n{note}"


def _failures(rows: Sequence[ArmFigures]) -> str:
    cells = [(row.arm, *(_failure(row, kind) for kind in FAILURES)) for row in rows]
    table = _table(("arm", *FAILURES.values()), cells)
    return (
        "What went wrong: the share of questions in which it stayed (how often in all), and "
        f"how often another attempt mended it.\n\n{table}"
    )


def _failure(row: ArmFigures, kind: str) -> str:
    left, mended = row.left.get(kind, 0), row.mended.get(kind, 0)
    stayed = f"{row.touched[kind]:.0%} ({left})" if left else "-"
    return stayed + (f", {mended} mended" if mended else "")


def _tasks(marked: Sequence[Marked], plan: EvalPlan) -> str:
    found = [accuracy_by_task(marked, arm) for arm in plan.arms]
    cells = [
        (name, *(_percent(one[name]) if name in one else "-" for one in found))
        for name in plan.tasks
    ]
    return f"Correct by task, %:\n\n{_table(('task', *plan.arms), cells)}"


def _differences(marked: Sequence[Marked], plan: EvalPlan, base: str) -> str:
    arms = [arm for arm in plan.arms if arm != base]
    found = [difference_by_task(marked, arm, base) for arm in arms]
    cells = [(task, *(_points(one.get(task)) or "-" for one in found)) for task in plan.tasks]
    return f"Difference to {base} by task, points:\n\n{_table(('task', *arms), cells)}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _percent(mean: Mean) -> str:
    return f"{mean.value:.1%}".rstrip("%") + (
        "" if mean.error is None else f" ± {mean.error * 100:.1f}"
    )


def _points(difference: Difference | None) -> str:
    if difference is None:
        return ""
    value, low, high = (100 * part for part in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
