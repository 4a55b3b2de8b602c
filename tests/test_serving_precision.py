"""What a model computes in, on machines that are not here."""

from __future__ import annotations

from typing import Any

import pytest

from serving.catalogue import Model, load
from serving.cpu import Cpu
from serving.hardware import Gpu, Machine
from serving.precision import Precision, PrecisionError, choose

AVX2 = Machine(cpu=Cpu(features=frozenset({"avx2"})))
VNNI = Machine(cpu=Cpu(features=frozenset({"avx2", "avx512_vnni"})))
ARM = Machine(cpu=Cpu(features=frozenset({"i8mm"})))
GPU = Machine(gpus=(Gpu("H100", 85.0),))

SMALL = load()["qwen2.5-1.5b-instruct"]
LARGE = load()["llama-3.1-8b-instruct"]
TYPED = Model("typed", "Typed", size_gb=1.0, cpu_flags=("--dtype=float32",))
UNKNOWN = Model("org/name", "name")
PUBLISHED = load()["qwen2.5-1.5b-instruct-w8a8"]
INT8 = Precision("int8", "bfloat16", convert=True)
BFLOAT16 = Precision("bfloat16", "bfloat16")
FLOAT32 = Precision("float32", "float32")
W8A8 = {"quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized"}}
AWQ = {"quantization_config": {"quant_method": "awq"}}


@pytest.mark.parametrize(
    ("asked", "model", "machine", "config", "computed"),
    [
        ("auto", SMALL, AVX2, {}, BFLOAT16),
        ("auto", SMALL, VNNI, {}, INT8),
        ("auto", SMALL, ARM, {}, INT8),
        ("auto", LARGE, VNNI, {}, BFLOAT16),
        ("int8", LARGE, VNNI, {}, INT8),
        ("float32", SMALL, VNNI, {}, FLOAT32),
        ("bfloat16", SMALL, VNNI, {}, BFLOAT16),
        ("auto", TYPED, VNNI, {}, Precision()),
        ("bfloat16", TYPED, VNNI, {}, BFLOAT16),
        ("auto", SMALL, VNNI, W8A8, Precision("int8")),
        ("int8", SMALL, VNNI, W8A8, Precision("int8")),
        ("float32", SMALL, VNNI, W8A8, Precision("int8", "float32")),
        ("int8", SMALL, AVX2, AWQ, Precision("awq")),
        ("auto", UNKNOWN, VNNI, {}, Precision()),
        ("int8", UNKNOWN, VNNI, {}, INT8),
        ("auto", PUBLISHED, VNNI, {}, Precision("int8")),
        ("auto", PUBLISHED, GPU, {}, Precision()),
        ("auto", SMALL, GPU, {}, Precision()),
        ("bfloat16", SMALL, GPU, {}, BFLOAT16),
        ("auto", SMALL, GPU, W8A8, Precision()),
    ],
)
def test_it_follows_from_what_is_asked_the_model_and_the_machine(
    asked: str, model: Model, machine: Machine, config: dict[str, Any], computed: Precision
) -> None:
    assert choose(asked, model, machine, config) == computed


@pytest.mark.parametrize(
    ("machine", "config", "said"),
    [
        (AVX2, {}, "give --precision bfloat16"),
        (AVX2, W8A8, "take the model that is not quantised"),
        (GPU, {}, "--quantization fp8"),
    ],
)
def test_what_does_not_run_is_refused_in_one_line_that_says_what_to_type(
    machine: Machine, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(PrecisionError, match=said) as caught:
        choose("int8", SMALL, machine, config)
    assert len(str(caught.value).splitlines()) == 1
