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


PARTS = (
    Part("page process", 1.6, "bench/results/crowd.md, 0.73 s for 460 tokens, 20 at once"),
    Part("gateway process", 0.69, "bench/results/parts.md, in steps"),
    Part("core of PostgreSQL", 0.19, "bench/results/parts.md, 16 at once, a piece a token"),
    Part("core of the router", 0.0035, "bench/results/parts.md"),
)
