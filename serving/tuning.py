"""What we change in vLLM on a CPU: how its processes wait, start, take memory, multiply and draw.

This is a plugin of vLLM's (https://docs.vllm.ai/en/latest/design/plugin_system.html), which
each of its processes loads. It is named in plugin/stepwise.dist-info, whose folder
serving/command.py puts on the path where there is no GPU.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor

QUEUE = "vllm.distributed.device_communicators.shm_broadcast"
NAP = 0.001  # seconds; a token of the smallest model takes ten times as long

PLATFORM = "vllm.platforms.cpu"
START = "VLLM_WORKER_MULTIPROC_METHOD"
OPENMP = "libiomp5"

WORKER = "vllm.v1.worker.cpu_worker"
RELEASE = ("MallocExtension_ReleaseFreeMemory", "malloc_trim")  # tcmalloc's, glibc's

BATCH = "vllm.v1.worker.gpu_input_batch"

LAYERS = "vllm.model_executor.layers.utils"
FEW = 8  # rows; up to here AVX2 is as fast in bfloat16
LARGEST = 1 << 26  # values of a weight, beyond which its copy in float32 is too large


def tune() -> None:
    """What vLLM calls, in each of its processes, before it reads a model."""
    nap_while_waiting(import_module(QUEUE))
    set_seeds_back(import_module(BATCH).InputBatch)
    return_memory(import_module(WORKER).CPUWorker)
    if OPENMP in os.environ.get("LD_PRELOAD", ""):
        fork_processes(import_module(PLATFORM).CpuPlatform)
    if lacks_bfloat16():
        widen(import_module(LAYERS))


def nap_while_waiting(queue: Any) -> None:
    """Engine and worker talk through shared memory, and who waits looks again and again, without
    a pause, until a second after the last message. That saves a GPU some microseconds; of two
    cores it takes a whole one for as long as a model writes.

    Only the pause between two looks is ours: vLLM's other way to wait, until it is woken by a
    message, misses one now and then, and a token comes seconds late.
    """
    queue.sched_yield = _nap


def _nap() -> None:
    time.sleep(NAP)


def fork_processes(cpu: Any) -> None:
    """The engine and its worker as forks of the server, which has imported vLLM already.

    Spawned, each imports it anew, one after the other: two thirds of a start. vLLM spawns them
    for what a fork lacks: its own LD_PRELOAD, which serving/command.py gives to the first, and
    OpenMP's threads, which GNU's cannot start again in a fork and Intel's can.
    """
    configure = cpu.check_and_update_config

    def configured(config: Any) -> None:
        configure(config)
        os.environ[START] = "fork"

    cpu.check_and_update_config = staticmethod(configured)


def return_memory(worker: Any) -> None:
    """What reading the weights took beside them goes back to the system; malloc would keep it."""
    load = worker.load_model

    def loaded(*given: Any, **named: Any) -> Any:
        done = load(*given, **named)
        gc.collect()
        for name in RELEASE:
            if release := getattr(ctypes.CDLL(None), name, None):
                release(0)
        return done

    worker.load_model = loaded


def set_seeds_back(batch: Any) -> None:
    """A prompt that is read in several parts, with a seed: what is drawn before its end does not
    count, and vLLM sets the generator back by its offset. PyTorch's generator on a CPU has none,
    and its error ends the server, for everybody.
    """
    import torch

    class Seeded(torch.Generator):
        """To be set back is to begin anew, for no draw has counted yet."""

        def get_offset(self) -> int:
            return 0

        def set_offset(self, offset: int) -> Generator:
            return self.manual_seed(self.initial_seed())

    add_request = batch.add_request

    def added(self: Any, request: Any) -> Any:
        if request.generator is not None:
            drawn = request.generator.get_state()
            request.generator = Seeded(device=request.generator.device)
            request.generator.set_state(drawn)
        return add_request(self, request)

    batch.add_request = added


def lacks_bfloat16() -> bool:
    """Whether this is an x86 of AVX2 alone: PyTorch multiplies bfloat16 there value by value."""
    import torch

    return platform.machine() == "x86_64" and not torch.cpu._is_avx512_supported()


def widen(layers: Any) -> None:
    """A prompt's many rows are multiplied in float32, four to six times as fast there.

    A token's single row stays in bfloat16, which reads half the bytes.
    """
    theirs = layers.dispatch_cpu_unquantized_gemm

    def dispatch(layer: Any, remove_weight: bool) -> None:
        if is_widened(layer.weight):
            layer.cpu_linear = linear
        else:
            theirs(layer, remove_weight)

    layers.dispatch_cpu_unquantized_gemm = dispatch


def is_widened(weight: Tensor) -> bool:
    import torch

    plain = weight.ndim == 2 and not weight.is_meta
    return plain and weight.dtype == torch.bfloat16 and weight.numel() <= LARGEST


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows [..., in] times weight [out, in], plus bias [out], all in bfloat16: [..., out]."""
    from torch.nn import functional

    if rows.numel() <= FEW * rows.shape[-1]:
        return functional.linear(rows, weight, bias)
    wide = None if bias is None else bias.float()
    return functional.linear(rows.float(), weight.float(), wide).to(rows.dtype)
