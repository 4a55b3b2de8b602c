"""How many GPUs so many people need, what they then see, what it costs, and what gives out first.

    scripts/bench capacity                               # from one person to a million questions
    scripts/bench capacity --users 300 --questions 12    # a load of your own
    scripts/bench capacity --measured 105,640,9000       # a server of your own
    scripts/bench capacity --check                       # beside what was measured

A queue is simulated on one core, no model is asked: minutes. Where the figures come from is in
bench/capacity/gpus.py and limits.py, what the model leaves out in replica.py; read docs/scale.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

from bench.capacity.check import OURS, REPLICAS, RUNS, ours, simulated, two_replicas
from bench.capacity.gpus import GPUS, Server
from bench.capacity.limits import PARTS, SHARE
from bench.capacity.load import Load
from bench.capacity.picture import draw
from bench.capacity.replica import Engine
from bench.capacity.sizing import Plan, Service, bears, plan, serve

LADDER = ((1, 20), (50, 20), (2_000, 10), (20_000, 10), (100_000, 10))  # users, questions of each
FULLNESS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1)  # of what one bears, in the picture
MEASURED = 8  # streams, as far as `scripts/bench serve` measures
HELP = {
    "users": "how many ask",
    "questions": "of each user, a day",
    "busy": "the share of a day's questions that the busiest hour has",
    "steps": "of a chain",
    "tokens": "of a step, and of the answer",
    "prompt": "tokens of a chain's first prompt",
    "cached": "the share of what was said before that each later call finds in the cache",
    "single": "a chain is one call (the way cot), not one for each step (json_steps)",
    "lead": "tokens before a title's first word",
}


def measured(figures: str, dollars: float) -> Server:
    """One stream, eight streams, a prompt: tokens/s, as `scripts/bench serve` prints them."""
    one, eight, prompt = (float(figure) for figure in figures.split(","))
    more = (MEASURED / eight - 1 / one) / (MEASURED - 1)
    return Server("measured", dollars, Engine(1 / one, more, 1 / prompt, MEASURED))


def table(head: str, rows: Iterator[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *lines]) + "\n"


def plans_table(plans: Sequence[Plan]) -> str:
    head = "| questions a day | a second, at most | GPU | GPUs | chains at once | first word, s | "
    return table(head + "a chain, s | $ a month | cents a question |", map(plan_row, plans))


def figure(value: float) -> str:
    """Two digits, and all of a large number."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def plan_row(made: Plan) -> Sequence[object]:
    service = made.service
    return (
        f"{made.load.day:,.0f}",
        figure(made.load.rate),
        made.server.name,
        made.replicas,
        figure(made.replicas * service.present),
        "{:.2f} ({:.2f})".format(*service.first_word),
        "{:.0f} ({:.0f})".format(*service.chain),
        f"{made.dollars:,.0f}",
        figure(made.cents),
    )


def parts_table(load: Load) -> str:
    head = "| one core of | ms of CPU a token | full at questions a day | from |"
    rows = ((p.name, p.milliseconds, f"{p.day(load):,.0f}", p.source) for p in PARTS)
    return table(head, rows)


def check_table() -> str:
    head = "| on | requests/s | what | measured | simulated | off by, % |"
    theirs = [
        (run.gpu.name, run.rate or "", run.what, run.measured, simulated(run)) for run in RUNS
    ]
    mine = [("two cores", "", what, OURS[what], found) for what, found in ours().items()]
    mine += [
        ("two replicas", "", what, REPLICAS[what], found) for what, found in two_replicas().items()
    ]
    return table(head, map(check_row, [*theirs, *mine]))


def check_row(row: tuple[str, object, str, float, float]) -> Sequence[object]:
    *said, expected, found = row
    return *said, expected, f"{found:.3g}", f"{100 * (found / expected - 1):+.0f}"


def progress(said: str) -> None:
    print(said, file=sys.stderr, flush=True)


def limits(load: Load, servers: Sequence[Server], wait: float) -> dict[str, float]:
    """Chains a second that one of each bears."""
    found = {}
    for server in servers:
        found[server.name] = bears(load, server.engine, wait)
        progress(f"One {server.name} bears {found[server.name]:.2f} chains/s")
    return found


def fullness(load: Load, server: Server, rate: float) -> list[tuple[float, Service]]:
    return [(share, serve(load, server.engine, share * rate)) for share in FULLNESS]


def report(plans: Sequence[Plan], wait: float, command: str) -> str:
    load = plans[0].load
    chain = f"A chain of {load.steps:g} steps and the answer, {load.tokens:g} tokens each, is "
    chain += (
        f"{load.calls:g} calls; {100 * load.busy:g} % of a day's questions come in its busiest "
    )
    chain += f"hour. Where 95 of 100 see a first word within {wait:g} s; median (95 of 100)."
    full = f"What gives out first: one core of each part, {100 * SHARE:g} % busy with such chains."
    head = f"# Capacity, on paper\n\n    {command}\n"
    return "\n".join([head, chain, "", plans_table(plans), full, "", parts_table(load)])


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(Load):
        kind = {"action": "store_true"} if field.name == "single" else {"type": float}
        given = "" if field.name in ("users", "single") else f" ({field.default:g})"
        flags.add_argument(f"--{field.name}", help=HELP[field.name] + given, **kind)
    flags.add_argument("--first-word", type=float, default=1.0, help="goal, in seconds (1)")
    flags.add_argument("--gpu", action="append", choices=GPUS, help="that alone; may be repeated")
    flags.add_argument(
        "--measured", help="a server of yours: " + (measured.__doc__ or "").partition("\n")[0]
    )
    flags.add_argument("--dollars", type=float, default=0.0, help="an hour of it (0)")
    flags.add_argument("--check", action="store_true", help="the simulation beside measurements")
    flags.add_argument("--write", type=Path, help="the report there, the picture beside it")
    return flags


def loads(given: argparse.Namespace) -> list[Load]:
    """What the flags say, or else the ladder of it."""
    said = {field.name: getattr(given, field.name) for field in fields(Load)}
    load = replace(Load(), **{name: value for name, value in said.items() if value is not None})
    if given.users is not None:
        return [load]
    return [replace(load, users=users, questions=each) for users, each in LADDER]


def main() -> None:
    given = parser().parse_args()
    asked = loads(given)
    if given.check:
        print(check_table())
        return
    gpus = [GPUS[name] for name in given.gpu or GPUS]
    servers = [gpu.server(asked[0].context) for gpu in gpus]
    if given.measured:
        servers = [measured(given.measured, given.dollars)]
    rates = limits(asked[0], servers, given.first_word)
    plans = [plan(load, server, rates[server.name]) for load in asked for server in servers]
    command = " ".join(["scripts/bench", "capacity", *sys.argv[1:]])
    text = report(plans, given.first_word, command)
    print(text)
    if given.write:
        given.write.write_text(text, encoding="utf-8")
        services = {one.name: fullness(asked[0], one, rates[one.name]) for one in servers}
        draw(asked[0], rates, services, PARTS, given.write.with_suffix(".png"))


if __name__ == "__main__":
    main()
