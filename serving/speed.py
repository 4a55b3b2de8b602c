"""How fast a model will write on this CPU: expected from what it reads, before it is served.

One stream's token reads every weight once, and costs a time that does not depend on them. Both
the memory's speed and Python's are measured here, once, in half a second, and kept in
`$XDG_STATE_HOME/stepwise/speed.json` for the processor and its threads.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Any

from serving.bundles import BUNDLES
from serving.catalogue import Model, state_root
from serving.cpu import Cpu
from serving.quantise import INT8

SECONDS = 0.25  # for each of the two measurements
ROOM = 128 << 20  # bytes for each thread: more than its share of any cache
PIECE = 8 << 20  # bytes; short enough to be undisturbed now and then
PIECES = 32  # that are timed together
FASTEST = 0.9  # the quantile of these that counts: a busy machine only makes them slower
SMALL = 576  # values; as many as the smallest model hands on
CALLS = 50_000  # small calls that take as long as what a token costs beside its weights
REACHED = 0.75  # of the memory's speed, by vLLM's kernels for a token
# In bfloat16 each value is widened, float32 goes through oneDNN: 1.5 B, 0.5 B, nothing beside them
# (bfloat16 0.40 and 0.36, 2.8 and 6.5 tokens/s; float32 0.35 and 0.39).
REACHED_ON_AVX2 = {"bfloat16": 0.38, "float32": 0.37}


@dataclass(frozen=True, slots=True)
class Speed:
    """`read` in bytes/s, by all threads together; `call` in seconds, for one small call."""

    read: float
    call: float

    def tokens(self, read: float) -> float:
        """Tokens/s of one stream whose every token reads as many bytes."""
        return 1 / (read / self.read + CALLS * self.call)


def expected_speed(model: Model, precision: str, cpu: Cpu, measured: Speed) -> float | None:
    """Tokens/s of one stream of the model in that precision; None where its size is unknown."""
    read = bytes_read(model, precision)
    return measured.tokens(read / _reached(precision, cpu)) if read else None


def bytes_read(model: Model, precision: str) -> float:
    """What a token reads of the model's weights, in bytes; 0 where their size is unknown."""
    if model.package is not None:
        form = BUNDLES[model.package].read_as(precision)
        return form * 2 if precision == "float32" else form
    if model.precision == INT8:
        return model.size_gb * 1e9
    sizes = {"int8": model.size_gb / 2, "float32": model.size_gb * 2}
    return sizes.get(precision, model.size_gb) * 1e9


def _reached(precision: str, cpu: Cpu) -> float:
    narrow = "avx2" in cpu.features and "avx512f" not in cpu.features
    return REACHED_ON_AVX2.get(precision, REACHED) if narrow else REACHED


def known_speed(cpu: Cpu, file: Path | None = None) -> Speed | None:
    """What was measured for this processor; measures it where it can. None where it cannot."""
    file = file or state_root() / "speed.json"
    key = f"{cpu.name}, {cpu.threads} threads"
    speeds = _read(file)
    if speed := _speed(speeds.get(key)):
        return speed
    try:
        speed = measure(cpu.threads)
    except ImportError:  # before the set-up there is no numpy
        return None
    _write(file, {**speeds, key: asdict(speed)})
    return speed


def _speed(kept: object) -> Speed | None:
    """As it was kept, or None where it cannot have been."""
    with suppress(TypeError, KeyError):
        speed = Speed(float(kept["read"]), float(kept["call"]))  # type: ignore[index]
        return speed if speed.read > 0 and speed.call > 0 else None
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        speeds = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return speeds if isinstance(speeds, dict) else {}


def _write(file: Path, speeds: Mapping[str, Any]) -> None:
    """Where it cannot be kept it is measured again, half a second each time."""
    draft = file.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(speeds, indent=1), encoding="utf-8")
        draft.replace(file)


def measure(threads: int) -> Speed:
    """Measures now. Raises ImportError without numpy."""
    import numpy

    small = numpy.zeros(SMALL, numpy.float32)
    call = min(_times(lambda: numpy.add(small, small, small), SECONDS))
    return Speed(read=_read_together(threads), call=call)


def _read_together(threads: int) -> float:
    """Bytes/s that the threads read, each its own part.

    On a busy machine they take turns, and each is as fast as it is alone: so it is told from
    pieces that ended one after the other, whichever thread they are of.
    """
    ready, ends = threading.Barrier(threads), list[float]()
    readers = [threading.Thread(target=_reader, args=(ready, ends)) for _ in range(threads)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    ends.sort()
    spans = sorted(later - sooner for sooner, later in zip(ends, ends[PIECES:], strict=False))
    return PIECES * PIECE / spans[int(len(spans) * (1 - FASTEST))]


def _reader(ready: threading.Barrier, ends: list[float]) -> None:
    """At what times it had read a piece: as many as it takes, and for so long at least."""
    import numpy

    pieces = cycle(numpy.split(numpy.ones(ROOM, numpy.uint8), ROOM // PIECE))
    ready.wait()
    until = time.perf_counter() + SECONDS
    for number in count():
        next(pieces).max()
        ends.append(time.perf_counter())
        if number > PIECES and ends[-1] > until:
            return


def _times(work: Callable[[], object], seconds: float) -> list[float]:
    """How long the work takes, each time, until the seconds are over."""
    end, times = time.perf_counter() + seconds, list[float]()
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times
