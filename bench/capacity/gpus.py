"""GPUs that others have measured with vLLM and a model of 8 B in bfloat16, and what they cost.

Speeds: AccelMark, suite A (Llama-3-8B-Instruct, ShareGPT), all of one kind of run, each done
again by somebody else within 5 %: github.com/FreedomIntelligence/AccelMark at 5797fc4, the
result.json in the folder of results/verified/ that ends as named. Prices: RunPod's for a
worker that always runs, docs.runpod.io/serverless/pricing, as stored in 2026. Another
seller may ask a third or four times as much, so ask yours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

from bench.capacity.replica import Call, Engine, Replica

# Of AccelMark's requests, from its tokens/s in and out of a hundred of them: a mean prompt and
# reply, and the longest reply. How the replies spread is not published.
PROMPT, REPLY, LONGEST = 255, 345, 512
HUNDRED = 100
TOKEN = 2 * 32 * 8 * 128 * 2 / 2**30  # GiB: keys and values, layers, heads, their size, bytes
WEIGHTS = 14.96  # GiB: 8.03 B parameters in two bytes each
PLACES = 256  # vLLM's --max-num-seqs by itself (1024 on an H100, where nobody measured so many)


@dataclass(frozen=True, slots=True)
class Server:
    """What is rented, and what it does."""

    name: str
    dollars: float  # an hour
    engine: Engine


@dataclass(frozen=True)
class Gpu:
    """One that was measured: milliseconds of one request alone, seconds of a hundred at once."""

    name: str
    first_token: float
    token: float
    hundred: float
    memory: float  # GiB that vLLM held: weights, cache and what it computes with
    dollars: float  # an hour
    source: str  # vLLM's version, and the folder's end

    def server(self, context: float) -> Server:
        """As calls that hold so many tokens in the mean find it: its cache has room for no more."""
        room = int((self.memory - WEIGHTS) / TOKEN / context)
        return Server(self.name, self.dollars, replace(self.fitted, streams=min(PLACES, room)))

    @cached_property
    def fitted(self) -> Engine:
        """A first token is a prompt read and a step made; the hundred tell what more calls cost."""
        prompt = (self.first_token - self.token) / 1000 / PROMPT
        room = int((self.memory - WEIGHTS) / TOKEN / (PROMPT + REPLY / 2))
        engine = Engine(self.token / 1000, 0.0, prompt, min(PLACES, room))

        def seconds(more: float) -> float:
            replica = Replica(replace(engine, more=more))
            replica.run((0.0, call) for call in asked(HUNDRED))
            return replica.clock

        return replace(engine, more=solved(seconds, self.hundred, high=0.01))


def asked(count: int, seed: int = 1) -> list[Call]:
    """AccelMark's requests; replies spread evenly around their mean, up to the longest."""
    chance = Random(seed)
    return [Call(PROMPT, chance.uniform(2 * REPLY - LONGEST, LONGEST)) for _ in range(count)]


def solved(function: Callable[[float], float], value: float, high: float, tries: int = 20) -> float:
    """Where a function that grows has that value, between 0 and `high`."""
    low = 0.0
    for _ in range(tries):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < value else (low, middle)
    return (low + high) / 2


H100 = Gpu("H100", 20.08, 7.74, 6.8, 69.2, 3.35, "0.7.3, h100_80gb_hbm3x1_…_831c95a7")
# Its memory from the run with 0.7.3 (…_ed4b0557): this one does not tell.
A100 = Gpu("A100", 27.78, 10.77, 8.9, 69.33, 2.16, "0.20.1, a100_sxm4_80gbx1_…_8f83bfab")
RTX_4090 = Gpu("RTX 4090", 67.76, 20.13, 24.1, 19.21, 0.76, "0.7.3, rtx_4090x1_…_675e325e")
L4 = Gpu("L4", 161.63, 61.2, 94.7, 17.85, 0.47, "0.7.3, l4x1_…_b991b4c1")
GPUS = {"l4": L4, "rtx-4090": RTX_4090, "a100": A100, "h100": H100}
