"""What we change in vLLM on a CPU, on stand-ins with the names that vLLM has."""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace

import psutil
import pytest
import torch

from serving.tuning import (
    FEW,
    START,
    fork_processes,
    linear,
    return_memory,
    set_seeds_back,
    widen,
)

ROWS = (1, FEW, FEW + 1, 100)


def test_vllms_processes_are_forked_whatever_its_configuration_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []

    class Platform:
        @classmethod
        def check_and_update_config(cls, config: object) -> None:
            seen.append(config)
            os.environ[START] = "spawn"

    monkeypatch.setenv(START, "spawn")
    fork_processes(Platform)
    Platform.check_and_update_config("a config")
    assert (seen, os.environ[START]) == (["a config"], "fork")


def test_a_seeds_draws_are_taken_back_as_if_they_had_not_been() -> None:
    class Batch:
        def add_request(self, request: SimpleNamespace) -> torch.Generator:
            return request.generator  # type: ignore[no-any-return]

    set_seeds_back(Batch)
    plain, seeded = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    batch = Batch()
    assert Batch.add_request(batch, SimpleNamespace(generator=None)) is None
    ours = batch.add_request(SimpleNamespace(generator=seeded))
    torch.empty(9).exponential_(generator=ours)
    ours.set_offset(ours.get_offset() - 4)  # as vLLM does it
    for _ in range(2):
        drawn = torch.empty(9).exponential_(generator=ours)
        assert drawn.equal(torch.empty(9).exponential_(generator=plain))
    again = batch.add_request(SimpleNamespace(generator=ours))  # a request that had to wait
    drawn = torch.empty(9).exponential_(generator=again)
    assert drawn.equal(torch.empty(9).exponential_(generator=plain))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("biased", [True, False])
def test_many_rows_come_out_as_each_of_them_alone(rows: int, biased: bool) -> None:
    torch.manual_seed(rows)
    values, weight = torch.randn(rows, 64).bfloat16(), torch.randn(32, 64).bfloat16()
    bias = torch.randn(32).bfloat16() if biased else None
    exact = torch.nn.functional.linear(
        values.double(), weight.double(), None if bias is None else bias.double()
    )
    got = linear(values, weight, bias)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), exact, rtol=0.02, atol=0.1)


@pytest.mark.parametrize(
    ("weight", "ours"),
    [
        (torch.zeros(4, 4, dtype=torch.bfloat16), True),
        (torch.zeros(4, 4), False),
        (torch.zeros(4, 1, 4, dtype=torch.bfloat16), False),
        (torch.zeros(4, 4, dtype=torch.bfloat16, device="meta"), False),
    ],
)
def test_only_matrices_in_bfloat16_are_widened(weight: torch.Tensor, ours: bool) -> None:
    left: list[bool] = []

    def dispatch(layer: object, remove_weight: bool) -> None:
        left.append(remove_weight)

    layers = SimpleNamespace(dispatch_cpu_unquantized_gemm=dispatch)
    widen(layers)
    layer = SimpleNamespace(weight=weight)
    layers.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    assert (getattr(layer, "cpu_linear", None) is linear, left) == (ours, [] if ours else [True])


def test_what_reading_the_weights_took_beside_them_is_given_back() -> None:
    libc, process, size = ctypes.CDLL(None), psutil.Process(), 100_000
    libc.malloc.restype = ctypes.c_void_p

    class Worker:
        def load_model(self, *, load_dummy_weights: bool) -> int:
            blocks = [libc.malloc(size) for _ in range(1000)]
            for block in blocks:
                ctypes.memset(block, 1, size)
            self.weights = blocks.pop()  # on top: what is free below it stays with the process
            for block in blocks:
                libc.free(ctypes.c_void_p(block))
            return len(blocks)

    return_memory(Worker)
    before = process.memory_info().rss
    assert Worker().load_model(load_dummy_weights=False) == 999
    assert process.memory_info().rss - before < 20 * size
