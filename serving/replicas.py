"""Several vLLM servers of one model behind one address: what each gets, and who stands before them.

    client -> the front (front.py: the guard, the key) -> vllm-router (router.py) -> replicas

Pure. Each replica has cards of its own, or cores of its own where there is no GPU; servers of
other machines join at the router. vllm-router sends a chain, by its id, to the replica that has
its prefix, and elsewhere where that one is gone.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from serving.catalogue import ROOT, Model
from serving.command import (
    HOST,
    Command,
    Deployment,
    Options,
    ServerSpec,
    python_path,
    vllm_command,
)
from serving.hardware import Machine, cards, explain_misfit

VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = ("VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS")  # of one server, not of several
HIGHEST_PORT = 65535
ROUTER_FOLDER = ".venv-router"  # vllm-router's own environment: setup.py makes it
ROUTER_PYTHON = ROOT / ROUTER_FOLDER / "bin" / "python"
# vLLM's flags that spread one model over cards, and the one that makes copies of it.
SPREAD = ("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp")
COPIES = ("--data-parallel-size", "-dp")

# At its usual level it writes questions into its log. A replica that refuses three times in a row
# is left alone for some seconds, within the five tries of one request: so the fourth goes to
# another. One that is alive and slow is not taken for dead at its first late answer.
ROUTER_FLAGS = (
    *("--policy", "consistent_hash", "--log-level", "warning"),
    *("--health-check-interval-secs", "2", "--health-check-timeout-secs", "5"),
    *("--health-failure-threshold", "2", "--health-success-threshold", "1"),
    *("--cb-failure-threshold", "3", "--cb-success-threshold", "1"),
    *("--cb-timeout-duration-secs", "5", "--cb-window-duration-secs", "30"),
    # the replicas take minutes to come up; what takes too long is launch.py's to say
    *("--worker-startup-timeout-secs", "86400", "--worker-startup-check-interval", "1"),
)


def replica_count(text: str) -> int:
    """A flag's number of replicas. Raises ArgumentTypeError."""
    if not (text.isdecimal() and 0 < int(text) <= 64):
        raise ArgumentTypeError(f"expected a number of replicas from 1 to 64, got {text!r}")
    return int(text)


def worker_url(text: str) -> str:
    """A flag's address of another machine's server. Raises ArgumentTypeError."""
    wrong = ArgumentTypeError(f"expected http://HOST:PORT, got {text!r}")
    try:
        parts = urlsplit(text.strip().rstrip("/").removesuffix("/v1"))
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        raise wrong from None
    if not good or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise wrong
    return parts.geturl()


def find_problem(
    model: Model, options: Options, machine: Machine, given: Mapping[str, str]
) -> str | None:
    """Why this machine cannot serve so many of the model, in a line; None where it can."""
    if not options.routed:
        return None
    if options.replica(options.replicas - 1).port > HIGHEST_PORT:
        return f"--port {options.port} leaves the replicas no ports up to {HIGHEST_PORT}: lower it."
    if options.replicas == 1:
        return None
    if _value(options.extra, COPIES) is not None:
        return "Give --replicas, or --data-parallel-size after the --, not both."
    if machine.gpus:
        return _cards_problem(model, options, machine)
    return _cores_problem(model, options, machine, given)


def _cards_problem(model: Model, options: Options, machine: Machine) -> str | None:
    each, has = cards_each(model, options, machine), len(machine.gpus)
    if (needed := each * options.replicas) > has:
        many = "a GPU each" if each == 1 else f"{each} GPUs each"
        return f"--replicas {options.replicas} with {many} needs {needed}, this machine has {has}."
    if options.extra:  # which may make it fit
        return None
    parts = split(model, options, machine)
    return next(filter(None, (explain_misfit(model, part) for part in parts)), None)


def _cores_problem(
    model: Model, options: Options, machine: Machine, given: Mapping[str, str]
) -> str | None:
    count = machine.cpu.count
    if options.replicas > count:
        cores = "1 core" if count == 1 else f"{count} cores"
        return f"--replicas {options.replicas} needs a core each, this machine has {cores}."
    if named := [name for name in THREADS if name in given]:
        return f"--replicas shares out the cores itself: unset {named[0]}."
    if _value(options.extra, SPREAD) is not None:
        return "Without a GPU a replica is one process: leave --tensor-parallel-size out."
    return None


def _value(words: Sequence[str], names: Iterable[str]) -> str | None:
    """The last value of a flag of vLLM's, however it is spelled; None where it is not given."""
    found = None
    for word, following in pairwise((*words, "")):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") in names:
            found = value if equals else following
    return found


def cards_each(model: Model, options: Options, machine: Machine) -> int:
    """How many cards a replica takes: as vLLM's own flags say, else as few as hold the model."""
    tensor, pipeline = (_value(options.extra, SPREAD[at : at + 2]) for at in (0, 2))
    if tensor is None and pipeline is None:
        return cards(model, machine.gpus) or model.gpus
    sizes = (int(text) if text and text.isdecimal() else 1 for text in (tensor, pipeline))
    return max(1, next(sizes)) * max(1, next(sizes))


def one_of(options: Options, machine: Machine) -> Machine:
    """What one replica has before the model is known: all cards, for it may take several."""
    if machine.gpus:
        return machine
    return machine.part(0, min(options.replicas, machine.cpu.count))


def split(model: Model, options: Options, machine: Machine) -> list[Machine]:
    """What each replica has of the machine."""
    of = options.replicas
    if of == 1:
        return [machine]
    each = cards_each(model, options, machine) if machine.gpus else 1
    return [machine.part(number, of, each) for number in range(of)]


def replica_specs(deployment: Deployment) -> Iterator[ServerSpec]:
    """vLLM, once for each replica."""
    options, machine = deployment.options, deployment.machine
    for number, part in enumerate(split(deployment.model, options, machine)):
        command = vllm_command(replace(deployment, machine=part), number)
        if options.replicas > 1 and machine.gpus:
            devices = _devices(machine, deployment.given)
            first, count = number * len(part.gpus), len(part.gpus)
            own = {VISIBLE: ",".join(devices[first : first + count])}
            command = Command(command.argv, {**command.environment, **own})
        name = f"Replica {number + 1}" if options.replicas > 1 else "vLLM"
        yield ServerSpec(name, "vllm", command, options.replica(number).address)


def _devices(machine: Machine, given: Mapping[str, str]) -> list[str]:
    """The cards as CUDA names them: those that the user has chosen, else by their numbers."""
    chosen = [name.strip() for name in given.get(VISIBLE, "").split(",") if name.strip()]
    return chosen or [str(number) for number in range(len(machine.gpus))]


def workers(options: Options) -> tuple[str, ...]:
    """The addresses of all that the router sends to: this machine's, then the others'."""
    own = (options.replica(number).address for number in range(options.replicas))
    return (*own, *options.worker_urls)


def router_command(options: Options, given: Mapping[str, str]) -> Command:
    """vllm-router, in an environment of its own (setup.py). It finds the key as vLLM does."""
    argv = [str(ROUTER_PYTHON), "-m", "serving.router"]
    argv += ["--host", HOST, "--port", str(options.router.port), *ROUTER_FLAGS]
    return Command((*argv, "--worker-urls", *workers(options)), python_path(given))


def front_command(options: Options, python: Path, given: Mapping[str, str]) -> Command:
    """The one address: the guard before the router. It finds the key as vLLM does."""
    listener = options.vllm
    argv = [str(python), "-m", "serving.front", "--host", listener.host]
    argv += ["--port", str(listener.port), "--router", options.router.address]
    return Command((*argv, "--worker-urls", *workers(options)), python_path(given))


def front_specs(options: Options, python: Path, given: Mapping[str, str]) -> tuple[ServerSpec, ...]:
    """What stands before the replicas; nothing before a single server."""
    if not options.routed:
        return ()
    router = router_command(options, given)
    front = front_command(options, python, given)
    return (
        ServerSpec("The router", "router", router, options.router.address, "/liveness"),
        ServerSpec("The front", "front", front, options.vllm.address),
    )
