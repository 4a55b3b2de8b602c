"""Where each part between the readers and the models gives out, from what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass

from bench.capacity.load import Load

SHARE = 0.6  # of a core that a process may be busy: beyond it words come late


@dataclass(frozen=True, slots=True)
class Part:
    """One process of it is one core's worth; `milliseconds` of CPU time a token costs there."""

    name: str
    milliseconds: float
    source: str

    def day(self, load: Load) -> float:
        """Questions a day of that load that one process takes."""
        tokens = SHARE * 1000 / self.milliseconds
        return tokens / load.written * 3600 / load.busy

    def processes(self, load: Load) -> float:
        return load.day / self.day(load)


PARTS = (Part("page process", 2.43, "bench/results/page.md, at step 25"),)
