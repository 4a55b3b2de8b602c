"""On a CPU vLLM's engine and its worker nap while they wait for each other.

They talk through shared memory, and who waits looks again and again, without a pause, until a
second after the last message. That saves a GPU some microseconds; of two cores it takes a whole
one for as long as a model writes.

This is a plugin of vLLM's (https://docs.vllm.ai/en/latest/design/plugin_system.html), which
each of its processes loads. It is named in plugin/stepwise.dist-info, whose folder
serving/command.py puts on the path where there is no GPU.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

QUEUE = "vllm.distributed.device_communicators.shm_broadcast"
NAP = 0.001  # seconds; a token of the smallest model takes ten times as long


def nap_while_waiting() -> None:
    """Only the pause between two looks is ours: vLLM's other way to wait, until it is woken by a
    message, misses one now and then, and a token comes seconds late.
    """
    queue: Any = import_module(QUEUE)
    queue.sched_yield = _nap


def _nap() -> None:
    time.sleep(NAP)
