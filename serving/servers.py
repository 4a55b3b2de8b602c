"""All that ./serve.sh starts: vLLM or its replicas, what stands before them, what asks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.catalogue import Model
from serving.command import PAGE_HEALTH, Options, ServerSpec, gateway_command, page_command
from serving.hardware import Machine
from serving.precision import Precision
from serving.replicas import front_specs, replica_specs


@dataclass(frozen=True, slots=True)
class Servers:
    """The model's own servers, and those beside them in the order in which they come up."""

    vllms: tuple[ServerSpec, ...]
    beside: tuple[ServerSpec, ...]

    @property
    def all(self) -> tuple[ServerSpec, ...]:
        return (*self.vllms, *self.beside)


def servers(
    model: Model,
    options: Options,
    machine: Machine,
    weights: Path,
    python: Path,
    given: Mapping[str, str],
    precision: Precision = Precision(),
) -> Servers:
    """With the router's and the front's where there are several; gateway and page as asked for."""
    vllms = replica_specs(model, options, machine, weights, python, given, precision)
    beside = [*front_specs(options, python, given)]
    if options.gateway:
        gateway, where = gateway_command(model, options, python, given), options.gateway_listener
        beside.append(ServerSpec("The gateway", "gateway", gateway, where.address))
    if options.ui:
        page = page_command(model, options, python)
        beside.append(ServerSpec("The page", "page", page, options.page.address, PAGE_HEALTH))
    return Servers(tuple(vllms), tuple(beside))
