"""The catalogue as a table that fits a terminal of 100 columns. Pure: values in, text out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from serving.catalogue import Model
from serving.hardware import Machine, card_gb, cards, holds
from serving.served import approximate

WAYS = {
    "json_steps": "JSON steps",
    "coat": "COAT",
    "native": "its own",
    "direct": "no steps",
    "cot": "one voice",
}
HEAD = ("", "MODEL", "GB", "TOKENS/S", "THINKS IN", "NEEDS (GB)", "HERE")
RIGHT = (2, 3)  # the columns of numbers


def format_table(
    models: Iterable[Model],
    machine: Machine,
    default: Model | None,
    present: Callable[[Model], bool],
    int8_bytes: Callable[[Model], int | None] = lambda model: None,
    speed: Callable[[Model], float | None] = lambda model: None,
) -> str:
    """The table. `int8_bytes` is the size of a model's int8 form beside it, None without one;
    `speed` the tokens/s to expect of a model here, None where nobody knows.
    """
    rows: list[tuple[str, ...]] = [HEAD]
    for model in models:
        rows.append(_row(model, machine, default, present(model), approximate(speed(model))))
        if size := int8_bytes(model):
            rows.append(_int8_row(size))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [_line(row, widths) for row in rows]
    return "\n".join([*lines, "", *_legend(machine, default)])


def _row(
    model: Model, machine: Machine, default: Model | None, present: bool, speed: str
) -> tuple[str, ...]:
    mark = "*" if model == default else "" if holds(model, machine) else "-"
    size, way = f"{model.size_gb:.1f}", WAYS.get(model.way, model.way)
    return mark, model.name, size, speed, way, needs(model, machine), "yes" if present else "no"


def _int8_row(size: int) -> tuple[str, ...]:
    """The form that was made here, below the one it was made of."""
    return "", "  the same in int8", f"{size / 1e9:.1f}", "", "", "", "yes"


def needs(model: Model, machine: Machine) -> str:
    """On the cards of this machine where it fits them, else on those of its table."""
    count = cards(model, machine.gpus) or model.gpus
    of = "GPU" if count == 1 else f"{count} GPUs of"
    gpu = f"{of} {card_gb(model, count):.0f}" if model.gpu_gb else "GPU"
    cpu = f" or RAM {model.cpu_gb:g}" if model.cpu_gb else ""
    return gpu + cpu + (", licence" if model.gated else "")


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        cell.rjust(width) if column in RIGHT else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _legend(machine: Machine, default: Model | None) -> list[str]:
    chosen = ["* served when no --model is named"] if default else []
    return [
        f"This machine: {machine.description}.",
        *chosen,
        "- does not fit this machine",
        *(["TOKENS/S: expected here, of one answer at a time"] if not machine.gpus else []),
        "licence: Hugging Face wants it accepted first",
    ]
