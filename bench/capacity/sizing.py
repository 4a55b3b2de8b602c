"""How many replicas a load needs, and what those who ask then see.

A chain stays where it began (a router hashes its id), and chains come by chance; so each of N
replicas sees an N-th of them, as if it were alone, and one is simulated for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median, quantiles

from bench.capacity.gpus import Server, solved
from bench.capacity.load import Load, calls_of
from bench.capacity.replica import Call, Engine, Replica

CHAINS = 10  # simulated for each call that has a place, so that a queue has time to grow
COLD = 0.3  # of them, the first, meet a server that is emptier than it will be
TRIES = 10  # halvings of what a replica may bear
HOURS = 730  # a month
FULL = 0.1  # seconds of a token at which nobody waits for any more: ten a second are read


@dataclass(frozen=True, slots=True)
class Service:
    """What one replica gives at a rate of chains; seconds, as (median, 95 of 100)."""

    first_word: tuple[float, float]
    chain: tuple[float, float]
    token: tuple[float, float]  # of one call that writes
    present: float  # chains at once, in the mean


@dataclass(frozen=True, slots=True)
class Plan:
    """A load on so many of a server."""

    load: Load
    server: Server
    replicas: int
    service: Service

    @property
    def dollars(self) -> float:
        """A month, all day and night."""
        return self.replicas * self.server.dollars * HOURS

    @property
    def cents(self) -> float:
        """A question."""
        return 100 * self.dollars / (self.load.day * HOURS / 24)


def serve(load: Load, engine: Engine, rate: float) -> Service:
    """Simulates one replica to which chains come at that rate."""
    chains = list(load.chains(rate, CHAINS * max(engine.streams, 50)))
    replica = Replica(engine)
    replica.run(chains)
    warm = [call for _, call in chains[int(COLD * len(chains)) :]]
    calls = [call for chain in warm for call in calls_of(chain)]
    return Service(
        spread([chain.wait for chain in warm]),
        spread([ended(chain) - chain.asked for chain in warm]),
        spread([(call.ended - call.said) / (call.tokens - call.word) for call in calls]),
        replica.present_seconds / replica.clock,
    )


def ended(chain: Call) -> float:
    return max(call.ended for call in calls_of(chain))


def spread(values: Sequence[float]) -> tuple[float, float]:
    return median(values), quantiles(values, n=20)[-1]


def bears(load: Load, engine: Engine, first_word: float) -> float:
    """Chains a second at which 95 of 100 see a word in time, and text as fast as it is read."""

    def excess(rate: float) -> float:
        service = serve(load, engine, rate)
        return max(service.first_word[1] / first_word, service.token[1] / FULL)

    alone = 1 / (load.written * engine.token)  # chains that one after the other would take
    return solved(excess, 1.0, alone * engine.streams, TRIES)


def plan(load: Load, server: Server, rate: float) -> Plan:
    """As many as bear the load's busiest hour, where one bears that rate."""
    replicas = ceil(load.rate / rate)
    return Plan(load, server, replicas, serve(load, server.engine, load.rate / replicas))
