"""All that ./serve.sh starts: vLLM or its replicas, what stands before them, what asks them."""

from __future__ import annotations

from dataclasses import dataclass

from serving.command import PAGE_HEALTH, Deployment, ServerSpec, gateway_command, page_command
from serving.replicas import front_specs, replica_specs


@dataclass(frozen=True, slots=True)
class Servers:
    """The model's own servers, and those beside them in the order in which they come up."""

    vllms: tuple[ServerSpec, ...]
    beside: tuple[ServerSpec, ...]

    @property
    def all(self) -> tuple[ServerSpec, ...]:
        return (*self.vllms, *self.beside)


def servers(deployment: Deployment) -> Servers:
    """With the router's and the front's where there are several; gateway and page as asked for."""
    model, options = deployment.model, deployment.options
    python, given = deployment.python, deployment.given
    beside = [*front_specs(options, python, given)]
    if options.gateway:
        gateway, where = gateway_command(model, options, python, given), options.gateway_listener
        beside.append(ServerSpec("The gateway", "gateway", gateway, where.address))
    if options.ui:
        page = page_command(model, options, python)
        beside.append(ServerSpec("The page", "page", page, options.page.address, PAGE_HEALTH))
    return Servers(tuple(replica_specs(deployment)), tuple(beside))
