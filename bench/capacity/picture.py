"""As a picture: GPUs against questions a day, and the first word against how full one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.capacity.limits import Part
from bench.capacity.load import Load
from bench.capacity.sizing import Service

HUES = ("#D55E00", "#E69F00", "#009E73", "#0072B2")  # Okabe and Ito's
DAYS = [10 ** (1 + n / 40) for n in range(201)]  # 10 to 1,000,000 questions
Fullness = Sequence[tuple[float, Service]]  # of what it bears, and what comes of it


def draw(
    load: Load,
    bears: Mapping[str, float],
    services: Mapping[str, Fullness],
    parts: Sequence[Part],
    path: Path,
) -> None:
    """Writes the picture as a PNG, on white. `bears` are chains a second of each GPU."""
    figure = Figure(figsize=(12, 5), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _gpus(left, load, bears)
    _parts(left, load, parts)
    _first_words(right, services)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, facecolor="white")


def _gpus(axes: Axes, load: Load, bears: Mapping[str, float]) -> None:
    for (name, rate), hue in zip(bears.items(), HUES, strict=False):
        needed = [ceil(day * load.busy / 3600 / rate) for day in DAYS]
        axes.plot(DAYS, needed, drawstyle="steps-post", color=hue, label=name)
    axes.set(xscale="log", yscale="log", xlabel="questions a day", ylabel="GPUs")


def _parts(axes: Axes, load: Load, parts: Sequence[Part]) -> None:
    """Where one process of each is full."""
    for part in parts:
        day = part.day(load)
        if day <= DAYS[-1]:
            axes.axvline(day, color="#999999", linewidth=0.8, linestyle=":")
            place = (day, 0.98)
            axes.annotate(
                f"one {part.name}", place, rotation=90, fontsize=7, va="top", ha="right",
                xycoords=("data", "axes fraction"),
            )  # fmt: skip


def _first_words(axes: Axes, services: Mapping[str, Fullness]) -> None:
    for (name, fullness), hue in zip(services.items(), HUES, strict=False):
        shares = [100 * share for share, _ in fullness]
        for place, style in ((0, "-"), (1, "--")):
            seconds = [service.first_word[place] for _, service in fullness]
            label = f"{name}, {('median', '95 of 100')[place]}"
            axes.plot(shares, seconds, style, color=hue, label=label)
    axes.set(yscale="log", xlabel="chains, % of what one bears", ylabel="first word, s")
