"""Whether the process that keeps a run lives: by its signs of life, or looked for right here."""

from __future__ import annotations

import os
import socket
from functools import cache

import psutil

SILENT = 30.0  # seconds without a sign of life after which a run is cut off
SAME = 1.0  # seconds; when a process began is told from the boot, which a set clock moves


def lives(keeper: str, silent: float) -> bool:
    """Whether it gave a sign of life of late; one of this machine is looked for, too."""
    try:
        machine, pid, began = keeper.rsplit(" ", 2)
        if silent >= SILENT or machine != _machine():
            return silent < SILENT
        created: float = psutil.Process(int(pid)).create_time()
        return abs(created - float(began)) < SAME
    except (psutil.Error, ValueError, TypeError):  # it is gone, or its name is damaged
        return False


@cache
def this_process() -> str:
    """This process, so that it is told from a later one with its number."""
    pid = os.getpid()
    return f"{_machine()} {pid} {psutil.Process(pid).create_time()}"


@cache
def _machine() -> str:
    """Where a number names one process: containers may share a host's name, but not numbers."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return socket.gethostname() + numbers
