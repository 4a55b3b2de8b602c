"""What a run is to do, and how its folder remembers it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

PLAN = "plan.json"
FIXED = ("model", "temperature", "budget", "seed", "limit")  # what all of a run's answers share


@dataclass(frozen=True, slots=True)
class EvalPlan:
    """`budget` is in completion tokens per question, `limit` in questions per task."""

    model: str
    arms: tuple[str, ...]
    tasks: tuple[str, ...]
    limit: int
    temperature: float
    budget: int
    seed: int
    parallel: int
    command: str = ""

    @property
    def questions(self) -> int:
        return len(self.arms) * len(self.tasks) * self.limit


def write_plan(plan: EvalPlan, folder: Path) -> EvalPlan:
    """Keeps the plan in the run's folder, together with the arms and tasks planned there before.

    Raises ValueError, in one line, where the folder holds a run that cannot be compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / PLAN).exists():
        plan = _joined(read_plan(folder), plan, folder)
    (folder / PLAN).write_text(json.dumps(asdict(plan), indent=1), encoding="utf-8")
    return plan


def read_plan(folder: Path) -> EvalPlan:
    """Raises ValueError, in one line, where the folder holds no run."""
    try:
        told = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        known = {one.name: told[one.name] for one in fields(EvalPlan)}
    except OSError:
        raise ValueError(f"{folder} holds no run of the evaluation.") from None
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{folder / PLAN} cannot be read; give another folder.") from None
    return EvalPlan(**{**known, "arms": tuple(told["arms"]), "tasks": tuple(told["tasks"])})


def _joined(old: EvalPlan, new: EvalPlan, folder: Path) -> EvalPlan:
    for name in FIXED:
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            raise ValueError(
                f"{folder} holds a run with {name} {before}, not {now}: give another --out."
            )
    arms = tuple(dict.fromkeys((*old.arms, *new.arms)))
    tasks = tuple(dict.fromkeys((*old.tasks, *new.tasks)))
    return EvalPlan(**{**asdict(new), "arms": arms, "tasks": tasks})
