"""What a model computes in on this machine, and why. Pure: values in, a Precision out.

A CPU reads every weight for every token, so that fewer bytes are more tokens: int8 where its
instructions multiply int8, else bfloat16. On AVX2 one row times a matrix takes 0.8 of float32's
time, as measured; the many rows of a prompt are widened there (serving/tuning.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.catalogue import Model
from serving.cpu import Cpu
from serving.hardware import Machine

PRECISIONS = ("auto", "int8", "bfloat16", "float32")
LARGEST_GB = 9.0  # of weights in bfloat16; beyond about 4 B parameters a CPU's wait is too long
DECIDES = {"--dtype", "--quantization", "-q"}  # vLLM's own flags for the same
W8A8 = {"quant_method": "compressed-tensors", "format": "int-quantized"}
INT8_NEEDS = "AVX-512 VNNI, AMX or ARM's i8mm"


class PrecisionError(Exception):
    """What was asked for does not run here: one line that says what to type."""


@dataclass(frozen=True, slots=True)
class Precision:
    """`name` for people, `dtype` for vLLM ("": its own choice).

    `convert` says that the weights have to be made int8 first (serving/quantise.py).
    """

    name: str = ""
    dtype: str = ""
    convert: bool = False


BFLOAT16 = Precision("bfloat16", "bfloat16")


def decide(flags: Iterable[str]) -> bool:
    """Whether flags for vLLM say already what it computes in."""
    return any(flag.split("=")[0] in DECIDES for flag in flags)


def choose(asked: str, model: Model, machine: Machine, config: Mapping[str, Any]) -> Precision:
    """`asked` is one of PRECISIONS; `config` is the model's config.json, {} before it is here.

    Of a hub's model whose size is not known yet it says nothing. Raises PrecisionError.
    """
    if asked == "auto" and decide((*model.flags, *model.gpu_flags, *model.cpu_flags)):
        return Precision()
    if machine.gpus:
        return _on_gpu(asked)
    published = W8A8 if model.precision == "int8" else None
    if found := config.get("quantization_config") or published:
        return _quantised(asked, found, model, machine.cpu)
    if asked == "int8":
        _check_int8(machine.cpu)
    if asked == "auto" and not model.size_gb:
        return Precision()
    if asked == "int8" or (asked == "auto" and machine.cpu.int8 and model.size_gb <= LARGEST_GB):
        return Precision("int8", "bfloat16", convert=True)
    return BFLOAT16 if asked == "auto" else Precision(asked, asked)


def _on_gpu(asked: str) -> Precision:
    if asked == "int8":
        raise PrecisionError(
            "--precision int8 is for machines without a GPU; on a GPU give: -- --quantization fp8"
        )
    return Precision() if asked == "auto" else Precision(asked, asked)


def _quantised(asked: str, found: Mapping[str, Any], model: Model, cpu: Cpu) -> Precision:
    """Served as it is; what is asked for is then what its layers hand on to each other."""
    method = str(found.get("quant_method", "quantised"))
    kind = "int8" if found.get("format") == "int-quantized" else method
    if kind == "int8" and not cpu.int8:
        raise PrecisionError(
            f"{model.name} is quantised to int8, which needs {INT8_NEEDS}; this CPU has none of "
            "them: take the model that is not quantised."
        )
    return Precision(kind, asked if asked in ("bfloat16", "float32") else "")


def _check_int8(cpu: Cpu) -> None:
    if not cpu.int8:
        raise PrecisionError(
            f"--precision int8 needs {INT8_NEEDS}, and this CPU has none of them: "
            "give --precision bfloat16, or leave it out."
        )
