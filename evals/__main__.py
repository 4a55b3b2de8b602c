"""The command: does thinking in steps answer better?

    python -m evals --quick
    python -m evals --model NAME --arms direct,json_steps --tasks letter_counting:easy --limit 50
    python -m evals --list
    python -m evals --report logs/evals/NAME

It asks the server that OPENAI_BASE_URL names. A second start of the same command goes on
where the first one ended; what it printed stands in the run's folder as report.md and
report.png, with inspect's logs beside it (`inspect view --log-dir FOLDER`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from evals import tasks
from evals.arms import ARMS, VOTES, EvalServer, arm_named
from evals.figures import figures
from evals.outcomes import NotAsked
from evals.plan import EvalPlan, read_plan, write_plan
from evals.report import report
from reasoning.detection import detect_way
from reasoning.endpoint import Endpoint, Patience, ServedModel
from reasoning.errors import StepwiseError
from reasoning.events import Settings
from serving.catalogue import ways

RUNS = Path("logs") / "evals"
# Many questions share a server, and a CPU takes its time for each.
NOBODY_WAITS = Patience(first=3600, idle=600, whole=7200)
PACKAGES = ("inspect_ai", "reasoning_gym", "math_verify", "matplotlib")
DEFAULT_ARMS = ("direct", "cot", "tutorial", "json_steps", "cot_steps", VOTES)
DEFAULT_TASKS = tuple(f"{name}:{next(iter(it.levels))}" for name, it in tasks.GENERATORS.items())
QUICK_ARMS = ("direct", "cot", "tutorial", "json_steps", "cot_steps")
QUICK_TASKS = ("chain_sum:easy", "products:easy", "gcd:easy")  # a 135 M model can do some
QUICK_LIMIT, QUICK_BUDGET = 4, 600


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    given = _flags().parse_args(argv)
    try:
        if given.list:
            print(_known())
            return 0
        _check_packages()
        if given.report:
            _show(read_plan(given.report), given.report)
        else:
            _run(given, _plan(given, shlex.join(["python", "-m", "evals", *argv])))
    except (ValueError, StepwiseError, NotAsked) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _flags() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="python -m evals",
        usage="python -m evals [flags]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    flags.add_argument("--model", default="", help="the served name (default: the first served)")
    flags.add_argument("--arms", type=_names, help=f"default: {','.join(DEFAULT_ARMS)}")
    flags.add_argument("--tasks", type=_names, help="default: each generator's first level")
    flags.add_argument("--limit", type=_positive, help="questions per task (default: 20)")
    flags.add_argument("--temperature", type=float, default=default.temperature, metavar="T")
    flags.add_argument(
        "--budget", type=_positive, metavar="N", help="tokens per question (default: 2000)"
    )
    flags.add_argument("--seed", type=int, default=1, metavar="N")
    flags.add_argument(
        "--parallel", type=_positive, default=4, metavar="N", help="questions at once"
    )
    flags.add_argument("--gateway", default="", metavar="URL", help="for the arm of that name")
    flags.add_argument("--quick", action="store_true", help="a few questions, minutes on a CPU")
    flags.add_argument("--out", type=Path, metavar="DIR", help=f"default: a folder in {RUNS}/")
    flags.add_argument("--list", action="store_true", help="show the arms and the tasks")
    flags.add_argument("--report", type=Path, metavar="DIR", help="draw a run's report again")
    return flags


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text}")
    return int(text)


def _known() -> str:
    arms = [f"  {arm.name:14} {arm.what}" for arm in (*ARMS.values(), arm_named(VOTES))]
    return "\n".join(["Arms:", *arms, "Tasks:", *(f"  {name}" for name in tasks.known_tasks())])


def _run(given: argparse.Namespace, plan: EvalPlan) -> None:
    _check(plan, given.gateway)
    model = asyncio.run(_served(plan))
    plan = replace(plan, model=model.name)
    folder = given.out or RUNS / _folder(plan)
    with_earlier = write_plan(plan, folder)
    _ask(plan, model, given.gateway, folder)
    _show(with_earlier, folder)


def _plan(given: argparse.Namespace, command: str) -> EvalPlan:
    quick = given.quick
    return EvalPlan(
        given.model or os.environ.get("MODEL", ""),
        given.arms or (QUICK_ARMS if quick else DEFAULT_ARMS),
        given.tasks or (QUICK_TASKS if quick else DEFAULT_TASKS),
        given.limit or (QUICK_LIMIT if quick else 20),
        given.temperature,
        given.budget or (QUICK_BUDGET if quick else 2000),
        given.seed,
        given.parallel,
        command,
    )


def _check_packages() -> None:
    """Raises ValueError, in one line, where requirements-evals.txt is not installed."""
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        raise ValueError(f"{', '.join(absent)} missing: scripts/evals installs them and starts.")


def _check(plan: EvalPlan, gateway: str) -> None:
    """Raises ValueError, in one line, for what cannot be run."""
    for name in plan.arms:
        arm_named(name)
    for name in plan.tasks:
        tasks.check_name(name)
    if "gateway" in plan.arms and not gateway:
        raise ValueError("The arm gateway needs --gateway URL, such as http://127.0.0.1:8001/v1.")


def _endpoint(plan: EvalPlan) -> Endpoint:
    """One for each event loop: a client's connections belong to the loop that opened them."""
    return Endpoint.from_environment({**os.environ, "MODEL": plan.model}, NOBODY_WAITS)


async def _served(plan: EvalPlan) -> ServedModel:
    """The served model, if it can do what the arms need. Raises StepwiseError, ValueError."""
    endpoint = _endpoint(plan)
    model = await endpoint.model()
    needs = {arm_named(name).needs for name in plan.arms} - {""}
    way = await detect_way(endpoint, model, ways()) if needs else ""
    await endpoint.close()
    if needs - {way}:
        raise ValueError(f"{model.name} thinks in {way}; it has no {', '.join(needs - {way})}.")
    return model


def _folder(plan: EvalPlan) -> str:
    model = plan.model.replace("/", "--")
    return f"{model}-t{plan.temperature:g}-b{plan.budget}-n{plan.limit}-s{plan.seed}"


def _ask(plan: EvalPlan, model: ServedModel, gateway: str, folder: Path) -> None:
    from evals.running import run  # inspect takes seconds to import

    made = [tasks.task(name, plan.limit, plan.seed) for name in plan.tasks]
    run(plan, made, EvalServer(_endpoint(plan), model, gateway), folder)


def _show(plan: EvalPlan, folder: Path) -> None:
    """Prints the report of what is in the folder, and keeps it there with its picture."""
    from evals.logs import read_marked  # inspect takes seconds to import
    from evals.picture import draw

    marked = read_marked(folder)
    if not marked:
        raise ValueError(f"{folder} holds no answers yet.")
    text = report(plan, marked)
    (folder / "report.md").write_text(text, encoding="utf-8")
    title = f"{plan.model}, at most {plan.budget} tokens a question"
    draw(figures(marked, plan.arms), title, folder / "report.png")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
