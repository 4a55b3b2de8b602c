"""On a CPU vLLM's engine and its worker sleep while they wait for each other.

They talk through shared memory, and who waits asks again and again until a second after the last
message. That saves a GPU some microseconds; on two cores it takes a whole one from the page, and
from the model, for as long as the model writes.

This is a plugin of vLLM's (https://docs.vllm.ai/en/latest/design/plugin_system.html), which
each of its processes loads. It is named in plugin/stepwise.dist-info, whose folder
serving/command.py puts on the path where there is no GPU.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

QUEUE = "vllm.distributed.device_communicators.shm_broadcast"


def sleep_while_waiting() -> None:
    """No message begins the second anew: after its first one a process waits to be woken.

    That first one is needed: who was not listening yet is not woken.
    """
    condition = import_module(QUEUE).SpinCondition
    condition.record_read = _forgotten


def _forgotten(condition: Any) -> None:
    """In the place of noting when the last message was read."""
