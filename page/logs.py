"""The page's log: what Streamlit and its web server say, in the form in which we say it.

Streamlit gives each of its loggers a handler of its own, those too that it makes later.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit.logger
from streamlit.starlette import App

from reasoning.logs import start_logging


@asynccontextmanager
async def logged(_: App) -> AsyncIterator[None]:
    """The page's lifespan: all is logged by reasoning/logs.py from its begin on."""
    start_logging()
    streamlit.logger.setup_formatter = _hand_on
    streamlit.logger.update_formatter()
    yield


def _hand_on(logger: logging.Logger) -> None:
    """What the logger says goes to the one handler of the process."""
    logger.handlers.clear()
    logger.propagate = True
