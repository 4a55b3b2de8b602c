"""The application: OpenAI's calls, answered by chains of thought.

    app = create_app(Endpoint.from_environment())

It keeps no state but what a request carries. It has no guard of its own: serving/gate.py
is put around it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.routing import BaseRoute

from gateway.admission import Admission
from gateway.errors import install_handlers
from gateway.observers import Observer
from gateway.routes import router
from gateway.upstream import GatewayState, Upstream
from reasoning.endpoint import Endpoint

KEEP_ALIVE = 10.0  # seconds; proxies give up on a connection that is silent for 30 to 60


def create_app(
    endpoint: Endpoint,
    *,
    observers: Sequence[Observer] = (),
    routes: Sequence[BaseRoute] = (),
    keep_alive: float = KEEP_ALIVE,
    stopped: asyncio.Event | None = None,
    queue: int | None = None,
) -> FastAPI:
    """The gateway in front of the endpoint, which it closes when it ends.

    `observers` see every chain, `routes` stand beside ours. While a stream has nothing to
    say, a comment goes out every `keep_alive` seconds. Who waits when `stopped` is set is told so.
    Nobody begins while `queue` requests wait at the model server.
    """
    upstream = Upstream(endpoint)
    admission, stopped = Admission(endpoint.waiting, queue), stopped or asyncio.Event()
    state = GatewayState(upstream, admission, tuple(observers), keep_alive, stopped)
    app = FastAPI(
        title="Stepwise gateway",
        docs_url=None,  # the pages load scripts from elsewhere
        redoc_url=None,
        routes=list(routes),
        lifespan=_lifespan,
    )
    app.state.gateway = state
    app.include_router(router)
    install_handlers(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: GatewayState = app.state.gateway
    warming = asyncio.create_task(state.upstream.warm_up())
    try:
        yield
    finally:
        warming.cancel()
        await asyncio.wait({warming})
        await state.upstream.endpoint.close()
