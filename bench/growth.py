"""What grows with what, as one picture, from the figures that the other benches have kept.

    scripts/bench growth [--results bench/results] [--write docs/performance.png]

It measures nothing. Points are medians of a bench's rounds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.page import WATCHED

HUES = ("#0072B2", "#D55E00", "#009E73", "#E69F00")  # Okabe and Ito's
RUNS = (1_000, 10_000, 100_000)  # of the histories that are measured
TASKS = {
    "list its newest 30 conversations": "the list",
    "find a word that one run holds": "find a rare word",
    "find two that every other run holds, and none both": "find two frequent words",
    "write a finished step": "write a step",
}
Found = Callable[[str], Any]


def figures_in(folder: Path) -> Found:
    """The figures of a bench, by the name of its result."""

    def found(name: str) -> Any:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["found"]

    return found


def draw(found: Found, path: Path) -> None:
    """Writes the picture as a PNG, on white."""
    figure = Figure(figsize=(12, 7), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = (_steps, _chains, _ways, _page, _crowd, _history)
    for axes, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
        axes.set_prop_cycle(color=HUES)
        axes.margins(y=0.1)
        panel(axes, found)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=None if axes.get_yscale() == "log" else 0)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, facecolor="white")


def _steps(axes: Axes, found: Found) -> None:
    for name, label in (("loop-25", "chains of 25 steps"), ("loop-8", "of 8")):
        waits = [one["step_first_token"][1:] for one in found(name)]
        seconds = [median(of_step) for of_step in zip(*waits, strict=False)]
        axes.plot(range(2, 2 + len(seconds)), seconds, "o-", markersize=3, label=label)
    axes.set(title="A step", xlabel="number of the step", ylabel="first token, s")


def _chains(axes: Axes, found: Found) -> None:
    rows = [row for row in found("many-cot") if "plain streams" in row["what"]]
    counts = [int(row["what"].split()[0]) for row in rows]
    axes.plot(counts, [median(row["values"]) for row in rows], "o-", label="in one voice")
    axes.axhline(1, color="#999999", linewidth=0.8)
    axes.set(title="Chains at once", xlabel="chains", ylabel="tokens/s over plain streams'")
    axes.set_xticks(counts)


def _ways(axes: Axes, found: Found) -> None:
    for name, label in (("loop-cot", "in one voice"), ("loop-1.5b", "in JSON steps"),
                        ("loop-8", "8 JSON steps"), ("loop-25", "25 JSON steps")):  # fmt: skip
        rounds = found(name)
        tokens, efficiency = ([one[key] for one in rounds] for key in ("tokens", "efficiency"))
        axes.plot(tokens, efficiency, "o", markersize=4, label=label)
    axes.axhline(1, color="#999999", linewidth=0.8)
    axes.set(title="A chain", xlabel="its tokens", ylabel="plain decoding's time over its own")


def _page(axes: Axes, found: Found) -> None:
    rounds = found("page")
    for part, label in (("token", "a token"), ("rerun", "a click")):
        times = ([one["live"][at][part]["main"] for one in rounds] for at in range(len(WATCHED)))
        axes.plot(WATCHED, list(map(median, times)), "o-", label=label)
    axes.set(title="The page", xlabel="number of the step", ylabel="browser's main thread, ms")
    axes.set(yscale="log", ylim=(1, 1000))


def _crowd(axes: Axes, found: Found) -> None:
    sizes = found("crowd")
    people = [int(size) for size in sizes]
    for label, seconds in _waits(sizes.values()).items():
        axes.plot(people, seconds, "o-", label=label)
    axes.set(title="People who ask at once", xlabel="sessions", ylabel="s")


def _waits(sizes: Iterable[Sequence[Any]]) -> dict[str, list[float]]:
    waits: dict[str, list[float]] = {"first step": [], "at worst": [], "answer late, at worst": []}
    for rounds in sizes:
        waits["first step"].append(median(median(one["first"]) for one in rounds))
        waits["at worst"].append(median(max(one["first"]) for one in rounds))
        waits["answer late, at worst"].append(median(max(one["late"]) for one in rounds))
    return waits


def _history(axes: Axes, found: Found) -> None:
    kept = [{row["what"]: row["seconds"] for row in found(f"history-{runs}")} for runs in RUNS]
    for task, label in TASKS.items():
        axes.plot(RUNS, [1000 * median(rows[task]) for rows in kept], "o-", label=label)
    axes.set(title="The history (SQLite)", xlabel="runs", ylabel="ms", xscale="log", yscale="log")


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--results", type=Path, default=Path("bench/results"))
    flags.add_argument("--write", type=Path, default=Path("docs/performance.png"))
    given = flags.parse_args()
    draw(figures_in(given.results), given.write)


if __name__ == "__main__":
    main()
