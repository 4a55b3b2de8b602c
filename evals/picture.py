"""A run's figures as a picture: correct answers, what one costs, what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evals.figures import NORMAL_95, ArmFigures
from evals.outcomes import FAILURES

# Okabe and Ito's colours, which those who confuse red and green tell apart
HUES = ("#D55E00", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#0072B2", "#999999")
COLOURS = dict(zip(FAILURES, HUES, strict=True))
PLAIN = "#4C6E91"


def draw(rows: Sequence[ArmFigures], title: str, path: Path) -> None:
    """Writes the picture as a PNG, on white."""
    figure = Figure(figsize=(12, 1.6 + 0.45 * len(rows)), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    panels: tuple[Callable[[Axes, Sequence[ArmFigures]], None], ...] = (
        _accuracy,
        _tokens,
        _seconds,
        _failures,
    )
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        panel(axes, rows)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.savefig(path, facecolor="white")


def _accuracy(axes: Axes, rows: Sequence[ArmFigures]) -> None:
    errors = [NORMAL_95 * 100 * (row.accuracy.error or 0.0) for row in rows]
    axes.barh(
        [row.arm for row in rows],
        [100 * row.accuracy.value for row in rows],
        xerr=errors,
        color=PLAIN,
        error_kw={"lw": 1},
    )
    axes.set_xlim(left=0)
    axes.set_title("correct, % (bars: 95 %)", fontsize=10)


def _tokens(axes: Axes, rows: Sequence[ArmFigures]) -> None:
    axes.barh([row.arm for row in rows], [row.tokens for row in rows], color=PLAIN)
    axes.set_title("tokens an answer", fontsize=10)


def _seconds(axes: Axes, rows: Sequence[ArmFigures]) -> None:
    axes.barh([row.arm for row in rows], [row.seconds for row in rows], color=PLAIN)
    axes.set_title("seconds an answer", fontsize=10)


def _failures(axes: Axes, rows: Sequence[ArmFigures]) -> None:
    """The kinds beside each other: a question may have several, so they do not add up."""
    height = 0.8 / len(FAILURES)
    for index, kind in enumerate(FAILURES):
        places = [row + (index - (len(FAILURES) - 1) / 2) * height for row in range(len(rows))]
        shares = [100 * row.touched.get(kind, 0.0) for row in rows]
        axes.barh(places, shares, height, color=COLOURS[kind], label=FAILURES[kind])
    axes.set_xlim(0, 100)
    axes.set_title("questions with a failure, %", fontsize=10)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
